import { randomUUID } from 'node:crypto';
import pg from 'pg';

/** gRPC status codes by name. */
export const Code = {
  CANCELLED: 1,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;
export type Code = (typeof Code)[keyof typeof Code];

/** Name of a status code, as logs and metrics show it. */
export const codeName = (code: number): string =>
  Object.entries(Code).find(([, value]) => value === code)?.[0] ?? (code === 0 ? 'OK' : 'UNKNOWN');

/** One offending field of a request. */
export interface FieldViolation {
  /** Path in proto names, `operations[2].limit`. */
  readonly field: string;
  /** What the field would have to be. */
  readonly description: string;
}

/** A precondition that did not hold. */
export interface PreconditionViolation {
  readonly type: string;
  readonly subject: string;
  readonly description: string;
}

interface RpcErrorDetails {
  /** Facts that go with the reason. Never SQL, parameters or hosts. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Present when the same call can succeed later: the least delay, milliseconds. */
  readonly retryAfterMs?: number;
  readonly fields?: readonly FieldViolation[];
  readonly preconditions?: readonly PreconditionViolation[];
  /** What the log shows and the caller does not. */
  readonly cause?: unknown;
}

/**
 * What fits a refusal. gRPC clients turn an answer into RESOURCE_EXHAUSTED when its trailers exceed 8 KiB,
 * and a status carries its text twice, percent-encoded and in base64, beside its details.
 */
const MESSAGE_BYTES = 600;
const FIELDS_BYTES = 3_000;
const PATH_BYTES = 200;
/** What a field costs beside its path and description. */
const FIELD_OVERHEAD = 8;

const clip = (text: string, bytes: number): string => {
  const encoded = Buffer.from(text);
  if (encoded.length <= bytes) return text;
  const kept = encoded.subarray(0, bytes).toString();
  return `${kept.replace(/\uFFFD$/, '')}…`;
};

/** A failed call as the caller sees it; both listeners render it with `google.rpc` details. */
export class RpcError extends Error {
  readonly code: Code;
  /** UPPER_SNAKE, unique within the domain `policies.hoc`. */
  readonly reason: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | undefined;
  readonly fields: readonly FieldViolation[];
  readonly preconditions: readonly PreconditionViolation[];

  constructor(code: Code, reason: string, message: string, details: RpcErrorDetails = {}) {
    super(clip(message, MESSAGE_BYTES), { cause: details.cause });
    this.code = code;
    this.reason = reason;
    this.metadata = details.metadata ?? {};
    this.retryAfterMs = details.retryAfterMs;
    this.fields = details.fields ?? [];
    this.preconditions = details.preconditions ?? [];
  }
}

/**
 * INVALID_ARGUMENT that names every offending field, or the first of them as far as a client can be told, with the
 * number of the others in the metadata as `more_fields`.
 */
export const invalidArgument = (fields: readonly FieldViolation[]): RpcError => {
  const told: FieldViolation[] = [];
  let room = FIELDS_BYTES;
  for (const each of fields) {
    const field = clip(each.field, PATH_BYTES);
    const description = clip(each.description, PATH_BYTES);
    room -= Buffer.byteLength(field) + Buffer.byteLength(description) + FIELD_OVERHEAD;
    if (room < 0) break;
    told.push({ field, description });
  }
  const more = fields.length - told.length;
  return new RpcError(
    Code.INVALID_ARGUMENT,
    'INVALID_REQUEST',
    `invalid request: ${told.map(({ field, description }) => `${field} ${description}`).join('; ')}`,
    { fields: told, ...(more === 0 ? {} : { metadata: { more_fields: String(more) } }) },
  );
};

interface Entry {
  readonly code: Code;
  readonly reason: string;
  readonly message: string;
  readonly retryAfterMs?: number;
}

const CONFLICT_RETRY_MS = 20;
const BUSY_RETRY_MS = 100;
const OUTAGE_RETRY_MS = 500;

const serialization: Entry = {
  code: Code.ABORTED,
  reason: 'SERIALIZATION_FAILURE',
  message: 'a concurrent transaction got in the way; run the whole transaction again',
  retryAfterMs: CONFLICT_RETRY_MS,
};
const unavailable: Entry = {
  code: Code.UNAVAILABLE,
  reason: 'DATABASE_UNAVAILABLE',
  message: 'the database does not answer',
  retryAfterMs: OUTAGE_RETRY_MS,
};
const outdated: Entry = {
  code: Code.FAILED_PRECONDITION,
  reason: 'SCHEMA_OUTDATED',
  message: 'the database schema is older than this program; run `policy-sidecar migrate up`',
};

const schemaChanged: Entry = {
  code: Code.ABORTED,
  reason: 'SCHEMA_CHANGED',
  message: 'the schema changed under a prepared statement; run the transaction again',
  retryAfterMs: CONFLICT_RETRY_MS,
};
const readOnlyDatabase: Entry = {
  code: Code.UNAVAILABLE,
  reason: 'READ_ONLY_DATABASE',
  message: 'the database takes no writes: it is a standby, or has been made read-only',
  retryAfterMs: OUTAGE_RETRY_MS,
};
const ownLimit: Entry = {
  code: Code.DEADLINE_EXCEEDED,
  reason: 'STATEMENT_TIMEOUT',
  message: 'the statement took longer than the statement_timeout of the database allows',
};
const unusableValue: Entry = {
  code: Code.FAILED_PRECONDITION,
  reason: 'UNUSABLE_VALUE',
  message: 'this read cannot work with a value that is stored',
};

/** SQLSTATE -> what the caller sees. Full codes first, then classes by their first two characters. */
const SQLSTATES: Readonly<Record<string, Entry>> = {
  '40001': serialization,
  '40P01': { ...serialization, reason: 'DEADLOCK_DETECTED' },
  '55P03': { ...serialization, reason: 'LOCK_NOT_AVAILABLE', message: 'a lock could not be had in time' },
  '23505': { code: Code.ALREADY_EXISTS, reason: 'UNIQUE_VIOLATION', message: 'a row with this key exists' },
  '23503': {
    code: Code.FAILED_PRECONDITION,
    reason: 'FOREIGN_KEY_VIOLATION',
    message: 'a row this one refers to does not exist, or other rows still refer to it',
  },
  '23502': { code: Code.INVALID_ARGUMENT, reason: 'NOT_NULL_VIOLATION', message: 'a required value is missing' },
  '23514': { code: Code.INVALID_ARGUMENT, reason: 'CHECK_VIOLATION', message: 'a value is outside its allowed set' },
  '22': { code: Code.INVALID_ARGUMENT, reason: 'INVALID_VALUE', message: 'a value cannot be stored in its column' },
  '25P02': {
    code: Code.FAILED_PRECONDITION,
    reason: 'TRANSACTION_ABORTED',
    message: 'an earlier statement of this transaction failed; roll back, or roll back to a savepoint',
  },
  '25006': {
    code: Code.FAILED_PRECONDITION,
    reason: 'READ_ONLY_TRANSACTION',
    message: 'the transaction is read-only',
  },
  '3B001': { code: Code.FAILED_PRECONDITION, reason: 'SAVEPOINT_UNKNOWN', message: 'there is no such savepoint' },
  '42501': {
    code: Code.PERMISSION_DENIED,
    reason: 'DATABASE_PERMISSION_DENIED',
    message: 'the database role of this service may not do that',
  },
  '42P01': outdated,
  '42703': outdated,
  '42883': outdated,
  '3F000': outdated,
  '53300': {
    code: Code.RESOURCE_EXHAUSTED,
    reason: 'TOO_MANY_CONNECTIONS',
    message: 'the database has no free connection',
    retryAfterMs: BUSY_RETRY_MS,
  },
  '53': {
    code: Code.RESOURCE_EXHAUSTED,
    reason: 'DATABASE_RESOURCES',
    message: 'the database is out of a resource',
    retryAfterMs: OUTAGE_RETRY_MS,
  },
  '54': { code: Code.INVALID_ARGUMENT, reason: 'LIMIT_EXCEEDED', message: 'the request exceeds a database limit' },
  '25P03': { ...unavailable, reason: 'DATABASE_SESSION_TIMEOUT', message: 'the database ended an idle transaction' },
  '57014': {
    code: Code.ABORTED,
    reason: 'STATEMENT_CANCELLED',
    message: 'somebody at the database cancelled the statement; run the whole transaction again',
    retryAfterMs: CONFLICT_RETRY_MS,
  },
  '57P': unavailable,
  '08': unavailable,
};

const lookUp = (sqlstate: string): Entry | undefined =>
  SQLSTATES[sqlstate] ?? SQLSTATES[sqlstate.slice(0, 3)] ?? SQLSTATES[sqlstate.slice(0, 2)];

const render = (entry: Entry, cause: unknown, metadata: Record<string, string> = {}): RpcError =>
  new RpcError(entry.code, entry.reason, entry.message, {
    metadata,
    cause,
    ...(entry.retryAfterMs === undefined ? {} : { retryAfterMs: entry.retryAfterMs }),
  });

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
  /** It has run for as long as the server's own limit allows. */
  readonly ownLimit?: boolean;
}

