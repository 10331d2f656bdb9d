import { monitorEventLoopDelay } from 'node:perf_hooks';

const RESOLUTION_MS = 10;

/**
 * Watches how long a busy machine keeps this process from doing anything, and so others, too.
 *
 * @returns the longest time so far, milliseconds; 0 where it is idle.
 */
export const watchLag = (): (() => number) => {
  const lag = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  lag.enable();
  return () => Math.max(0, Math.round(lag.max / 1e6) - RESOLUTION_MS);
};
