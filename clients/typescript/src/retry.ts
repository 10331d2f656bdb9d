import { cancelled, DeadlineError, SidecarError } from './errors.ts';

/** The least wait, milliseconds, and how long one grows where no error asks for more. */
const FIRST_DELAY_MS = 50;
const LONGEST_DELAY_MS = 5_000;

/** A point in time by which something has to be done. */
export class Deadline {
  readonly #at: number;

  /** @param timeoutMs from now; undefined: never. */
  constructor(timeoutMs: number | undefined) {
    this.#at = timeoutMs === undefined ? Number.POSITIVE_INFINITY : performance.now() + timeoutMs;
  }

  /** Whole milliseconds until then, undefined where it never comes. */
  get leftMs(): number | undefined {
    return this.#at === Number.POSITIVE_INFINITY ? undefined : Math.max(0, Math.ceil(this.#at - performance.now()));
  }

  /** Whether it comes before that many milliseconds have passed. */
  within(ms: number): boolean {
    return performance.now() + ms >= this.#at;
  }
}

/** Waits that many milliseconds; a signal ends it with its error. */
export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled(signal));
    const stop = (): void => {
      clearTimeout(timer);
      reject(cancelled(signal!));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });

/** The wait before an attempt: at least what the error asks for, more each time, never the same for two callers. */
export const delayMs = ({ retryAfterMs: asked = 0 }: SidecarError, attempt: number): number => {
  const grown = Math.max(asked, FIRST_DELAY_MS) * 2 ** (attempt - 1);
  return Math.max(asked, Math.min(LONGEST_DELAY_MS, grown)) * (1 + Math.random());
};

/** How often something is tried, and until when. */
export interface Attempts {
  readonly attempts: number;
  readonly deadline: Deadline;
  readonly signal?: AbortSignal | undefined;
  /** Default: what is `retriable`. */
  readonly promising?: (error: SidecarError) => boolean;
}

/** Tries it again while it fails with what is promising, and there are attempts and time for that. */
export const retrying = async <T>(
  { attempts, deadline, signal, promising = (error) => error.retriable }: Attempts,
  work: (attempt: number) => Promise<T>,
): Promise<T> => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work(attempt);
    } catch (error) {
      if (!(error instanceof SidecarError && promising(error)) || attempt >= attempts) throw error;
      const delay = delayMs(error, attempt);
      if (deadline.within(delay)) throw error;
      await pause(delay, signal);
    }
  }
};

/** What a wait ends with that was longer than it may be. */
export const overdue = (what: string, cause?: unknown): DeadlineError =>
  new DeadlineError({ code: 'DEADLINE_EXCEEDED', message: `${what} took too long`, cause });
