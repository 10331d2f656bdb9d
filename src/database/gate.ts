import { type RpcError, refuse } from '../contract/errors.ts';
import { Link, Ring } from './ring.ts';
import type { Signal } from './signal.ts';

/** How many may be inside at once, how many may wait, and for how long (milliseconds). */
export interface GateOptions {
  readonly slots: number;
  readonly queue: number;
  readonly waitMs: number;
  /** Why too long a wait was in vain, where that is something else than that others were inside. */
  readonly late?: () => RpcError | undefined;
}

/** A place in the queue. */
class Turn extends Link {
  /** By the clock of `performance.now()`. */
  readonly until: number;
  /** The wait is over: with a place, or for a reason. */
  readonly end: (problem?: unknown) => void;

  constructor(until: number, end: (problem?: unknown) => void) {
    super();
    this.until = until;
    this.end = end;
  }
}

/** Lets a bounded number of calls do something at once; the others wait in order, not for ever. */
export class Gate {
  readonly #name: string;
  readonly #options: GateOptions;
  readonly #waiting = new Ring<Turn>();
  #pending = 0;
  #inside = 0;
  /** Runs while somebody waits, and a while longer. */
  #clock: NodeJS.Timeout | undefined;

  constructor(name: string, options: GateOptions) {
    this.#name = name;
    this.#options = options;
  }

  /** How many wait now. */
  get pending(): number {
    return this.#pending;
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
    const next = this.#waiting.first;
    if (next) next.end();
    else this.#inside -= 1;
  }

  #turn(signal: Signal | undefined): Promise<void> {
    const { queue, waitMs } = this.#options;
    if (this.#pending >= queue) {
      throw refuse('CONNECTION_QUEUE_FULL', `too many calls wait for a ${this.#name} connection`);
    }
    return new Promise((resolve, reject) => {
      const turn = new Turn(performance.now() + waitMs, (problem) => {
        turn.leave();
        this.#pending -= 1;
        signal?.removeEventListener('abort', onAbort);
        if (problem === undefined) resolve();
        else reject(problem);
      });
      const onAbort = (): void => turn.end(signal!.reason);
      signal?.addEventListener('abort', onAbort);
      this.#waiting.add(turn);
      this.#pending += 1;
      this.#clock ??= setTimeout(this.#look, waitMs).unref();
    });
  }

  /** All may wait equally long: those whose time is up stand first. */
  readonly #look = (): void => {
    this.#clock = undefined;
    const now = performance.now();
    for (let turn = this.#waiting.first; turn; turn = this.#waiting.first) {
      if (turn.until > now) {
        this.#clock = setTimeout(this.#look, turn.until - now).unref();
        return;
      }
      turn.end(
        this.#options.late?.() ?? refuse('CONNECTION_WAIT_TIMEOUT', `no ${this.#name} connection came free in time`),
      );
    }
  };
}
