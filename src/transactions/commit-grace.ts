import { refuse } from '../contract/errors.ts';
import type { Signal } from '../database/signal.ts';

/** How long a commit may go on after its caller has left before the answer is that nobody knows, milliseconds. */
const COMMIT_GRACE_MS = 150;

/** A commit goes on when its caller leaves, who is told soon that nobody knows yet how it ends. */
export const orUnknown = <T>(committing: Promise<T>, signal: Signal | undefined): Promise<T> => {
  if (!signal) return committing;
  return new Promise((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      timer = setTimeout(() => {
        reject(
          refuse(
            'COMMIT_OUTCOME_UNKNOWN',
            'the call ended while its commit was under way; ask GetOutcome whether it took effect',
            { cause: signal.reason },
          ),
        );
      }, COMMIT_GRACE_MS);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
    const settled = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    };
    committing.then(resolve, reject).finally(settled);
  });
};
