import { type RpcError, refuse } from '../contract/errors.ts';
import { type Due, Overdue } from '../database/overdue.ts';
import { Ending } from '../database/signal.ts';

/** Why a call ended early. */
export const deadlineExceeded = (): RpcError => refuse('DEADLINE_EXCEEDED', 'the deadline of the call passed');

/** Why a call ended early. */
export const cancelled = (): RpcError => refuse('CANCELLED', 'the caller cancelled the call');

/** How much sooner than here a deadline may pass for the caller, whose clock began before its request arrived. */
const SKEW_MS = 100;

/** The longest delay that a Node timer keeps. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** How often calls without a deadline are looked at that may have taken too long, milliseconds. */
const LOOK_MS = 100;

/** Calls under way that set no deadline. */
const undated = new Overdue(LOOK_MS);

/** Ends a call at its deadline or when its caller leaves; its reason is the error to answer with. */
export class CallEnd extends Ending {
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #due: Due | undefined;
  readonly #endsAt: number;
  readonly #onDeadline = (): void => this.abort(deadlineExceeded());
  #over = false;

  /**
   * @param deadlineMs time until the deadline; undefined or infinite where there is none.
   * @param longestMs how long the call may take then.
   */
  constructor(deadlineMs: number | undefined, longestMs: number) {
    super();
    const isDated = deadlineMs !== undefined && Number.isFinite(deadlineMs);
    const remainingMs = isDated ? deadlineMs : longestMs;
    this.#endsAt = performance.now() + remainingMs;
    if (!isDated) this.#due = undated.watch(this.#onDeadline, this.#endsAt);
    else if (remainingMs <= MAX_TIMER_MS) {
      this.#timer = setTimeout(this.#onDeadline, Math.max(0, remainingMs));
    }
  }

  /** The caller has left: of its own accord, or because its deadline has passed. */
  leave(): void {
    // A listener says so of every call in the end.
    if (this.#over) return;
    const late = this.#endsAt - performance.now() <= SKEW_MS;
    this.abort(late ? deadlineExceeded() : cancelled());
  }

  /** The call is over; nothing fires any more. */
  done(): void {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#due?.leave();
  }
}
