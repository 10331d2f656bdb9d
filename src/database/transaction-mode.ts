import { type Statement, statement } from './statement.ts';
import type { Bound } from './tenants.ts';

/** Isolation levels in PostgreSQL's words. */
export type Isolation = 'read committed' | 'repeatable read' | 'serializable';

/** How a transaction is to be run. */
export interface TransactionMode {
  readonly isolation: Isolation;
  readonly readOnly: boolean;
  /** Only with serializable and read-only: wait for a snapshot that cannot fail. */
  readonly deferrable: boolean;
  /** Whose rows alone it sees; undefined: it sees all. */
  readonly bound?: Bound | undefined;
}

/** What nobody has said otherwise of. */
export const READ_COMMITTED: TransactionMode = { isolation: 'read committed', readOnly: false, deferrable: false };

/** SQL that begins a transaction. Whether it may write where nobody has said, the server decides: it may be short of disk. */
const beginText = ({ isolation, readOnly, deferrable }: TransactionMode): string =>
  `begin isolation level ${isolation}${readOnly ? ' read only' : ''}${deferrable ? ' deferrable' : ''}`;

const beginnings = new Map<string, Statement>();

/** Begins a transaction of that mode. */
export const beginning = (mode: TransactionMode): Statement => {
  const text = beginText(mode);
  const known = beginnings.get(text);
  if (known) return known;
  const made = statement(`connection.begin.${beginnings.size}`, text);
  beginnings.set(text, made);
  return made;
};
