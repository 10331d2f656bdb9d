import { Code, RpcError } from '../database/errors.ts';

/** Why a call ended early. */
const deadlineExceeded = (): RpcError =>
  new RpcError(Code.DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED', 'the deadline of the call passed');

/** Why a call ended early. */
const cancelled = (): RpcError => new RpcError(Code.CANCELLED, 'CANCELLED', 'the caller cancelled the call');

/** The longest delay that a Node timer keeps. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Ends a call at its deadline or when its caller leaves; the signal's reason is the error to answer with. */
export class CallEnd {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;

  /** @param remainingMs time until the deadline; left out where there is none, or somebody else watches it. */
  constructor(remainingMs = Number.POSITIVE_INFINITY) {
    if (remainingMs <= MAX_TIMER_MS) this.#timer = setTimeout(() => this.expire(), Math.max(0, remainingMs));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The deadline has passed. */
  expire(): void {
    this.#controller.abort(deadlineExceeded());
  }

  /** The caller has left. */
  leave(): void {
    this.#controller.abort(cancelled());
  }

  /** The call is over; nothing fires any more. */
  done(): void {
    clearTimeout(this.#timer);
  }
}
