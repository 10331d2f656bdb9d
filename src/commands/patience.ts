import { setTimeout as sleep } from 'node:timers/promises';
import { UnreachableError } from '../database/migrate/migrate.ts';

const WAIT_STEP_MS = 200;

/**
 * Does what needs a database once that can be used: waits for it, `waitMs` at most, while its state may still change by itself.
 *
 * @param told why it is waited, once.
 * @throws UnreachableError where it cannot be used, and there is nothing to wait for or no more patience.
 */
export const patiently = async <T>(
  waitMs: number,
  work: () => Promise<T>,
  told: (problem: string) => void,
  signal?: AbortSignal,
): Promise<T> => {
  const deadline = Date.now() + waitMs;
  for (let isTold = false; ; isTold = true) {
    signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UnreachableError && error.mayPass) || Date.now() >= deadline) throw error;
      if (!isTold) told(error.message);
    }
    await sleep(WAIT_STEP_MS, undefined, { signal });
  }
};
