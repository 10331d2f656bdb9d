import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { Code, RpcError, refuse } from '../contract/errors.ts';
import { type DatabaseReason, meaningOf } from '../contract/reasons.ts';

interface Entry {
  readonly reason: DatabaseReason;
  readonly message: string;
}

const unavailable: Entry = { reason: 'DATABASE_UNAVAILABLE', message: 'the database does not answer' };
const outdated: Entry = {
  reason: 'SCHEMA_OUTDATED',
  message: 'the database schema is older than this program; run `policy-sidecar migrate up`',
};
const schemaChanged: Entry = {
  reason: 'SCHEMA_CHANGED',
  message: 'the schema changed under a prepared statement; run the transaction again',
};
const readOnlyDatabase: Entry = {
  reason: 'READ_ONLY_DATABASE',
  message: 'the database takes no writes: it is a standby, or has been made read-only',
};
const ownLimit: Entry = {
  reason: 'STATEMENT_TIMEOUT',
  message: 'the statement took longer than the statement_timeout of the database allows',
};
const unusableValue: Entry = {
  reason: 'UNUSABLE_VALUE',
  message: 'this read cannot work with a value that is stored',
};
const outside: Entry = {
  reason: 'OUTSIDE_TENANTS',
  message: 'the call reaches beyond the rows of the tenants that its caller is bound to',
};
const unbound: Entry = {
  reason: 'TENANTS_NOT_ENFORCED',
  message: 'the database cannot bind a caller to tenants; run `policy-sidecar migrate tenants`',
};

const refused: Entry = {
  reason: 'DATABASE_REFUSED',
  message:
    'something of the database, such as a trigger, refuses the statement; the log of the sidecar has what it says',
};

/** Where PostgreSQL refuses a change of the role: its messages are in any language. */
const SET_ROLE: ReadonlySet<string> = new Set(['check_role', 'call_string_check_hook']);

const conflict = 'a concurrent transaction got in the way; run the whole transaction again';

/** SQLSTATE -> what the caller sees. Full codes first, then classes by their first two characters. */
const SQLSTATES: Readonly<Record<string, Entry>> = {
  '40001': { reason: 'SERIALIZATION_FAILURE', message: conflict },
  '40P01': { reason: 'DEADLOCK_DETECTED', message: conflict },
  '55P03': { reason: 'LOCK_NOT_AVAILABLE', message: 'a lock could not be had in time' },
  '23505': { reason: 'UNIQUE_VIOLATION', message: 'a row with this key exists' },
  '23503': {
    reason: 'FOREIGN_KEY_VIOLATION',
    message: 'a row this one refers to does not exist, or other rows still refer to it',
  },
  '23001': { reason: 'FOREIGN_KEY_VIOLATION', message: 'other rows still refer to it' },
  '23P01': { reason: 'UNIQUE_VIOLATION', message: 'a row that excludes this one exists' },
  '23502': { reason: 'NOT_NULL_VIOLATION', message: 'a required value is missing' },
  '23514': { reason: 'CHECK_VIOLATION', message: 'a value is outside its allowed set' },
  // What a trigger raises, and what a table does not do.
  P0: refused,
  '0A': refused,
  '22': { reason: 'INVALID_VALUE', message: 'a value cannot be stored in its column' },
  '25P02': {
    reason: 'TRANSACTION_ABORTED',
    message: 'an earlier statement of this transaction failed; roll back, or roll back to a savepoint',
  },
  '25006': {
    reason: 'READ_ONLY_TRANSACTION',
    message: 'the transaction is read-only',
  },
  '3B001': { reason: 'SAVEPOINT_UNKNOWN', message: 'there is no such savepoint' },
  '42501': {
    reason: 'DATABASE_PERMISSION_DENIED',
    message: 'the database role of this service may not do that',
  },
  '42P01': outdated,
  '42703': outdated,
  '42883': outdated,
  '3F000': outdated,
  '53300': {
    reason: 'TOO_MANY_CONNECTIONS',
    message: 'the database has no free connection',
  },
  '53': {
    reason: 'DATABASE_RESOURCES',
    message: 'the database is out of a resource',
  },
  '54': { reason: 'LIMIT_EXCEEDED', message: 'the request exceeds a database limit' },
  '25P03': { reason: 'DATABASE_SESSION_TIMEOUT', message: 'the database ended an idle transaction' },
  '57014': {
    reason: 'STATEMENT_CANCELLED',
    message: 'somebody at the database cancelled the statement; run the whole transaction again',
  },
  '57P': unavailable,
  '08': unavailable,
};

const lookUp = (sqlstate: string): Entry | undefined =>
  SQLSTATES[sqlstate] ?? SQLSTATES[sqlstate.slice(0, 3)] ?? SQLSTATES[sqlstate.slice(0, 2)];

/** True when the server has reported the failure, which aborts the transaction it happened in. */
export const isServerError = (error: unknown): error is pg.DatabaseError => error instanceof pg.DatabaseError;

