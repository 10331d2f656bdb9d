import { type DescMessage, fromBinary, type MessageShape } from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from './gen/google/rpc/error_details_pb.ts';
import type { ErrorReason } from './gen/hoc/cus/policies/v1/error_reason_pb.ts';

/** Names of the gRPC codes, by number. */
const CODES = [
  'OK',
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
] as const;

/** Name of a gRPC code. */
export type Code = (typeof CODES)[number];

/** A reason of this version's contract. */
export type Reason = Exclude<keyof typeof ErrorReason, 'ERROR_REASON_UNSPECIFIED'>;

/** What an error is made of. */
export interface Facts {
  readonly code: Code;
  readonly message: string;
  readonly reason?: string | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly violations?: readonly { readonly field: string; readonly description: string }[] | undefined;
  readonly preconditions?:
    | readonly { readonly type: string; readonly subject: string; readonly description: string }[]
    | undefined;
  readonly cause?: unknown;
}

const ROLLED_BACK: ReadonlySet<string | undefined> = new Set<Reason>([
  'TRANSACTION_ROLLED_BACK',
  'TRANSACTION_LOST',
  'TRANSACTION_ELSEWHERE',
]);

/** A call that did not succeed. Its class says what a caller can do about it. */
export class SidecarError extends Error {
  readonly code: Code;
  /** Why, for programs; undefined where no sidecar answered, and possibly one that only a newer contract names. */
  readonly reason: Reason | (string & {}) | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** The least delay after which the same call may succeed, milliseconds; undefined where waiting does not help. */
  readonly retryAfterMs: number | undefined;
  /** Every field that was refused. */
  readonly violations: NonNullable<Facts['violations']>;
  /** What was expected and not found. */
  readonly preconditions: NonNullable<Facts['preconditions']>;
  /**
   * UUID of a single-use write, or an `execute`, of which an attempt ended with UNAVAILABLE, DEADLINE_EXCEEDED or CANCELLED:
   * `outcome` tells by it whether it took effect, and the same call with it as `idempotencyKey` does so once. Else undefined.
   */
  readonly idempotencyKey: string | undefined = undefined;

  constructor(facts: Facts) {
    super(facts.message, { cause: facts.cause });
    this.name = new.target.name;
    this.code = facts.code;
    this.reason = facts.reason;
    this.metadata = facts.metadata ?? {};
    this.retryAfterMs = facts.retryAfterMs;
    this.violations = facts.violations ?? [];
    this.preconditions = facts.preconditions ?? [];
  }

  /** True where the same call, or inside a transaction the whole of that, may succeed when it is tried again; `run` goes by it. */
  get retriable(): boolean {
    return this.retryAfterMs !== undefined || this.code === 'ABORTED';
  }
}

/** Fields, headers or values are wrong: `violations` names the fields. */
export class InvalidRequestError extends SidecarError {}

/** A constraint of the database refuses the row. */
export class ConstraintError extends SidecarError {
  /** Name of the constraint, where it is told. */
  get constraint(): string | undefined {
    return this.metadata['constraint'];
  }
}

/** The transaction collided with another one; all of it may be tried again. */
export class ConflictError extends SidecarError {}

/** The state of things does not allow it. */
export class PreconditionError extends SidecarError {}

/** The transaction has ended, or there is none of that id; nothing can be done in it any more. */
export class TransactionEndedError extends PreconditionError {
  /** True where it is known to be rolled back, and not for its own slowness, so that all of it may be tried again. */
  override get retriable(): boolean {
    return ROLLED_BACK.has(this.reason);
  }
}

/** A statement of the transaction had failed: roll back, or back to a savepoint. */
export class TransactionAbortedError extends PreconditionError {}

/** There is no such thing. */
export class NotFoundError extends SidecarError {}

/** The caller is not known. */
export class UnauthenticatedError extends SidecarError {}

/** The caller may not do that. */
export class PermissionError extends SidecarError {}

/** A limit is reached; where `retriable`, only for now. */
export class LimitError extends SidecarError {}

/** The sidecar or its database is not there now. */
export class UnavailableError extends SidecarError {
  /** False of a single-use call of which nobody could say whether it was committed. */
  override get retriable(): boolean {
    return this.reason !== 'COMMIT_OUTCOME_UNKNOWN';
  }
}

/** Its time was over. */
export class DeadlineError extends SidecarError {}

