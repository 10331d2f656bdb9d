import { Bytes } from './bytes.ts';

/** What every message begins with: its type, and how long the rest is. */
const HEAD = 5;
/** The largest message that PostgreSQL makes, bytes. */
const MOST = 2 ** 30 + 64;
/** Bytes that a connection keeps for messages that arrive in pieces. */
const KEPT = 2_048;

const lengthAt = (bytes: Buffer, at: number): number => {
  const length = 1 + bytes.readUInt32BE(at + 1);
  if (length < HEAD || length > MOST) throw new Error('the database sent what is no message');
  return length;
};

/** Told of a message that is whole: its type, and where the rest of it stands. The bytes are only lent. */
type Hand = (type: number, bytes: Buffer, start: number, end: number) => void;

/** Cuts what the server sends into messages. One that arrives in pieces is put together alone: the others are read where they lie. */
export class Incoming {
  readonly #hand: Hand;
  /** What is here of a message that has not arrived whole; of none, while it is empty. */
  #begun = new Bytes(KEPT);

  constructor(hand: Hand) {
    this.#hand = hand;
  }

  /** Takes what the server has sent; the bytes are only lent. */
  take(bytes: Buffer): void {
    const end = bytes.length;
    let at = this.#begun.at === 0 ? 0 : this.#complete(bytes);
    while (at + HEAD <= end) {
      const next = at + lengthAt(bytes, at);
      if (next > end) break;
      this.#hand(bytes[at]!, bytes, at + HEAD, next);
      at = next;
    }
    this.#begun.copy(bytes, at, end - at);
  }

  /**
   * Takes what is left of the message that has begun.
   *
   * @returns where the next one begins.
   */
  #complete(bytes: Buffer): number {
    const begun = this.#begun;
    let at = 0;
    const fill = (size: number): boolean => {
      const here = Math.min(Math.max(0, size - begun.at), bytes.length - at);
      begun.copy(bytes, at, here);
      at += here;
      return begun.at === size;
    };
    if (!(begun.at >= HEAD || fill(HEAD)) || !fill(lengthAt(begun.buffer, 0))) return at;
    const { buffer, at: length } = begun;
    if (length > KEPT) this.#begun = new Bytes(KEPT);
    else begun.at = 0;
    this.#hand(buffer[0]!, buffer, HEAD, length);
    return at;
  }
}
