import { createCipheriv, createDecipheriv, hkdfSync, timingSafeEqual } from 'node:crypto';
import { Hmac } from '../hmac.ts';

const CIPHER = 'aes-256-ctr';
const KEY_BYTES = 32;
const SEAL_BYTES = 16;
const LENGTH_BYTES = 4;
/** Tokens that are kept: lists are asked for again before their rows have changed, and each token costs as much as ten rows. */
const KEPT = 64;
/** Characters of what a token is made of up to which it is kept: most are few, and a request may have millions. */
const KEPT_LENGTH = 4_096;

/**
 * Makes and reads the tokens that a list goes on with: what is in one is sealed and hidden under keys that come of the key
 * of the database, so that any sidecar of the database reads it and nobody else makes or reads one. The seal is also what
 * the hiding begins with (as in SIV, RFC 5297), so the same place of the same list has the same token.
 */
export class PageTokens {
  #opened: { readonly sealing: Hmac; readonly hiding: Uint8Array } | undefined;
  /** Those made last, by what they are made of. */
  readonly #made = new Map<string, string>();

  /** Gives the key of the database; without it no token is made or read. */
  open(key: Uint8Array): void {
    const keys = new Uint8Array(hkdfSync('sha256', key, '', 'page tokens', 2 * KEY_BYTES));
    this.#made.clear();
    this.#opened = { sealing: new Hmac(keys.subarray(0, KEY_BYTES)), hiding: keys.subarray(KEY_BYTES) };
  }

  get #keys() {
    if (!this.#opened) throw new Error('the key of the database is not known yet');
    return this.#opened;
  }

  /** @param bound what the token is for; it is sealed with the text and not in the token. */
  make(text: string, bound: Buffer): string {
    const of = `${bound.length}:${bound.toString('latin1')}${text}`;
    const isKept = of.length <= KEPT_LENGTH;
    const known = isKept ? this.#made.get(of) : undefined;
    if (known !== undefined) return known;
    const bytes = Buffer.from(text);
    const seal = this.#seal(bytes, bound);
    const hidden = createCipheriv(CIPHER, this.#keys.hiding, seal).update(bytes);
    const token = Buffer.concat([seal, hidden]).toString('base64url');
    if (!isKept) return token;
    if (this.#made.size >= KEPT) this.#made.delete(this.#made.keys().next().value!);
    this.#made.set(of, token);
    return token;
  }

  /** The text of a token that was made for that; undefined of anything else. */
  read(token: string, bound: Uint8Array): string | undefined {
    const sealed = Buffer.from(token, 'base64url');
    if (sealed.length < SEAL_BYTES || sealed.toString('base64url') !== token) return undefined;
    const seal = sealed.subarray(0, SEAL_BYTES);
    const bytes = createDecipheriv(CIPHER, this.#keys.hiding, seal).update(sealed.subarray(SEAL_BYTES));
    return timingSafeEqual(this.#seal(bytes, bound), seal) ? bytes.toString() : undefined;
  }

  #seal(bytes: Uint8Array, bound: Uint8Array): Buffer {
    const length = Buffer.alloc(LENGTH_BYTES);
    length.writeUInt32BE(bound.length);
    return this.#keys.sealing.of(length, bound, bytes).subarray(0, SEAL_BYTES);
  }
}
