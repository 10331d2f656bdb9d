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

const NAMES = new Map<number, string>([
  [0, 'OK'],
  ...Object.entries(Code).map(([name, code]) => [code, name] as const),
]);

/** Name of a status code, as logs and metrics show it. */
export const codeName = (code: number): string => NAMES.get(code) ?? 'UNKNOWN';

/** What a reason stands for, wherever it is given. */
interface Entry {
  readonly code: Code;
  /** Present when the same call can succeed later: the least delay, milliseconds. */
  readonly retryAfterMs?: number;
  /** Facts that may go with it. Never SQL, parameters or where the database is. */
  readonly metadata?: readonly string[];
}

const CONFLICT_RETRY_MS = 20;
const BUSY_RETRY_MS = 100;
const OUTAGE_RETRY_MS = 500;

/** What the database says of a statement that it refuses. */
const BY_DATABASE = ['sqlstate', 'constraint', 'column'] as const;

const invalid = { code: Code.INVALID_ARGUMENT } as const;
const refusedValue = { code: Code.INVALID_ARGUMENT, metadata: BY_DATABASE } as const;
const precondition = { code: Code.FAILED_PRECONDITION } as const;
const refusedStatement = { code: Code.FAILED_PRECONDITION, metadata: BY_DATABASE } as const;
const ended = { code: Code.FAILED_PRECONDITION, metadata: ['state', 'how', 'ended_at'] } as const;
const tooMuch = { code: Code.RESOURCE_EXHAUSTED } as const;
const busy = { code: Code.RESOURCE_EXHAUSTED, retryAfterMs: BUSY_RETRY_MS } as const;
const conflict = { code: Code.ABORTED, retryAfterMs: CONFLICT_RETRY_MS, metadata: BY_DATABASE } as const;
const outage = { code: Code.UNAVAILABLE, retryAfterMs: OUTAGE_RETRY_MS, metadata: BY_DATABASE } as const;
const late = { code: Code.DEADLINE_EXCEEDED } as const;

/**
 * Every reason that a call can be refused with: UPPER_SNAKE, unique within the domain `policies.hoc`. `ErrorReason` of the
 * contract says the same to callers; a test compares the two.
 */
