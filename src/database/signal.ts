/** Tells that a call is over before its work is: what an AbortSignal has of that, without what makes one costly. */
export interface Signal {
  readonly aborted: boolean;
  /** The error to answer with, once it is over. */
  readonly reason: unknown;
  throwIfAborted(): void;
  addEventListener(type: 'abort', listener: () => void): void;
  removeEventListener(type: 'abort', listener: () => void): void;
}

/** One way to end a call that other parts of it listen to. */
export class Ending implements Signal {
  /** Made when somebody listens. */
  #listeners: Set<() => void> | undefined;
  aborted = false;
  reason: unknown;

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners ??= new Set();
    this.#listeners.add(listener);
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners?.delete(listener);
  }

  /** Ends it; the first reason counts. */
  abort(reason: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    for (const listener of this.#listeners ?? []) listener();
    this.#listeners = undefined;
  }
}

/** An AbortSignal that fires with another signal. */
export const abortSignalOf = (signal: Signal): AbortSignal => {
  if (signal instanceof AbortSignal) return signal;
  const controller = new AbortController();
  if (signal.aborted) controller.abort(signal.reason);
  else signal.addEventListener('abort', () => controller.abort(signal.reason));
  return controller.signal;
};

/** Fires with the first of two signals. */
export class EitherSignal implements Signal {
  readonly #signals: readonly Signal[];

  constructor(...signals: readonly Signal[]) {
    this.#signals = signals;
  }

  get aborted(): boolean {
    return this.#signals.some(({ aborted }) => aborted);
  }

  get reason(): unknown {
    return this.#signals.find(({ aborted }) => aborted)?.reason;
  }

  throwIfAborted(): void {
    for (const signal of this.#signals) signal.throwIfAborted();
  }

  addEventListener(type: 'abort', listener: () => void): void {
    for (const signal of this.#signals) signal.addEventListener(type, listener);
  }

  removeEventListener(type: 'abort', listener: () => void): void {
    for (const signal of this.#signals) signal.removeEventListener(type, listener);
  }
}

/** The call has ended before what it waited for. */
export const LEFT = Symbol('left');

/** What is waited for and cannot fail, or {@link LEFT} where the signal fires before. */
export const earlier = <T>(awaited: Promise<T>, signal: Signal): Promise<T | typeof LEFT> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve(LEFT);
    const onAbort = (): void => resolve(LEFT);
    signal.addEventListener('abort', onAbort);
    void awaited.then((value) => {
      signal.removeEventListener('abort', onAbort);
      resolve(value);
    });
  });

/** Settles when one of the signals fires, or with what is waited for besides; none of them is listened to after that. */
export const untilAborted = async (signals: readonly Signal[], awaited?: Promise<unknown>): Promise<void> => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onAbort = (): void => resolve();
  for (const signal of signals) {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', onAbort);
  }
  void awaited?.then(onAbort);
  await promise;
  for (const signal of signals) signal.removeEventListener('abort', onAbort);
};