/** What is known of a statement that the database has refused, and decides between the meanings of a SQLSTATE. */
export interface Circumstances {
  /** It writes nothing. */
  readonly reads?: boolean;
  /** The plan of a prepared statement was of an older schema. */
  readonly stalePlan?: boolean;
  /** It may not write although its transaction has not been begun as read-only. */
  readonly readOnlyDatabase?: boolean;
  /** It may see the rows of some tenants alone. */
  readonly bound?: boolean;
  /** It has run for as long as the server's own limit allows. */
  readonly ownLimit?: boolean;
}

/** PostgreSQL names the parameter that it could not read, in any language. */
const OF_PARAMETER = /\$\d/;

const entryOf = (
  { code = '', where, severity, routine }: pg.DatabaseError,
  { reads, stalePlan, readOnlyDatabase: isReadOnly, ownLimit: isOwnLimit, bound }: Circumstances,
): Entry | undefined => {
  if (stalePlan) return schemaChanged;
  if (isReadOnly) return readOnlyDatabase;
  if (bound && SET_ROLE.has(routine ?? '')) return unbound;
  if (bound && code === '42501') return outside;
  if (code === '57014' && isOwnLimit) return ownLimit;
  if (reads && code.startsWith('22') && !OF_PARAMETER.test(where ?? '')) return unusableValue;
  // Refused at the door or thrown out, for whatever reason: the log has it.
  return lookUp(code) ?? (severity === 'FATAL' || severity === 'PANIC' ? unavailable : undefined);
};

/** What the caller sees of a statement that the database has refused: by its SQLSTATE, and INTERNAL for any other. */
export const databaseError = (error: pg.DatabaseError, circumstances: Circumstances = {}): RpcError => {
  const entry = entryOf(error, circumstances);
  if (!entry) return internalError(error);
  const metadata: Record<string, string> = { sqlstate: error.code ?? '' };
  if (error.constraint) metadata['constraint'] = error.constraint;
  if (error.column) metadata['column'] = error.column;
  return refuse(entry.reason, entry.message, { metadata, cause: error });
};

const internalError = (cause: unknown): RpcError => {
  const id = randomUUID();
  return refuse('INTERNAL', `internal error ${id}`, { metadata: { error_id: id }, cause });
};

/**
 * Turns anything thrown on the way into what the caller may see: an {@link RpcError} as it is, a database error by its
 * SQLSTATE, everything else as INTERNAL with an id that the log repeats.
 */
export const toRpcError = (error: unknown): RpcError => {
  if (error instanceof RpcError) return error;
  return isServerError(error) ? databaseError(error) : internalError(error);
};

/** What a failed attempt to connect is told as: whatever keeps the database from being reached is UNAVAILABLE. */
export const connectError = (error: unknown): RpcError => {
  if (error instanceof RpcError) return error;
  const entry = isServerError(error) ? lookUp(error.code ?? '') : undefined;
  const temporary = entry !== undefined && meaningOf(entry.reason).retryAfterMs !== undefined;
  return temporary ? databaseError(error as pg.DatabaseError) : databaseUnavailable(error);
};

/** SQLSTATE of a statement that the database has refused on a connection that goes on; undefined for any other failure. */
export const sqlstateOf = (error: unknown): string | undefined =>
  error instanceof RpcError && error.code !== Code.UNAVAILABLE ? error.metadata['sqlstate'] : undefined;

/** True for a failure that the same statement will not meet again once its plan is made anew. */
export const isStalePlan = (error: unknown): boolean => error instanceof RpcError && error.reason === 'SCHEMA_CHANGED';

/** Text of an error, also of one that only collects others: each address that was tried has its own. */
export const problemOf = (error: unknown): string => {
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.map(problemOf).join('; ');
  if (!(error instanceof Error)) return String(error);
  return error.message || (error as NodeJS.ErrnoException).code || error.name;
};

/** DEADLINE_EXCEEDED: the configured limit for a statement has passed. */
export const statementTimeout = (limitMs: number, cause: unknown): RpcError =>
  refuse('STATEMENT_TIMEOUT', `a statement took longer than ${limitMs} ms`, { cause });

/** UNAVAILABLE: a standby, or a database that has been made read-only, was asked to write. */
export const databaseReadOnly = (): RpcError => refuse(readOnlyDatabase.reason, readOnlyDatabase.message);

/** UNAVAILABLE: this process is about to end, and another to take its place. */
export const shuttingDown = (): RpcError => refuse('SHUTTING_DOWN', 'the sidecar is shutting down');

/** UNAVAILABLE: the database cannot be reached. */
export const databaseUnavailable = (cause?: unknown): RpcError =>
  refuse(unavailable.reason, unavailable.message, { cause });

/** A commit's wait for the standbys that must have it was given up: the next failover may lose it. */
export const unreplicated = (): RpcError =>
  refuse(
    'COMMIT_OUTCOME_UNKNOWN',
    'somebody ended the wait for a standby: it is committed here, and a failover may lose it; ask GetOutcome whether it took effect',
  );

/** The connection was lost when a commit had been asked for and not answered. */
export const commitUnknown = (cause: unknown): RpcError =>
  refuse('COMMIT_OUTCOME_UNKNOWN', 'the connection was lost during commit; ask GetOutcome whether it took effect', {
    cause,
  });
