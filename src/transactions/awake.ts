import { availableParallelism } from 'node:os';

/** How long it stays awake, milliseconds: by then a caller in the same pod has sent its next call. */
const AWAKE_MS = 0.25;

/**
 * Keeps this process awake for a moment. Who sleeps is woken late, and with cold caches: between the calls of a transaction
 * that cost more than the calls themselves, while it held what others were waiting for.
 */
export class Awake {
  /** As many open transactions as leave a processor each to their callers and to the database. */
  readonly #most = availableParallelism() / 2;
  #until = 0;
  #isTurning = false;

  /** @param open transactions that are open now: many find it awake anyway, and need the processors more. */
  stay(open: number): void {
    if (open > this.#most) return;
    this.#until = performance.now() + AWAKE_MS;
    if (this.#isTurning) return;
    this.#isTurning = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    if (performance.now() < this.#until) setImmediate(this.#turn);
    else this.#isTurning = false;
  };
}