/** PostgreSQL names the parameter that it could not read, in any language. */
const OF_PARAMETER = /\$\d/;

const entryOf = (
  { code = '', where, severity }: pg.DatabaseError,
  { reads, stalePlan, readOnlyDatabase: isReadOnly, ownLimit: isOwnLimit }: Circumstances,
): Entry | undefined => {
  if (stalePlan) return schemaChanged;
  if (isReadOnly) return readOnlyDatabase;
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
  return render(entry, error, metadata);
};

const internalError = (cause: unknown): RpcError => {
  const id = randomUUID();
  return new RpcError(Code.INTERNAL, 'INTERNAL', `internal error ${id}`, { metadata: { error_id: id }, cause });
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
  return entry?.retryAfterMs === undefined ? databaseUnavailable(error) : databaseError(error as pg.DatabaseError);
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
  new RpcError(Code.DEADLINE_EXCEEDED, 'STATEMENT_TIMEOUT', `a statement took longer than ${limitMs} ms`, { cause });

/** UNAVAILABLE: a standby, or a database that has been made read-only, was asked to write. */
export const databaseReadOnly = (): RpcError => render(readOnlyDatabase, undefined);

/** RESOURCE_EXHAUSTED for a limit of this process. */
export const busy = (reason: string, message: string): RpcError =>
  new RpcError(Code.RESOURCE_EXHAUSTED, reason, message, { retryAfterMs: BUSY_RETRY_MS });

/** UNAVAILABLE: this process is about to end, and another to take its place. */
export const shuttingDown = (): RpcError =>
  new RpcError(Code.UNAVAILABLE, 'SHUTTING_DOWN', 'the sidecar is shutting down', { retryAfterMs: OUTAGE_RETRY_MS });

/** UNAVAILABLE: the database cannot be reached. */
export const databaseUnavailable = (cause?: unknown): RpcError => render(unavailable, cause);
