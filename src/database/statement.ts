/** One text column of a row as PostgreSQL sends it; null is SQL NULL. */
export type Cell = string | null;

/** A row in text form, cells in the order of the select list. */
export type Row = readonly Cell[];

/** A bound parameter. Timestamps and documents are bound as text (`timestampToText`, `jsonText`). */
export type Param = string | number | bigint | boolean | null | undefined | Uint8Array | readonly (string | number)[];

/** Takes note of stored values that were not carried exactly. */
export interface Notes {
  /** @param place `schema.table.column[key]`, or without a key where the row has none. */
  add(place: string, how: string): void;
}

/** What a row becomes. */
export type RowMap<T> = (row: Row, notes: Notes) => T;

/** Reads a single `bigint` or `integer` cell as the int64 of a response. */
export const count = (row: Row): bigint => BigInt(row[0] ?? 0);

/** Reads a single text cell. */
export const firstText = (row: Row): string | undefined => row[0] ?? undefined;

/** Reads a single cell of any number. */
export const firstNumber = (row: Row): number => Number(row[0]);

/** Reads a single boolean cell. */
export const firstFlag = (row: Row): boolean => row[0] === 't';

/** A statement prepared once per connection under its name, and how its rows become messages. */
export interface Statement<T = Row> {
  /** `<driver>.<operation>`, unique, at most 56 characters: PostgreSQL's name of the prepared statement. */
  readonly name: string;
  readonly text: string;
  /** True when it writes nothing. */
  readonly reads: boolean;
  readonly map: RowMap<T>;
}

const names = new Set<string>();

/** A prepared name has 63 characters; some are for its generation. */
const NAME_LENGTH = 56;

const WRITES = /\b(?:insert|update|delete|merge)\b/i;

/**
 * Declares a statement. Texts are composed once, when a module loads, from entities and constants; everything that
 * comes with a request is a `$n` parameter.
 *
 * @param map what a row becomes; left out for statements whose rows nobody reads.
 */
export function statement(name: string, text: string): Statement;
export function statement<T>(name: string, text: string, map: RowMap<T>): Statement<T>;
export function statement<T>(name: string, text: string, map?: RowMap<T>): Statement<T | Row> {
  if (name.length > NAME_LENGTH) throw new Error(`statement name too long: ${name}`);
  if (names.has(name)) throw new Error(`two statements are called ${name}`);
  names.add(name);
  return {
    name,
    text: text.replace(/\s+/g, ' ').trim(),
    reads: !WRITES.test(text),
    map: map ?? ((row) => row),
  };
}
