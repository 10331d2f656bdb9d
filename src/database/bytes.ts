/** A number of 32 bits, most significant byte first. */
export const int32At = (bytes: Buffer, at: number): number =>
  (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;

/** Bytes up to which a call into native code costs more than to copy them here: one by one, or in words. */
const FEW = 24;
const SMALL = 64;

/** Bytes of a word. */
const WORD = 8;

/** Bytes that are lent at once: what a connection takes of its socket. */
export const LENT = 64 * 1_024;

const newView = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength);

/** What was read from last: many pieces of it are, one after the other. */
let source: Uint8Array = new Uint8Array();
let sourceView = newView(source);

const viewOf = (bytes: Uint8Array): DataView => {
  if (bytes === source) return sourceView;
  const view = newView(bytes);
  // What is larger is not to stay for that.
  if (bytes.length <= LENT) {
    source = bytes;
    sourceView = view;
  }
  return view;
};

/** Bytes that grow as they are written. Whoever writes makes room first: {@link Bytes.reserve}. */
export class Bytes {
  buffer: Buffer;
  #view: DataView;
  /** Where the next byte goes. */
  at = 0;

  /** @param size how many there may be until the first growth. */
  constructor(size: number) {
    this.buffer = Buffer.allocUnsafe(size);
    this.#view = newView(this.buffer);
  }

  /** Makes room for so many more. */
  reserve(size: number): void {
    if (this.at + size > this.buffer.length) this.grow(size);
  }

  /** Moves to more memory, in which there is room for so many more. */
  grow(size: number): void {
    const next = Buffer.allocUnsafeSlow(Math.max(this.buffer.length * 2, this.at + size));
    this.buffer.copy(next, 0, 0, this.at);
    this.buffer = next;
    this.#view = newView(next);
  }

  /** What has been written; a view of it. */
  written(): Buffer {
    return this.buffer.subarray(0, this.at);
  }

  /** A byte, for which there is room. */
  byte(value: number): void {
    this.buffer[this.at++] = value;
  }

  /** A copy of part of other bytes. Makes room itself. */
  copy(bytes: Buffer, from: number, length: number): void {
    this.reserve(length);
    this.#put(bytes, from, length);
  }

  /** Part of other bytes as a field: the number that stands before it, and its length. Makes room itself. */
  field(tag: number, bytes: Buffer, from: number, length: number): void {
    this.reserve(length + 10);
    this.varint(tag);
    this.varint(length);
    this.#put(bytes, from, length);
  }

  /** Bytes as they are. Makes room itself. */
  all(bytes: Uint8Array): void {
    const { length } = bytes;
    this.reserve(length);
    const { buffer, at } = this;
    this.at = at + length;
    if (length > FEW) buffer.set(bytes, at);
    else for (let index = 0; index < length; index += 1) buffer[at + index] = bytes[index]!;
  }

  #put(bytes: Buffer, from: number, length: number): void {
    const { buffer } = this;
    let { at } = this;
    this.at = at + length;
    if (length > SMALL) {
      bytes.copy(buffer, at, from, from + length);
      return;
    }
    const end = from + length;
    let next = from;
    if (length >= WORD) {
      const view = viewOf(bytes);
      for (; next + WORD <= end; next += WORD, at += WORD) this.#view.setBigUint64(at, view.getBigUint64(next));
    }
    for (; next < end; next += 1) buffer[at++] = bytes[next]!;
  }

  /** Eight bytes of others, the last of them first; there is room for them. */
  reversed(bytes: Buffer, from: number): void {
    this.#view.setBigUint64(this.at, viewOf(bytes).getBigUint64(from), true);
    this.at += WORD;
  }

  /** A double as protobuf writes it; there is room for it. */
  double(value: number): void {
    this.#view.setFloat64(this.at, value, true);
    this.at += WORD;
  }

  /** An unsigned number of at most 32 bits as protobuf writes it; there is room for five bytes. */
  varint(value: number): void {
    const { buffer } = this;
    let rest = value;
    let { at } = this;
    while (rest > 127) {
      buffer[at++] = (rest & 127) | 128;
      rest >>>= 7;
    }
    buffer[at++] = rest;
    this.at = at;
  }

  /** A number of 64 bits as protobuf writes it, in two unsigned halves; there is room for ten bytes. */
  varint64(high: number, low: number): void {
    const { buffer } = this;
    let upper = high;
    let lower = low;
    let { at } = this;
    while (upper !== 0 || lower > 127) {
      buffer[at++] = (lower & 127) | 128;
      lower = ((lower >>> 7) | (upper << 25)) >>> 0;
      upper >>>= 7;
    }
    buffer[at++] = lower;
    this.at = at;
  }

  /** A number of 32 bits, most significant byte first; there is room for it. */
  int32(value: number): void {
    this.#view.setInt32(this.at, value);
    this.at += 4;
  }

  /** A text with its length before it, as protobuf writes it. Makes room itself. */
  text(value: string): void {
    const length = Buffer.byteLength(value);
    this.reserve(length + 5);
    this.varint(length);
    this.at += this.buffer.write(value, this.at);
  }

  /**
   * Begins something whose length is not known yet; there is room for that.
   *
   * @param width bytes that its length will take, if that can be guessed.
   * @returns what {@link Bytes.close} takes.
   */
  open(width = 1): number {
    const start = this.at;
    this.at += width;
    return start;
  }

  /**
   * Ends what was begun at that place, and writes its length there.
   *
   * @param width as it was guessed.
   * @returns bytes that the length has taken.
   */
  close(start: number, width = 1): number {
    const length = this.at - start - width;
    if (length < 128 && width === 1) {
      this.buffer[start] = length;
      return 1;
    }
    const taken = widthOf(length);
    if (taken !== width) {
      this.reserve(taken);
      this.buffer.copyWithin(start + taken, start + width, this.at);
    }
    this.at = start;
    this.varint(length);
    this.at = start + taken + length;
    return taken;
  }
}

/** Bytes of a length as protobuf writes it. */
const widthOf = (length: number): number => {
  if (length < 128) return 1;
  if (length < 16_384) return 2;
  if (length < 2_097_152) return 3;
  return length < 268_435_456 ? 4 : 5;
};
