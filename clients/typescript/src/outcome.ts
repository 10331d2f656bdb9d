import type { Calls } from './calls.ts';
import { ConflictError, OutcomeUnknownError, SidecarError } from './errors.ts';
import { type GetOutcomeRequest, Outcome, TransactionService } from './gen/hoc/cus/policies/v1/transaction_pb.ts';
import { Deadline, delayMs, pause } from './retry.ts';

/** Whether a call ended without an answer, so that it may have taken effect. */
export const isUnanswered = (error: unknown): error is SidecarError =>
  error instanceof SidecarError &&
  (error.code === 'UNAVAILABLE' || error.code === 'DEADLINE_EXCEEDED' || error.code === 'CANCELLED');

/** Whether the answer to a commit was lost, so that only the database knows. */
export const isLostCommit = (error: unknown): error is SidecarError =>
  isUnanswered(error) || (error instanceof SidecarError && error.reason === 'TRANSACTION_OUTCOME_UNKNOWN');

/** Asks how something ended. */
export const outcomeOf = async (calls: Calls, subject: GetOutcomeRequest['subject'], timeoutMs?: number) => {
  const options = timeoutMs === undefined ? {} : { timeoutMs };
  const { outcome } = await calls.unary(TransactionService.method.getOutcome, { subject }, options, {
    repeatable: true,
  });
  return outcome;
};

/**
 * Finds out what became of a commit whose answer was lost, by a connection of its own: returns where it was committed.
 *
 * @throws ConflictError where it was rolled back, OutcomeUnknownError where nobody could tell within the client's timeout.
 */
export const settle = async (calls: Calls, transactionId: string, lost: SidecarError): Promise<void> => {
  const deadline = new Deadline(calls.timeoutMs);
  const own = calls.fresh();
  try {
    for (let attempt = 1; ; attempt++) {
      const outcome = await outcomeOf(own, { case: 'transactionId', value: transactionId }, deadline.leftMs);
      if (outcome === Outcome.COMMITTED) return;
      if (outcome === Outcome.ABORTED) {
        throw new ConflictError({
          code: 'ABORTED',
          message: 'the commit was not answered, and the transaction was rolled back',
          cause: lost,
        });
      }
      const delay = delayMs(lost, attempt);
      if (outcome !== Outcome.IN_PROGRESS || deadline.within(delay)) throw lost;
      await pause(delay);
    }
  } catch (error) {
    throw error instanceof ConflictError && error.reason === undefined
      ? error
      : new OutcomeUnknownError(transactionId, error);
  } finally {
    own.close();
  }
};
