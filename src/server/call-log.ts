import type { Logger } from 'pino';
import { Code, codeName, type RpcError } from '../contract/errors.ts';
import type { CallNotes } from '../database/notes.ts';
import { isServerError, problemOf } from '../database/sqlstate.ts';
import type { Endpoint } from './endpoint.ts';

/** What the line of a call says besides its outcome. */
export interface LoggedCall {
  readonly endpoint: Endpoint;
  readonly peer: string;
  /** Absent where the call was refused before its caller was known. */
  readonly caller?: string;
  readonly notes?: CallNotes;
}

/** Enough to tell transactions apart, not enough to use one. */
const ID_SHOWN = 10;

/** A transaction's id as logs and audits show it. */
export const shownId = (id: string): string => id.slice(0, ID_SHOWN);

/**
 * One line a call: no payload, no SQL.
 *
 * @param startedAt by the clock of `performance.now()`.
 */
export const logCall = (
  log: Logger,
  { endpoint, peer, caller, notes }: LoggedCall,
  { startedAt, transaction }: { readonly startedAt: number; readonly transaction: string | undefined },
  failure: RpcError | undefined,
): void => {
  const serious = failure?.code === Code.INTERNAL || failure?.code === Code.DATA_LOSS;
  const level = serious ? 'error' : endpoint.quiet && !failure ? 'debug' : 'info';
  if (!log.isLevelEnabled(level)) return;
  log[level](
    {
      ...(failure ? { reason: failure.reason, ...failure.metadata } : {}),
      method: endpoint.name,
      code: codeName(failure?.code ?? 0),
      // Names only: a description may quote what was sent.
      ...(failure && failure.fields.length > 0 ? { fields: failure.fields.map(({ field }) => field) } : {}),
      ms: Math.round((performance.now() - startedAt) * 1000) / 1000,
      peer,
      ...(caller === undefined ? {} : { caller }),
      ...(transaction === undefined ? {} : { transaction: shownId(transaction) }),
      ...(notes?.text === undefined ? {} : { inexact: notes.text }),
      ...causeOf(failure),
    },
    'call',
  );
};

/** What an on-call engineer needs of an error's cause: where it came from, never a value. */
const causeOf = (failure: RpcError | undefined): object => {
  const cause = failure?.cause;
  if (cause === undefined) return {};
  if (isServerError(cause)) {
    const { code, schema, table, column, constraint, routine } = cause;
    return { database: { sqlstate: code, schema, table, column, constraint, routine } };
  }
  if (!(cause instanceof Error)) return { cause: String(cause) };
  return { cause: failure?.code === Code.INTERNAL ? cause.stack : problemOf(cause) };
};
