import { refuse } from '../contract/errors.ts';
import { earlier, type Signal } from '../database/signal.ts';

/** The calls of one transaction: they run in arrival order, one at a time. */
export class Turns {
  readonly #most: number;
  readonly #onFree: () => void;
  /** Settles when those have ended that have come so far. */
  #tail: Promise<unknown> = Promise.resolve();
  /** Why calls have ended that had not begun. */
  readonly #unstarted = new WeakSet<object>();

  /** Calls that wait. */
  waiting = 0;

  /** True while one runs. */
  running = false;

  /**
   * @param most how many may wait.
   * @param onFree told when nobody has a turn, nor waits for one.
   */
  constructor(most: number, onFree: () => void) {
    this.#most = most;
    this.#onFree = onFree;
  }

  /**
   * Takes a turn, unless the signal fires before it has come. A full queue keeps nobody out who is `expected`.
   *
   * @throws TRANSACTION_QUEUE_FULL.
   */
  take<T>(signal: Signal | undefined, work: () => Promise<T>, expected: boolean): Promise<T> {
    if (!expected && this.waiting >= this.#most) {
      throw refuse('TRANSACTION_QUEUE_FULL', 'too many calls wait inside this transaction');
    }
    this.waiting += 1;
    const before = this.#tail;
    const mustWait = signal && (this.running || this.waiting > 1);
    let hasLeft = false;
    const turn = (async () => {
      await (mustWait ? earlier(before, signal) : before);
      this.waiting -= 1;
      if (signal?.aborted) {
        hasLeft = true;
        this.#unstarted.add(signal.reason as object);
        throw signal.reason;
      }
      this.running = true;
      try {
        return await work();
      } finally {
        this.running = false;
      }
    })();
    const settled = turn.then(
      () => {},
      // Whoever comes after one who has left waits for those before.
      () => (hasLeft ? before : undefined),
    );
    this.#tail = settled.then(() => {
      if (this.waiting === 0) this.#onFree();
    });
    return turn;
  }

  /** Does something after those who have come so far. */
  afterwards(work: () => Promise<void>): void {
    void this.#tail.then(work);
  }

  /** Whether that is why a call has ended whose turn had not come. */
  hasLeft(reason: unknown): boolean {
    return this.#unstarted.has(reason as object);
  }
}
