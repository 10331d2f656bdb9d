import {
  clearField,
  clone,
  type DescField,
  type DescMessage,
  type DescMethodServerStreaming,
  isFieldSet,
  type MessageShape,
  toJsonString,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { UnavailableError } from './errors.ts';
import { type Attempts, delayMs, pause } from './retry.ts';

/** How many rows without a token after them are remembered; a stream that brings more does not go on. */
const MOST_KEPT = 2_000;

/** The field of a stream's request, or of its rows, by which it goes on. */
export const tokenOf = (schema: DescMessage): DescField | undefined => schema.field['resumeToken'];

/**
 * How far a stream has come: its last token, and the rows that were handed out since. These are told by what is in them, so that
 * one that was changed meanwhile comes once more, and one that was added or removed disturbs nothing.
 */
class Place<I extends DescMessage, O extends DescMessage> {
  readonly #method: DescMethodServerStreaming<I, O>;
  #request: MessageShape<I> | undefined;
  /** In the order of the stream. */
  #kept: MessageShape<O>[] = [];
  /** Those of them that have not come again since the cut, with their texts: no NaN is equal to itself as a number. */
  #again: { readonly row: MessageShape<O>; readonly text: string }[] = [];

  constructor(method: DescMethodServerStreaming<I, O>, request: MessageShape<I>) {
    this.#method = method;
    this.#request = request;
  }

  /** The request by which the stream goes on from here; undefined where none does. */
  resume(): MessageShape<I> | undefined {
    this.#again = this.#kept.map((row) => ({ row, text: toJsonString(this.#method.output, row) }));
    return this.#request;
  }

  /** Remembers a row, and tells whether it is handed out for the first time. */
  isNew(row: MessageShape<O>): boolean {
    if (this.#request === undefined) return true;
    const { input, output } = this.#method;
    const token = tokenOf(output);
    const hasToken = token !== undefined && isFieldSet(row, token);
    const at = this.#indexAgain(row, hasToken ? token : undefined);
    if (at >= 0) this.#again = this.#again.slice(at + 1);
    if (hasToken) {
      this.#request = clone(input, this.#request);
      reflect(input, this.#request).set(tokenOf(input)!, reflect(output, row).get(token));
      this.#kept = this.#again.map((each) => each.row);
    } else if (at < 0 && this.#kept.length === MOST_KEPT) {
      this.#request = undefined;
      this.#kept = [];
      this.#again = [];
    } else if (at < 0) this.#kept.splice(this.#kept.length - this.#again.length, 0, row);
    return at < 0;
  }

  #indexAgain(row: MessageShape<O>, token: DescField | undefined): number {
    if (this.#again.length === 0) return -1;
    const { output } = this.#method;
    const bare = token === undefined ? row : clone(output, row);
    if (token !== undefined) clearField(bare, token);
    const text = toJsonString(output, bare);
    return this.#again.findIndex((each) => each.text === text);
  }
}

/** The rows of a stream that is opened again where it is cut, until that many attempts in a row have brought none. */
export async function* goingOn<I extends DescMessage, O extends DescMessage>(
  method: DescMethodServerStreaming<I, O>,
  request: MessageShape<I>,
  open: (request: MessageShape<I>) => AsyncIterable<MessageShape<O>>,
  { attempts, deadline, signal }: Attempts,
): AsyncGenerator<MessageShape<O>> {
  const place = new Place(method, request);
  let from: MessageShape<I> | undefined = request;
  for (let attempt = 1; ; attempt++) {
    try {
      for await (const row of open(from)) {
        if (!place.isNew(row)) continue;
        attempt = 1;
        yield row;
      }
      return;
    } catch (error) {
      from = place.resume();
      if (!(error instanceof UnavailableError && error.retriable) || from === undefined || attempt >= attempts)
        throw error;
      const delay = delayMs(error, attempt);
      if (deadline.within(delay)) throw error;
      await pause(delay, signal);
    }
  }
}
