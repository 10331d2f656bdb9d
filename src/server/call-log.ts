import type { Logger } from 'pino';
import { Code, codeName, type RpcError } from '../contract/errors.ts';
import type { CallNotes } from '../database/notes.ts';
import { isServerError, problemOf } from '../database/sqlstate.ts';
import type { Endpoint } from './endpoint.ts';
import type { TraceHeaders } from './headers.ts';

/** What the line of a call says besides its outcome. */
export interface LoggedCall {
  readonly endpoint: Endpoint;
  readonly peer: string;
  readonly trace: TraceHeaders | undefined;
  /** Absent where the call was refused before its caller was known. */
  readonly caller?: string;
  readonly notes?: CallNotes;
}

/** Where calls are logged. */
export interface CallLog {
  readonly log: Logger;
  /** The share of calls without an error that are. */
  readonly sample: number;
}

/** What W3C says of a trace id: neither zeros nor capitals. */
const TRACE_ID = /^[\da-f]{2}-(?!0{32})([\da-f]{32})-[\da-f]{16}-[\da-f]{2}/;

/** Enough to tell transactions apart, not enough to use one. */
const ID_SHOWN = 10;

/** A transaction's id as logs and audits show it. */
export const shownId = (id: string): string => id.slice(0, ID_SHOWN);

/** What is known of a call besides. */
export interface CallFacts {
  /** By the clock of `performance.now()`. */
  readonly startedAt: number;
  readonly transaction: string | undefined;
  /** Of the span that stands for the call; undefined: the trace that its caller named, if any. */
  readonly traceId: string | undefined;
}

/** One line a call: no payload, no SQL. */
export const logCall = (
  { log, sample }: CallLog,
  { endpoint, peer, caller, notes, trace }: LoggedCall,
  { startedAt, transaction, traceId }: CallFacts,
  failure: RpcError | undefined,
): void => {
  const serious = failure?.code === Code.INTERNAL || failure?.code === Code.DATA_LOSS;
  const level = serious ? 'error' : endpoint.quiet && !failure ? 'debug' : 'info';
  if (!log.isLevelEnabled(level) || (!failure && sample < 1 && Math.random() >= sample)) return;
  const traced = traceId ?? (trace && TRACE_ID.exec(trace.traceparent)?.[1]);
  const line: Record<string, unknown> = failure ? { reason: failure.reason, ...failure.metadata } : {};
  line['method'] = endpoint.name;
  line['code'] = codeName(failure?.code ?? 0);
  // Names only: a description may quote what was sent.
  if (failure && failure.fields.length > 0) line['fields'] = failure.fields.map(({ field }) => field);
  line['ms'] = Math.round((performance.now() - startedAt) * 1000) / 1000;
  line['peer'] = peer;
  if (caller !== undefined) line['caller'] = caller;
  if (transaction !== undefined) line['transaction'] = shownId(transaction);
  if (notes?.text !== undefined) line['inexact'] = notes.text;
  if (traced !== undefined) line['trace_id'] = traced;
  log[level](failure ? Object.assign(line, causeOf(failure)) : line, 'call');
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
