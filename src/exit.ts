import { setTimeout as sleep } from 'node:timers/promises';

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/** npm passes a Ctrl-C on to a process that the terminal has signalled already: so close together is no second wish. */
const ECHO_MS = 1_000;

/** What a process gets, beyond the time it may drain, to close what it has open; its end included. */
const CLOSE_MS = 800;

/** Work of libuv's threads: the end of a process waits for it, however long that takes. */
const THREAD_WORK = /^(FSReq|GetAddrInfoReq|GetNameInfoReq)/;

const isHeld = (): boolean => process.getActiveResourcesInfo().some((name) => THREAD_WORK.test(name));

/** Exit codes, for scripts to tell apart; 130 is a second signal. */
export const EXIT = {
  done: 0,
  /** Asked, and the answer is no; or the program itself is at fault. */
  no: 1,
  misuse: 2,
  unreachable: 3,
  olderSchema: 4,
  address: 5,
  /** Something in the database is in a migration's way. */
  obstacle: 6,
} as const;

/** The one way out of this process: by itself, by a signal, or, when neither comes to an end, by the clock. */
export class Exit {
  readonly #beforeCut: () => void;
  readonly #requested = Promise.withResolvers<void>();
  #signal: NodeJS.Signals | undefined;
  #at = 0;
  #drainMs = 0;

  /** @param beforeCut what is still done when the process is cut off; must not wait. */
  constructor(beforeCut: () => void) {
    this.#beforeCut = beforeCut;
  }

  /** Settles at the first SIGTERM, SIGINT or SIGHUP, or request. */
  get requested(): Promise<void> {
    return this.#requested.promise;
  }

  /**
   * From now on the first signal is a wish, and whatever has not ended its drain time and a second later is cut off; a later
   * signal is from somebody who will not wait.
   */
  onSignal(drainMs: number): void {
    this.#drainMs = drainMs;
    for (const name of SIGNALS) process.on(name, (signal) => this.#received(signal));
  }

  /** The wish of a signal, from within. */
  request(signal: NodeJS.Signals = 'SIGTERM'): void {
    if (this.#signal !== undefined) return;
    this.#signal = signal;
    this.#at = performance.now();
    setTimeout(() => this.#cut(1), this.#drainMs + CLOSE_MS);
    this.#requested.resolve();
  }

  /** Ends the process with that code. */
  async leave(code: number): Promise<never> {
    // Looking up a name can take longer than anybody has given this process.
    while (this.#signal !== undefined && isHeld()) await sleep(10);
    process.exit(code);
  }

  #received(signal: NodeJS.Signals): void {
    if (this.#signal === undefined) this.request(signal);
    else if (performance.now() - this.#at > ECHO_MS) this.#cut(130);
  }

  #cut(code: number): never {
    this.#beforeCut();
    if (this.#signal !== undefined && isHeld()) {
      // `exit` would wait; the signal as it is meant for a program that does not know it does not.
      process.removeAllListeners(this.#signal);
      process.kill(process.pid, this.#signal);
    }
    process.exit(code);
  }
}
