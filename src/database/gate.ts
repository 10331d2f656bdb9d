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

/** Gives a place back, once. */
export type Leave = () => void;

/** Someone who waits. */
class Turn<S> extends Link {
  /** By the clock of `performance.now()`. */
  readonly until: number;
  /** Whether a seat will do. */
  readonly takesSeat: boolean;
  /** The wait is over: with a place, with a seat, or for a reason. */
  readonly end: (problem?: unknown, seat?: S) => void;

  constructor(until: number, takesSeat: boolean, end: Turn<S>['end']) {
    super();
    this.until = until;
    this.takesSeat = takesSeat;
    this.end = end;
  }
}

/**
 * Lets a bounded number of calls do something at once; the others wait in order, not for ever. Who is inside may have seats
 * `S` for those who wait and need no place of their own.
 */
export class Gate<S = never> {
  readonly #name: string;
  readonly #options: GateOptions;
  readonly #waiting = new Ring<Turn<S>>();
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
  enter(signal: Signal | undefined): Promise<Leave> {
    return this.#entered(signal, false) as Promise<Leave>;
  }

  /** As {@link Gate.enter}, for someone who takes a seat, too, if that is offered first. */
  enterOrSit(signal: Signal | undefined): Promise<Leave | S> {
    return this.#entered(signal, true);
  }

  /** As {@link Gate.enter}, where nobody has to wait; undefined where somebody has to. */
  tryEnter(): Leave | undefined {
    if (this.#inside >= this.#options.slots) return undefined;
    this.#inside += 1;
    return this.#place();
  }

  /** Offers seats to those who wait and take one, in their order, until there is none left. */
  offer(seat: () => S | undefined): void {
    for (let turn = this.#waiting.first; turn; ) {
      const next = this.#waiting.behind(turn);
      if (turn.takesSeat) {
        const offered = seat();
        if (offered === undefined) return;
        turn.end(undefined, offered);
      }
      turn = next;
    }
  }

  #place(): Leave {
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

  #entered(signal: Signal | undefined, takesSeat: boolean): Promise<Leave | S> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const now = this.tryEnter();
      if (now) {
        resolve(now);
        return;
      }
      const { queue, waitMs } = this.#options;
      if (this.#pending >= queue) {
        throw refuse('CONNECTION_QUEUE_FULL', `too many calls wait for a ${this.#name} connection`);
      }
      const turn = new Turn<S>(performance.now() + waitMs, takesSeat, (problem, seat) => {
        turn.leave();
        this.#pending -= 1;
        signal?.removeEventListener('abort', onAbort);
        if (problem === undefined) resolve(seat ?? this.#place());
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
