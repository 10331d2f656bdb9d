import { executionAsyncResource } from 'node:async_hooks';
import { setFlagsFromString } from 'node:v8';

/** What is never to be cleared away. */
const kept: object[] = [];

/**
 * By how much the young generation grows when much of it outlives a clearing. What a start makes stays, so that it would grow to
 * its largest for what never comes again, and keep a tenth of the process's memory for it.
 */
const YOUNG_STAYS = '--semi-space-growth-factor=1';
const YOUNG_GROWS = '--semi-space-growth-factor=2';

/**
 * What calls leave behind in the heap before it is cleared, in percent of what is in use. Left to itself the heap grows by
 * several times as much, which saves no time; with less, many callers at once spend it on clearing.
 */
const HEAP_GROWING = '--heap-growing-percent=60';

/**
 * Sets the engine up for a start, and for a process that runs long; to be called before anything else.
 *
 * Node gives each tick keys that it computes. The engine does that fast for objects of the shape that it has seen first, and
 * five times slower once it has seen another; a shape that no object has is cleared away, and then the next one is another. So
 * whenever the heap was cleared between two ticks all later ones were slow, and calls cost a tenth more until the process
 * ended. One tick is kept, and with it the shape.
 */
export const prepareEngine = (): void => {
  process.nextTick(() => kept.push(executionAsyncResource()));
  setFlagsFromString(YOUNG_STAYS);
};

/** From now on there are calls, and the heap grows as they need it. */
export const growWithCalls = (): void => {
  setFlagsFromString(YOUNG_GROWS);
  setFlagsFromString(HEAP_GROWING);
};
