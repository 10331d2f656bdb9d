import { executionAsyncResource } from 'node:async_hooks';

/** What is never to be cleared away. */
const kept: object[] = [];

/**
 * Sets the engine up for a process that runs long; to be called before anything else.
 *
 * Node gives each tick keys that it computes. The engine does that fast for objects of the shape that it has seen first, and
 * five times slower once it has seen another; a shape that no object has is cleared away, and then the next one is another. So
 * whenever the heap was cleared between two ticks all later ones were slow, and calls cost a tenth more until the process
 * ended. One tick is kept, and with it the shape.
 */
export const prepareEngine = (): void => {
  process.nextTick(() => kept.push(executionAsyncResource()));
};
