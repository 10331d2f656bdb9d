import type { Notes } from './statement.ts';

/** Places that a call names; the others are counted. A header has to hold them. */
const NAMED = 10;

/** Headers of an answer, or trailers; the value of a name that ends in `-bin` is base64. */
export type Said = readonly (readonly [name: string, value: string])[];

const NOTHING: Said = [];

/**
 * What an answer says beside itself: its stored values that were not carried exactly, in a form that fits a header and a
 * line of the log; a mark; and what a service of its own adds.
 */
export class CallNotes implements Notes {
  readonly #named: string[] = [];
  #count = 0;
  readonly documentTexts: boolean;
  mark: string | undefined;
  /** What goes before the answer. */
  headers = NOTHING;
  /** What goes after it, besides the rest of this. */
  trailers = NOTHING;

  constructor(documentTexts = false) {
    this.documentTexts = documentTexts;
  }

  add(place: string, how: string): void {
    this.#count += 1;
    if (this.#named.length < NAMED) this.#named.push(`${place}=${how}`);
  }

  /** Forgets what an attempt that is made again has noted. */
  clear(): void {
    this.#named.length = 0;
    this.#count = 0;
  }

  /** `schema.table.column[key]=how, …, +17`; undefined if all was exact. */
  get text(): string | undefined {
    if (this.#count === 0) return undefined;
    const more = this.#count - this.#named.length;
    return [...this.#named, ...(more === 0 ? [] : [`+${more}`])].join(', ');
  }
}
