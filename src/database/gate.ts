import { type RpcError, refuse } from '../contract/errors.ts';
import type { Signal } from './signal.ts';

/** How many may be inside at once, how many may wait, and for how long (milliseconds). */
export interface GateOptions {
  readonly slots: number;
  readonly queue: number;
  readonly waitMs: number;
  /** Why too long a wait was in vain, where that is something else than that others were inside. */
  readonly late?: () => RpcError | undefined;
}

/** Lets a bounded number of calls do something at once; the others wait in order, not for ever. */
export class Gate {
  readonly #name: string;
  readonly #options: GateOptions;
  readonly #waiting = new Set<() => void>();
  #inside = 0;

  constructor(name: string, options: GateOptions) {
    this.#name = name;
    this.#options = options;
  }

  /** How many wait now. */
  get pending(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a place; the answer gives it back.
   *
   * @throws RESOURCE_EXHAUSTED when the queue is full or the wait too long; the signal's reason when the call ends first.
   */
  async enter(signal: Signal | undefined): Promise<() => void> {
    signal?.throwIfAborted();
    const entered = this.tryEnter();
    if (entered) return entered;
    await this.#turn(signal);
    return this.#place();
  }

  /** As {@link Gate.enter}, where nobody has to wait; undefined where somebody has to. */
  tryEnter(): (() => void) | undefined {
    if (this.#inside >= this.#options.slots) return undefined;
    this.#inside += 1;
    return this.#place();
  }

  /** Gives a place back, once. */
  #place(): () => void {
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#leave();
    };
  }

  /** The place of one who leaves goes to the first who waits. */
  #leave(): void {
    const [next] = this.#waiting;
    if (next) next();
    else this.#inside -= 1;
  }

  #turn(signal: Signal | undefined): Promise<void> {
    const { queue, waitMs, late } = this.#options;
    if (this.#waiting.size >= queue) {
      throw refuse('CONNECTION_QUEUE_FULL', `too many calls wait for a ${this.#name} connection`);
    }
    return new Promise((resolve, reject) => {
      const settle = (outcome: () => void): void => {
        this.#waiting.delete(enter);
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        outcome();
      };
      const enter = (): void => settle(resolve);
      const onAbort = (): void => settle(() => reject(signal!.reason));
      const timer = setTimeout(
        () =>
          settle(() =>
            reject(late?.() ?? refuse('CONNECTION_WAIT_TIMEOUT', `no ${this.#name} connection came free in time`)),
          ),
        waitMs,
      );
      signal?.addEventListener('abort', onAbort);
      this.#waiting.add(enter);
    });
  }
}
