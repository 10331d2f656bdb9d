import { type RpcError, refuse } from '../contract/errors.ts';

/** Why a call ended early. */
export const deadlineExceeded = (): RpcError => refuse('DEADLINE_EXCEEDED', 'the deadline of the call passed');

/** Why a call ended early. */
export const cancelled = (): RpcError => refuse('CANCELLED', 'the caller cancelled the call');

/** How much sooner than here a deadline may pass for the caller, who then leaves because of it. */
const SKEW_MS = 20;

/** The longest delay that a Node timer keeps. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Ends a call at its deadline or when its caller leaves; the signal's reason is the error to answer with. */
export class CallEnd {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #endsAt: number;
  #over = false;

  /**
   * @param deadlineMs time until the deadline; undefined or infinite where there is none.
   * @param longestMs how long the call may take then.
   */
  constructor(deadlineMs: number | undefined, longestMs: number) {
    const remainingMs = deadlineMs !== undefined && Number.isFinite(deadlineMs) ? deadlineMs : longestMs;
    this.#endsAt = performance.now() + remainingMs;
    if (remainingMs <= MAX_TIMER_MS) {
      this.#timer = setTimeout(() => this.#controller.abort(deadlineExceeded()), Math.max(0, remainingMs));
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The caller has left: of its own accord, or because its deadline has passed. */
  leave(): void {
    // A listener says so of every call in the end.
    if (this.#over) return;
    const late = this.#endsAt - performance.now() <= SKEW_MS;
    this.#controller.abort(late ? deadlineExceeded() : cancelled());
  }

  /** The call is over; nothing fires any more. */
  done(): void {
    this.#over = true;
    clearTimeout(this.#timer);
  }
}
