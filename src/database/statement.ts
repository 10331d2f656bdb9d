import type { Bytes } from './bytes.ts';

/** One text column of a row as PostgreSQL sends it; null is SQL NULL. */
export type Cell = string | null;

/** A row in text form, cells in the order of the select list. */
export type Row = readonly Cell[];

/** A bound parameter. Timestamps and documents are bound as text (`timestampToText`, `jsonText`). */
export type Param = string | number | bigint | boolean | null | undefined | Uint8Array | readonly (string | number)[];

/** Takes note of stored values that were not carried exactly, and of what else an answer says beside itself. */
export interface Notes {
  /** @param place `schema.table.column[key]`, or without a key where the row has none. */
  add(place: string, how: string): void;
  /** True where documents are told as their JSON text. */
  readonly documentTexts?: boolean;
  /** Where the log of the database stood when what the call wrote had been committed, where that is of use to anybody. */
  mark?: string | undefined;
}

/** What a row becomes. */
export type RowMap<T> = (row: Row, notes: Notes) => T;

/** How a row becomes the bytes of a message, for cells of certain types in certain forms. */
export type RowWriter = (out: Bytes, bytes: Buffer, at: number, notes: Notes) => void;

/** How rows become the bytes of messages, whatever the types of their cells turn out to be. */
export interface RowEncoder {
  /** The forms in which cells of these types are wanted, as Bind has them. */
  wanted(types: readonly number[]): Buffer;
  /** @param formats forms in which they come, 0 for text, 1 for binary; left out: as wanted. */
  writer(types: readonly number[], formats?: readonly number[]): RowWriter;
}

/** How the rows of a statement are read: as what their text becomes, or straight to bytes. */
export interface Reading<T> {
  readonly map: RowMap<T>;
  readonly encoder?: RowEncoder;
}

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
  /** Undefined where its rows are no messages. */
  readonly encoder: RowEncoder | undefined;
  /** What a caller is to run. */
  with(...params: readonly Param[]): Query<T>;
}

/** A statement and its parameters. */
export interface Query<T> {
  readonly statement: Statement<T>;
  readonly params: readonly Param[];
}

const declarations = new Map<string, Statement<unknown>>();

/** Every statement of the modules that have been loaded. */
export const declaredStatements = (): Statement<unknown>[] => [...declarations.values()];

/** A prepared name has 63 characters; some are for its generation. */
const NAME_LENGTH = 56;

const WRITES = /\b(?:insert|update|delete|merge)\b/i;

/**
 * Declares a statement. Texts are composed once, when a module loads, from entities and constants; everything that
 * comes with a request is a `$n` parameter.
 *
 * @param reading what its rows become; left out where nobody reads them.
 */
export function statement(name: string, text: string): Statement;
export function statement<T>(name: string, text: string, reading: Reading<T> | RowMap<T>): Statement<T>;
export function statement<T>(
  name: string,
  text: string,
  reading: Reading<T | Row> | RowMap<T | Row> = (row) => row,
): Statement<T | Row> {
  if (name.length > NAME_LENGTH) throw new Error(`statement name too long: ${name}`);
  if (declarations.has(name)) throw new Error(`two statements are called ${name}`);
  const { map, encoder = undefined } = typeof reading === 'function' ? { map: reading } : reading;
  const declared: Statement<T | Row> = {
    name,
    text: text.replace(/\s+/g, ' ').trim(),
    reads: !WRITES.test(text),
    map,
    encoder,
    with: (...params) => ({ statement: declared, params }),
  };
  declarations.set(name, declared as Statement<unknown>);
  return declared;
}