export const REASONS = {
  // Requests
  INVALID_REQUEST: { ...invalid, metadata: ['more_fields'] },
  MALFORMED_REQUEST: invalid,
  UNSUPPORTED_REQUEST: { code: Code.UNIMPLEMENTED },
  SERVICE_UNKNOWN: { code: Code.NOT_FOUND },
  HEADERS_TOO_LARGE: tooMuch,
  REQUEST_TOO_LARGE: tooMuch,
  REQUEST_TOO_COMPLEX: { ...tooMuch, metadata: ['limit'] },
  REQUEST_BYTES_EXHAUSTED: busy,
  RESPONSE_TOO_LARGE: { ...tooMuch, metadata: ['limit', 'streaming_rpc'] },
  REQUEST_TIMEOUT: late,
  UNAUTHENTICATED: { code: Code.UNAUTHENTICATED },
  NOT_ALLOWED: { code: Code.PERMISSION_DENIED, metadata: ['identity', 'method', 'needed'] },
  HOST_NOT_ALLOWED: { code: Code.PERMISSION_DENIED, metadata: ['host'] },
  ORIGIN_NOT_ALLOWED: { code: Code.PERMISSION_DENIED, metadata: ['origin'] },
  CALL_RATE_LIMIT: { ...busy, metadata: ['limit'] },
  CALL_LIMIT: { ...busy, metadata: ['limit'] },
  DEADLINE_EXCEEDED: late,
  CANCELLED: { code: Code.CANCELLED },
  SHUTTING_DOWN: { code: Code.UNAVAILABLE, retryAfterMs: OUTAGE_RETRY_MS },
  INTERNAL: { code: Code.INTERNAL, metadata: ['error_id'] },

  // Transactions
  TRANSACTION_REQUIRED: precondition,
  TRANSACTION_UNKNOWN: precondition,
  TRANSACTION_NOT_YOURS: { code: Code.PERMISSION_DENIED },
  TRANSACTION_COMMITTED: ended,
  TRANSACTION_ROLLED_BACK: ended,
  TRANSACTION_EXPIRED: ended,
  TRANSACTION_LOST: ended,
  TRANSACTION_OUTCOME_UNKNOWN: ended,
  TRANSACTION_ELSEWHERE: { ...precondition, metadata: ['holder'] },
  TRANSACTION_ABORTED: refusedStatement,
  TRANSACTION_LIMIT: busy,
  TRANSACTION_QUEUE_FULL: busy,
  STREAM_LIMIT: busy,
  SAVEPOINT_UNKNOWN: refusedStatement,
  SEQUENCE_REUSED: precondition,
  SEQUENCE_FORGOTTEN: precondition,
  IDEMPOTENCY_KEY_REUSED: { ...precondition, metadata: ['idempotency_key'] },
  COMMIT_OUTCOME_UNKNOWN: { code: Code.UNAVAILABLE },
  UNEXPECTED_ROW_COUNT: { ...precondition, metadata: ['expected', 'found'] },

  // The database
  SERIALIZATION_FAILURE: conflict,
  DEADLOCK_DETECTED: conflict,
  LOCK_NOT_AVAILABLE: conflict,
  SCHEMA_CHANGED: conflict,
  STATEMENT_CANCELLED: conflict,
  STATEMENT_TIMEOUT: { ...late, metadata: BY_DATABASE },
  UNIQUE_VIOLATION: { code: Code.ALREADY_EXISTS, metadata: [...BY_DATABASE, 'candidate_id', 'failure_match_id'] },
  FOREIGN_KEY_VIOLATION: refusedStatement,
  NOT_NULL_VIOLATION: refusedValue,
  CHECK_VIOLATION: refusedValue,
  INVALID_VALUE: refusedValue,
  LIMIT_EXCEEDED: refusedValue,
  READ_ONLY_TRANSACTION: refusedStatement,
  READ_ONLY_DATABASE: outage,
  UNUSABLE_VALUE: refusedStatement,
  UNREPRESENTABLE_VALUE: { code: Code.DATA_LOSS, metadata: ['table', 'column', 'key'] },
  SCHEMA_OUTDATED: refusedStatement,
  DATABASE_SETTINGS: { ...precondition, metadata: ['setting'] },
  OUTSIDE_TENANTS: { code: Code.PERMISSION_DENIED, metadata: BY_DATABASE },
  TENANTS_NOT_ENFORCED: { ...precondition, metadata: BY_DATABASE },
  DATABASE_PERMISSION_DENIED: { code: Code.PERMISSION_DENIED, metadata: BY_DATABASE },
  DATABASE_UNAVAILABLE: outage,
  DATABASE_SESSION_TIMEOUT: outage,
  DATABASE_RESOURCES: { ...tooMuch, retryAfterMs: OUTAGE_RETRY_MS, metadata: BY_DATABASE },
  TOO_MANY_CONNECTIONS: { ...busy, metadata: BY_DATABASE },
  CONNECTION_QUEUE_FULL: busy,
  CONNECTION_WAIT_TIMEOUT: busy,

  // Drivers
  CANDIDATE_NOT_FOUND: { code: Code.NOT_FOUND, metadata: ['candidate_id'] },
  FAILURE_UNREADABLE: { ...precondition, metadata: ['failure_match_id'] },
  SCOPE_UNREADABLE: { ...precondition, metadata: ['scope_id'] },
  UNKNOWN_CONFLICT_STRATEGY: { ...precondition, metadata: ['conflict_strategy'] },
  CONFLICT_LIMIT: tooMuch,
  TABLE_UNKNOWN: precondition,
  TABLE_NOT_YOURS: { code: Code.PERMISSION_DENIED },
  TABLE_LIMIT: tooMuch,
  SYMBOL_DEFINED: { code: Code.ALREADY_EXISTS },
  GLOBAL_SCOPE: precondition,
  SYMBOL_LIMIT: tooMuch,
  SCOPE_LIMIT: tooMuch,
  SIZE_LIMIT: tooMuch,

  // Prepared transactions
  TRANSACTION_PREPARED: ended,
  TRANSACTION_NOT_PREPARED: precondition,
  PREPARED_TRANSACTIONS_OFF: precondition,
  PREPARED_TRANSACTIONS_LIMIT: { ...busy, metadata: ['limit'] },

  // Lists
  PAGE_TOKEN_INVALID: invalid,

  // What somebody has made of the database
  DATABASE_REFUSED: refusedStatement,
} as const satisfies Readonly<Record<string, Entry>>;

/** A reason of the catalogue. */
export type Reason = keyof typeof REASONS;

/** Names of the facts that may go with a reason. */
export type MetadataKey<R extends Reason> = (typeof REASONS)[R] extends { readonly metadata: readonly (infer K)[] }
  ? K & string
  : never;

/** Reasons that a refusal of the database can have. */
export type DatabaseReason = { [R in Reason]: 'sqlstate' extends MetadataKey<R> ? R : never }[Reason];

/** Code and retry of a reason. */
export const meaningOf = (reason: Reason): Entry => REASONS[reason];
