import { performance } from 'node:perf_hooks';

/** How long nothing is asked for before it is done, milliseconds, and the share of that in which nothing is done. */
const QUIET_MS = 1_000;
const QUIET = 0.05;
/** A server that has found no quiet by then is in use. */
const LOOKS = 10;

/**
 * Gives back, once, the memory that a start has used and a server does not need: code that has run its one time, and a young
 * generation that grew for it; a sixth of all. It takes some fifty milliseconds, so it is left out where calls come already:
 * they need that memory, and what the engine has learned of them would be thrown away, too.
 *
 * @param isServing whether the start is over.
 */
export const giveBackAfterStart = (isServing: () => boolean): void => {
  let last = performance.eventLoopUtilization();
  let looks = 0;
  const clock = setInterval(() => {
    const { utilization } = performance.eventLoopUtilization(last);
    last = performance.eventLoopUtilization();
    if (!isServing()) return;
    looks += 1;
    const isQuiet = utilization < QUIET;
    if (isQuiet || looks === LOOKS) clearInterval(clock);
    // A Node without an inspector keeps what it has.
    if (isQuiet) void giveBack().catch(() => {});
  }, QUIET_MS).unref();
};

const giveBack = async (): Promise<void> => {
  const { Session } = await import('node:inspector/promises');
  const session = new Session();
  session.connect();
  await session.post('HeapProfiler.collectGarbage');
  session.disconnect();
};
