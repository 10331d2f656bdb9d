/** Something that may take too long, until it turns out not to. */
export class Due {
  readonly at: number;
  readonly onOverdue: () => void;
  /** Its neighbours in the ring of what is looked at; itself where it is not. */
  before: Due = this;
  after: Due = this;

  constructor(onOverdue: () => void, at: number) {
    this.onOverdue = onOverdue;
    this.at = at;
  }

  get isWatched(): boolean {
    return this.after !== this;
  }

  /** It is looked at no more. */
  cancel(): void {
    this.before.after = this.after;
    this.after.before = this.before;
    // What has grown old in memory keeps there whatever it leads to, needed or not.
    this.before = this;
    this.after = this;
  }
}

/** Tells what has taken too long. Everything is looked at now and then: a timer for each would cost more than most take. */
export class Overdue {
  readonly #ring = new Due(() => {}, Number.POSITIVE_INFINITY);
  readonly #clock: NodeJS.Timeout;

  /** @param lookMs how often it is looked at, milliseconds. */
  constructor(lookMs: number) {
    this.#clock = setInterval(() => this.#look(), lookMs).unref();
  }

  /** Calls that once, when the time has come, by the clock of `performance.now()`. */
  watch(onOverdue: () => void, at: number): Due {
    const due = new Due(onOverdue, at);
    const ring = this.#ring;
    due.before = ring.before;
    due.after = ring;
    ring.before.after = due;
    ring.before = due;
    return due;
  }

  /** Looks no more. */
  end(): void {
    clearInterval(this.#clock);
  }

  #look(): void {
    const now = performance.now();
    const late: Due[] = [];
    for (let due = this.#ring.after; due !== this.#ring; due = due.after) if (due.at <= now) late.push(due);
    for (const due of late) {
      // One of those before may have ended it.
      if (!due.isWatched) continue;
      due.cancel();
      due.onOverdue();
    }
  }
}
