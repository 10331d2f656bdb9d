import type { Cell } from '../database/statement.ts';
import type { Projection } from './projection.ts';

/** SQL of a cell, and how it is read. */
interface Reader<V> {
  readonly sql: string;
  readonly read: (cell: Cell) => V;
}

/** Cells of a statement whose rows are no message, each made of the SQL of its value. */
export const cell = {
  /** Of what is never NULL. */
  text: (sql: string): Reader<string> => ({ sql, read: (text) => text as string }),
  textOrNull: (sql: string): Reader<string | null> => ({ sql, read: (text) => text }),
  /** NULL is 0. */
  number: (sql: string): Reader<number> => ({ sql, read: Number }),
  /** NULL is 0. */
  whole: (sql: string): Reader<bigint> => ({ sql, read: (text) => BigInt(text ?? 0) }),
  /** NULL is false. */
  flag: (sql: string): Reader<boolean> => ({ sql, read: (text) => text === 't' }),
};

/** Select list and mapping of rows that are no message: one cell a name, each said once. */
export const cells = <T extends object>(readers: { readonly [K in keyof T]-?: Reader<T[K]> }): Projection<T> => {
  const all = Object.entries<Reader<unknown>>(readers);
  const expressions = all.map(([, { sql }]) => sql);
  return {
    expressions,
    columns: expressions.join(', '),
    map: (row) => Object.fromEntries(all.map(([name, { read }], at) => [name, read(row[at]!)])) as T,
  };
};
