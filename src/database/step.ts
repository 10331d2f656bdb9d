import { parse } from './messages.ts';
import type { Param } from './statement.ts';

/** PostgreSQL's type numbers of the columns of a result. */
export type Types = readonly number[];

/** What takes the rows of a statement. */
export interface Sink {
  /** The forms in which cells of these types are wanted, as Bind has them. */
  wanted(types: Types): Buffer;
  /**
   * Told before the first row what the cells are.
   *
   * @param formats 0 for text, 1 for binary; left out: as wanted.
   */
  expect(types: Types, formats?: readonly number[]): void;
  /** @param at where the number of cells stands; the bytes are only lent. */
  row(bytes: Buffer, at: number): void;
}

/** A statement as connections know it, until it has to be prepared anew. */
export class Prepared {
  readonly name: string;
  readonly text: string;
  readonly parse: Buffer;
  readonly nameBytes: Buffer;
  /** What its rows are, as learned from a server; none for a statement without rows. */
  types: Types | undefined;

  /** @param name empty where servers keep none. */
  constructor(name: string, text: string) {
    this.name = name;
    this.text = text;
    this.parse = parse(name, text);
    this.nameBytes = Buffer.from(`${name}\0`);
  }
}

/** What a connection is asked to do with one portal. */
export interface Step {
  readonly prepared: Prepared;
  readonly params: readonly Param[];
  readonly sink: Sink;
  readonly portal?: Portal;
}

/** A portal that outlives its beginning. */
export class Portal {
  readonly name: string;
  /** How many it is to bring at once. */
  readonly rows: number;
  /** What its cells are, which is told only once. */
  cells: Parameters<Sink['expect']> | undefined;

  constructor(name: string, rows: number) {
    this.name = name;
    this.rows = rows;
  }
}

/** What came of a step or of a command. */
export interface Outcome {
  /** Rows returned or affected. */
  readonly count: number;
  /** Command tag without its numbers: `INSERT`, `COMMIT`; empty for a portal that has more rows. */
  readonly tag: string;
}

/** Told once when the server has answered: outcomes of what succeeded, and why the rest did not. */
export type Done = (error: Error | undefined, outcomes: readonly Outcome[]) => void;

/** The state of a connection's transaction: none, open, failed. */
export type TransactionStatus = 'I' | 'T' | 'E';
