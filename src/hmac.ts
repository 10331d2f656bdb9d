import { hash } from 'node:crypto';

const BLOCK_BYTES = 64;
const INNER = 0x36;
const OUTER = 0x5c;

/** Seals under one key by HMAC-SHA-256 (RFC 2104): two hashes at once, of what `createHmac` would set an object up for. */
export class Hmac {
  readonly #inner: Buffer;
  readonly #outer: Buffer;

  constructor(key: Uint8Array) {
    const block = Buffer.alloc(BLOCK_BYTES);
    block.set(key.length > BLOCK_BYTES ? hash('sha256', key, 'buffer') : key);
    this.#inner = block.map((byte) => byte ^ INNER) as Buffer;
    this.#outer = block.map((byte) => byte ^ OUTER) as Buffer;
  }

  /** The 32 bytes of the seal over these, one after the other. */
  of(...parts: readonly Uint8Array[]): Buffer {
    const inner = hash('sha256', Buffer.concat([this.#inner, ...parts]), 'buffer');
    return hash('sha256', Buffer.concat([this.#outer, inner]), 'buffer');
  }
}
