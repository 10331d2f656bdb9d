import type { ResponseSize } from '../contract/response-size.ts';
import { Bytes } from '../database/bytes.ts';
import type { Notes, RowEncoder, RowWriter } from '../database/statement.ts';
import type { Sink } from '../database/step.ts';
import { messageIn, PREFIX } from './grpc-frame.ts';

/** Bytes below which growing is not worth its while, and above which nothing is set aside beforehand. */
const SMALLEST = 512;
const LARGEST = 64 * 1024;
/** What is set aside besides: the next rows may be longer, and a text asks for room before it is known how long it is. */
const spare = (bytes: number): number => 256 + (bytes >> 3);
/** What the length of a row takes at most, and what stands before it. */
const LONGEST = 5;

/** How many bytes the last rows of an encoder were: those of the next call are likely to be as many. */
const sizes = new WeakMap<RowEncoder, number>();

/** Collects rows as bytes of responses: each as the field of that tag, or as a response itself. */
export class EncodedRows implements Sink {
  readonly #encoder: RowEncoder;
  readonly #tag: number | undefined;
  readonly #notes: Notes;
  readonly #size: ResponseSize | undefined;
  readonly #out: Bytes;
  /** Where the first row begins: one response is made in the frame that it is sent in. */
  readonly #start: number;
  readonly #ends: number[] = [];
  #write: RowWriter | undefined;
  /** Of the last row's length: the next is likely to be as long, and need not be moved when its length is known. */
  #width = 1;

  /**
   * @param tag of the field that a row fills; undefined where it is the response.
   * @param size of the response that all rows are; undefined where they are responses themselves.
   */
  constructor(encoder: RowEncoder, tag: number | undefined, notes: Notes, size?: ResponseSize) {
    this.#encoder = encoder;
    this.#tag = tag;
    this.#notes = notes;
    this.#size = size;
    const before = sizes.get(encoder) ?? 0;
    this.#out = new Bytes(Math.min(Math.max(before + spare(before), SMALLEST), LARGEST));
    this.#start = size ? PREFIX : 0;
    this.#out.at = this.#start;
  }

  wanted(types: readonly number[]): Buffer {
    return this.#encoder.wanted(types);
  }

  expect(types: readonly number[], formats?: readonly number[]): void {
    this.#write = this.#encoder.writer(types, formats);
  }

  row(bytes: Buffer, at: number): void {
    const out = this.#out;
    const tag = this.#tag;
    if (tag !== undefined) {
      out.reserve(LONGEST + LONGEST);
      out.varint(tag);
      const message = out.open(this.#width);
      this.#write!(out, bytes, at, this.#notes);
      this.#width = out.close(message, this.#width);
    } else this.#write!(out, bytes, at, this.#notes);
    this.#ends.push(out.at);
    this.#size?.hold(out.at - this.#start);
  }

  /** Puts more fields behind the last row, which must be there: into its response, if each row has one. */
  add(fields: Uint8Array): void {
    this.#out.all(fields);
    this.#ends[this.#ends.length - 1] = this.#out.at;
  }

  /** Rows taken. */
  get count(): number {
    return this.#ends.length;
  }

  /** All of them, one after the other. */
  bytes(): Buffer {
    return this.#response(this.#out.at);
  }

  /** The first alone; nothing if there is none. */
  first(): Buffer {
    return this.#response(this.#ends[0] ?? this.#start);
  }

  /** Each by itself. */
  each(): Buffer[] {
    const bytes = this.#upTo(this.#out.at);
    return this.#ends.map((end, index) => bytes.subarray(this.#ends[index - 1] ?? 0, end));
  }

  #response(end: number): Buffer {
    const bytes = this.#upTo(end);
    return this.#start === 0 ? bytes : messageIn(bytes);
  }

  #upTo(end: number): Buffer {
    sizes.set(this.#encoder, this.#out.at);
    return this.#out.buffer.subarray(0, end);
  }
}
