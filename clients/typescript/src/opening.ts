import { overdue } from './retry.ts';

/** The messages of a stream whose first one, or its end, must come within that many milliseconds; those after it may take any time. */
export async function* beginning<T>(
  timeoutMs: number,
  signal: AbortSignal | undefined,
  open: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncGenerator<T> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), timeoutMs);
  try {
    for await (const message of open(signal ? AbortSignal.any([signal, late.signal]) : late.signal)) {
      clearTimeout(timer);
      yield message;
    }
  } catch (error) {
    throw late.signal.aborted ? overdue('the beginning of the stream', error) : error;
  } finally {
    clearTimeout(timer);
  }
}
