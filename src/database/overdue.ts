/** Tells what has taken too long. Everything is looked at now and then: a timer for each would cost more than most take. */
export class Overdue {
  readonly #due = new Map<() => void, number>();
  readonly #clock: NodeJS.Timeout;

  /** @param lookMs how often it is looked at, milliseconds. */
  constructor(lookMs: number) {
    this.#clock = setInterval(() => this.#look(), lookMs).unref();
  }

  /** Calls that once, when the time has come, by the clock of `performance.now()`. */
  set(onOverdue: () => void, at: number): void {
    this.#due.set(onOverdue, at);
  }

  delete(onOverdue: () => void): void {
    this.#due.delete(onOverdue);
  }

  /** Looks no more. */
  end(): void {
    clearInterval(this.#clock);
  }

  #look(): void {
    const now = performance.now();
    for (const [onOverdue, at] of this.#due) {
      if (now < at) continue;
      this.#due.delete(onOverdue);
      onOverdue();
    }
  }
}