/** The caller's own signal ended it, or the client was closed: `cause` is the signal's reason. */
export class CancelledError extends SidecarError {}

/** A defect of the sidecar or of what is stored, or a method that it does not have. */
export class InternalError extends SidecarError {}

/** Nobody could say whether the transaction was committed. */
export class OutcomeUnknownError extends SidecarError {
  readonly transactionId: string;

  constructor(transactionId: string, cause: unknown) {
    super({
      code: 'UNAVAILABLE',
      reason: 'COMMIT_OUTCOME_UNKNOWN',
      message: `whether transaction ${transactionId} was committed is not known`,
      cause,
    });
    this.transactionId = transactionId;
  }
}

type ErrorClass = new (facts: Facts) => SidecarError;

const BY_REASON: Partial<Record<Reason, ErrorClass>> = {
  UNIQUE_VIOLATION: ConstraintError,
  FOREIGN_KEY_VIOLATION: ConstraintError,
  NOT_NULL_VIOLATION: ConstraintError,
  CHECK_VIOLATION: ConstraintError,
  TRANSACTION_UNKNOWN: TransactionEndedError,
  TRANSACTION_COMMITTED: TransactionEndedError,
  TRANSACTION_ROLLED_BACK: TransactionEndedError,
  TRANSACTION_EXPIRED: TransactionEndedError,
  TRANSACTION_LOST: TransactionEndedError,
  TRANSACTION_OUTCOME_UNKNOWN: TransactionEndedError,
  TRANSACTION_ELSEWHERE: TransactionEndedError,
  TRANSACTION_PREPARED: TransactionEndedError,
  TRANSACTION_ABORTED: TransactionAbortedError,
};

const BY_CODE: Record<Code, ErrorClass> = {
  OK: InternalError,
  CANCELLED: CancelledError,
  UNKNOWN: InternalError,
  INVALID_ARGUMENT: InvalidRequestError,
  DEADLINE_EXCEEDED: DeadlineError,
  NOT_FOUND: NotFoundError,
  ALREADY_EXISTS: ConstraintError,
  PERMISSION_DENIED: PermissionError,
  RESOURCE_EXHAUSTED: LimitError,
  FAILED_PRECONDITION: PreconditionError,
  ABORTED: ConflictError,
  OUT_OF_RANGE: InvalidRequestError,
  UNIMPLEMENTED: InternalError,
  INTERNAL: InternalError,
  UNAVAILABLE: UnavailableError,
  DATA_LOSS: InternalError,
  UNAUTHENTICATED: UnauthenticatedError,
};

/** The error of the class that its reason, or else its code, asks for. */
export const errorOf = (facts: Facts): SidecarError =>
  new ((Object.hasOwn(BY_REASON, facts.reason ?? '') && BY_REASON[facts.reason as Reason]) || BY_CODE[facts.code])(
    facts,
  );

/** A detail of a status, packed. */
export interface Detail {
  /** Name of the message type. */
  readonly type: string;
  readonly value: Uint8Array;
}

/** Codes that a transport makes of a connection that went away; a sidecar gives a reason with them. */
const OF_A_LOST_CONNECTION: ReadonlySet<Code> = new Set(['CANCELLED', 'UNKNOWN', 'ABORTED', 'INTERNAL']);

/** The error of a status, by the number of its code and its packed details. */
export const errorOfStatus = (
  number: number,
  message: string,
  details: readonly Detail[],
  cause: unknown,
): SidecarError => {
  const find = <D extends DescMessage>(schema: D): MessageShape<D> | undefined => {
    const found = details.find(({ type }) => type === schema.typeName);
    return found && fromBinary(schema, found.value);
  };
  const code = CODES[number] ?? 'UNKNOWN';
  const info = find(ErrorInfoSchema);
  const delay = find(RetryInfoSchema)?.retryDelay;
  return errorOf({
    code: info === undefined && OF_A_LOST_CONNECTION.has(code) ? 'UNAVAILABLE' : code,
    message,
    cause,
    reason: info?.reason,
    metadata: info?.metadata,
    retryAfterMs: delay && durationMs(delay),
    violations: find(BadRequestSchema)?.fieldViolations,
    preconditions: find(PreconditionFailureSchema)?.violations,
  });
};

/** The error of a call that its caller's signal ended. */
export const cancelled = (signal: AbortSignal): CancelledError =>
  new CancelledError({ code: 'CANCELLED', message: 'the caller ended it', cause: signal.reason });
