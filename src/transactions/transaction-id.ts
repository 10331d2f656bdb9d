import { randomBytes, timingSafeEqual } from 'node:crypto';
import { Hmac } from '../hmac.ts';
import type { OutcomeKey } from './outcomes.ts';

const RANDOM_BYTES = 16;
const TIME_BYTES = 8;
const MAC_BYTES = 8;
const HEAD = RANDOM_BYTES + TIME_BYTES;
/** What the name of a sidecar may take of an id, without its mark. */
const NAME_BYTES = 51;
const MARK_BYTES = 4;

/** What a transaction id says of itself. */
export interface TransactionIdFacts {
  /** What the evidence of its commit is kept under. */
  readonly key: OutcomeKey;
  /** When it was begun by the database's clock, milliseconds since 1970. */
  readonly beganAt: number;
  /** Name of the sidecar that began it. */
  readonly holder: string;
}

/** An id in the making. */
export interface TransactionIdDraft {
  readonly random: Buffer;
  readonly key: OutcomeKey;
}

/**
 * Makes and reads transaction ids: 128 random bits, when and by whom the transaction was begun, and a seal over that and
 * the caller's identity under a key kept in the database. So any sidecar of the database, also one that was killed and
 * restarted, knows which ids are real and whose they are. An id never refers to PostgreSQL's own number of the
 * transaction, which a crash, a failover or a restore may hand out again.
 */
export class TransactionIds {
  #key: Hmac | undefined;
  /** Name of this sidecar, and a mark of this very run: of containers, several are process 1 of one host name. */
  readonly holder: string;

  /** @param name tells a person where the sidecar is. */
  constructor(name: string) {
    const clipped = Buffer.from(name)
      .subarray(0, NAME_BYTES)
      .toString()
      .replace(/\uFFFD+$/, '');
    this.holder = `${clipped}#${randomBytes(MARK_BYTES).toString('hex')}`;
  }

  /** Gives the key that ids are sealed with; without it none is issued or read. */
  open(key: Uint8Array): void {
    this.#key = new Hmac(key);
  }

  #seal(body: Uint8Array, caller: string): Buffer {
    if (!this.#key) throw new Error('the key of the database is not known yet');
    return this.#key.of(body, Buffer.from(caller)).subarray(0, MAC_BYTES);
  }

  /** The random part of a new id. */
  draft(): TransactionIdDraft {
    const random = randomBytes(RANDOM_BYTES);
    return { random, key: keyOf(random) };
  }

  /** The id of a transaction of `caller`'s that began then (database's clock, milliseconds since 1970). */
  issue({ random }: TransactionIdDraft, caller: string, beganAt: number): string {
    const time = Buffer.alloc(TIME_BYTES);
    time.writeBigInt64BE(BigInt(beganAt));
    const body = Buffer.concat([random, time, Buffer.from(this.holder)]);
    return Buffer.concat([body, this.#seal(body, caller)]).toString('base64url');
  }

  /** Facts of an id that was issued to `caller`; undefined for anything else. */
  read(id: string, caller: string): TransactionIdFacts | undefined {
    const bytes = Buffer.from(id, 'base64url');
    if (bytes.length < HEAD + MAC_BYTES || bytes.toString('base64url') !== id) return undefined;
    const body = bytes.subarray(0, -MAC_BYTES);
    if (!timingSafeEqual(this.#seal(body, caller), bytes.subarray(-MAC_BYTES))) return undefined;
    return {
      key: keyOf(body.subarray(0, RANDOM_BYTES)),
      beganAt: Number(body.readBigInt64BE(RANDOM_BYTES)),
      holder: body.subarray(HEAD).toString(),
    };
  }
}

const keyOf = (random: Buffer): OutcomeKey => ({
  id: random.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
  lock: random.readBigInt64BE(),
});
