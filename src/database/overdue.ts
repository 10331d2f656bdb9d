import { Link, Ring } from './ring.ts';

/** Something that may take too long, until it turns out not to; then it {@link leave leaves}. */
export class Due extends Link {
  readonly at: number;
  readonly onOverdue: () => void;

  constructor(onOverdue: () => void, at: number) {
    super();
    this.onOverdue = onOverdue;
    this.at = at;
  }
}

/** Tells what has taken too long. Everything is looked at now and then: a timer for each would cost more than most take. */
export class Overdue {
  readonly #ring = new Ring<Due>();
  readonly #clock: NodeJS.Timeout;

  /** @param lookMs how often it is looked at, milliseconds. */
  constructor(lookMs: number) {
    this.#clock = setInterval(() => this.#look(), lookMs).unref();
  }

  /** Calls that once, when the time has come, by the clock of `performance.now()`. */
  watch(onOverdue: () => void, at: number): Due {
    const due = new Due(onOverdue, at);
    this.#ring.add(due);
    return due;
  }

  /** Looks no more. */
  end(): void {
    clearInterval(this.#clock);
  }

  #look(): void {
    const now = performance.now();
    const late = [...this.#ring].filter(({ at }) => at <= now);
    for (const due of late) {
      // One of those before may have ended it.
      if (due.isAlone) continue;
      due.leave();
      due.onOverdue();
    }
  }
}
