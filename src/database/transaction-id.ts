import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

const RANDOM_BYTES = 16;
const XID_BYTES = 8;
const MAC_BYTES = 8;
const LENGTH = RANDOM_BYTES + XID_BYTES + MAC_BYTES;

/** What a transaction id says of itself. */
export interface TransactionIdFacts {
  /** PostgreSQL's 64-bit id of the transaction; undefined for a read-only one, which has none. */
  readonly xid: bigint | undefined;
}

/**
 * Makes and reads transaction ids: 128 random bits, PostgreSQL's own transaction id, and a seal over both and the
 * caller's identity under a key kept in the database. So a sidecar that was killed and restarted still knows which ids
 * were its own, whose they were, and can ask PostgreSQL how they ended, without having written a row.
 */
export class TransactionIds {
  readonly #key: Uint8Array;

  constructor(key: Uint8Array) {
    this.#key = key;
  }

  #seal(body: Uint8Array, caller: string): Buffer {
    return createHmac('sha256', this.#key).update(body).update(caller).digest().subarray(0, MAC_BYTES);
  }

  /** A new id of `caller`'s. */
  issue(caller: string, xid: bigint | undefined): string {
    const body = Buffer.alloc(RANDOM_BYTES + XID_BYTES);
    randomBytes(RANDOM_BYTES).copy(body);
    body.writeBigUInt64BE(xid ?? 0n, RANDOM_BYTES);
    return Buffer.concat([body, this.#seal(body, caller)]).toString('base64url');
  }

  /** Facts of an id that was issued to `caller`; undefined for anything else. */
  read(id: string, caller: string): TransactionIdFacts | undefined {
    const bytes = Buffer.from(id, 'base64url');
    if (bytes.length !== LENGTH || bytes.toString('base64url') !== id) return undefined;
    const body = bytes.subarray(0, RANDOM_BYTES + XID_BYTES);
    if (!timingSafeEqual(this.#seal(body, caller), bytes.subarray(RANDOM_BYTES + XID_BYTES))) return undefined;
    const xid = body.readBigUInt64BE(RANDOM_BYTES);
    return { xid: xid === 0n ? undefined : xid };
  }
}
