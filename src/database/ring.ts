/** Stands in a ring between its neighbours, or by itself. */
export class Link {
  before: this = this;
  after: this = this;

  get isAlone(): boolean {
    return this.after === this;
  }

  /** Leaves the ring. */
  leave(): void {
    this.before.after = this.after;
    this.after.before = this.before;
    // What has grown old in memory keeps there whatever it leads to, needed or not.
    this.before = this;
    this.after = this;
  }
}

/** Links in the order in which they came. They come and go in any order, and leave nothing behind. */
export class Ring<L extends Link> {
  /** Stands before the first and behind the last. */
  readonly #gap = new Link() as L;

  /** Puts one that is alone behind the others. */
  add(link: L): void {
    const last = this.#gap.before;
    link.before = last;
    link.after = this.#gap;
    last.after = link;
    this.#gap.before = link;
  }

  /** The one that has been here longest. */
  get first(): L | undefined {
    return this.behind(this.#gap);
  }

  /** The one that came next after that one. */
  behind({ after }: L): L | undefined {
    return after === this.#gap ? undefined : after;
  }

  *[Symbol.iterator](): Generator<L> {
    for (let link = this.#gap.after; link !== this.#gap; link = link.after) yield link;
  }
}
