import { refuse } from '../contract/errors.ts';

/** The most that a byte of gzip or deflate can unfold to, by their format. */
const DEFLATE_RATIO = 1_032;

/** Bytes that requests under way hold, all of the process together. */
export class ByteBudget {
  readonly #max: number;
  readonly #maxMessage: number;
  #used = 0;
  #requests = 0;

  /**
   * @param max bytes that requests may hold together.
   * @param maxMessage bytes of the largest message.
   */
  constructor(max: number, maxMessage: number) {
    this.#max = max;
    this.#maxMessage = maxMessage;
  }

  get used(): number {
    return this.#used;
  }

  /** Requests under way. */
  get requests(): number {
    return this.#requests;
  }

  /** One has ended. */
  close(): void {
    this.#requests -= 1;
  }

  /** Counts for one request. @param encoding how its body is compressed, if it is. */
  open(encoding: string | undefined): Reservation {
    this.#requests += 1;
    return new Reservation(this, encoding === 'identity' ? undefined : encoding);
  }

  /** Takes so many bytes, or gives them back; false where there are not as many. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.#max) return false;
    this.#used += bytes;
    return true;
  }

  /** What so many bytes may unfold to that are compressed so. */
  unfolded(bytes: number, encoding: string): number {
    return encoding === 'br' ? this.#maxMessage : Math.min(bytes * DEFLATE_RATIO, this.#maxMessage);
  }
}

/** What one request holds until it has ended. */
export class Reservation {
  readonly #budget: ByteBudget;
  readonly #encoding: string | undefined;
  #received = 0;
  #held = 0;
  #released = false;

  /** @param encoding how its body is compressed; undefined where it is not. */
  constructor(budget: ByteBudget, encoding: string | undefined) {
    this.#budget = budget;
    this.#encoding = encoding;
  }

  /**
   * Counts bytes that have arrived, and what they may unfold to.
   *
   * @throws RESOURCE_EXHAUSTED with RetryInfo when there is no room for them.
   */
  add(bytes: number): void {
    if (this.#released) return;
    this.#received += bytes;
    const unfolded = this.#encoding === undefined ? 0 : this.#budget.unfolded(this.#received, this.#encoding);
    const held = this.#received + unfolded;
    if (!this.#budget.take(held - this.#held)) {
      throw refuse('REQUEST_BYTES_EXHAUSTED', 'the requests under way hold as many bytes as they may');
    }
    this.#held = held;
  }

  release(): void {
    if (!this.#released) this.#budget.close();
    this.#released = true;
    this.#budget.take(-this.#held);
    this.#held = 0;
  }
}
