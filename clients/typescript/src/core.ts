/** What both entries have in common. */
export type { ClientOptions } from './calls.ts';
export type { Client, ExecuteOptions, RunOptions } from './client.ts';
export {
  CancelledError,
  type Code,
  ConflictError,
  ConstraintError,
  DeadlineError,
  InternalError,
  InvalidRequestError,
  LimitError,
  NotFoundError,
  OutcomeUnknownError,
  PermissionError,
  PreconditionError,
  type Reason,
  SidecarError,
  TransactionAbortedError,
  TransactionEndedError,
  UnauthenticatedError,
  UnavailableError,
} from './errors.ts';
export { pages } from './pages.ts';
export type { Savepoint } from './savepoint.ts';
export type { CallOptions, Documents, Stub, Stubs } from './stubs.ts';
export type { Committed, Transaction, TransactionOptions } from './transaction.ts';
