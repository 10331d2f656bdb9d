import { parse } from './messages.ts';
import type { Param, Statement } from './statement.ts';

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

/** A statement, its parameters, and what takes its rows. */
export interface Queried {
  readonly statement: Statement<unknown>;
  readonly params: readonly Param[];
  readonly sink: Sink;
}

/** A portal that outlives its beginning. */
export class Portal {
  readonly name: string;
  /** How many it is to bring next. */
  rows: number;
  /** What its cells are, which is told only once. */
  cells: Parameters<Sink['expect']> | undefined;

  constructor(name: string, rows: number) {
    this.name = name;
    this.rows = rows;
  }
}

/** A sink of the first rows of a portal, which takes note of what the cells are. */
export const firstOf = (portal: Portal, sink: Sink): Sink => ({
  wanted: (types) => sink.wanted(types),
  expect: (...cells) => {
    portal.cells = cells;
    sink.expect(...cells);
  },
  row: (bytes, at) => sink.row(bytes, at),
});
