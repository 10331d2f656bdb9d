import type pg from 'pg';
import { RpcError } from '../contract/errors.ts';
import { CANCEL_MS, type Client } from './client.ts';
import type { Ended } from './observer.ts';
import type { Due } from './overdue.ts';
import type { ServerState } from './server-state.ts';
import type { Signal } from './signal.ts';
import { databaseUnavailable, statementTimeout } from './sqlstate.ts';
import type { Statement } from './statement.ts';
import type { Done, Outcome } from './wire.ts';

/** How long a statement may keep those behind it waiting, and how long it goes alone after that, milliseconds. */
const PATIENCE_MS = 100;
const ALONE_MS = 5_000;

/** Makes of an error what it is, from outcomes of what succeeded and whether the server had begun with any of it. */
export type Judge = (error: Error, outcomes: readonly Outcome[], begun: boolean) => Error;

/** What is asked, and how. */
export interface Asked {
  readonly what: Statement<unknown> | string;
  readonly signal: Signal | undefined;
  /** How long it may take, milliseconds, once the server has nothing before it. */
  readonly limitMs: number;
  /** True where a request to stop it would do harm: then its connection is left. */
  readonly isFinal: boolean;
  /** True where others use the backend, too: some are before it, some behind. */
  readonly isShared: boolean;
  /** What an error is where it says more of this than of others, given what the server has done. */
  readonly judge: Judge | undefined;
  /** What an error is to the caller. */
  readonly explain: (error: Error, tookMs: number) => unknown;
}

/** Something that is asked of a backend, and whatever may end the wait for its answer. */
export class Question {
  readonly #client: Client;
  readonly #server: ServerState;
  readonly #asked: Asked;
  readonly #began = performance.now();
  #told: Ended | undefined;
  #due: Due | undefined;
  #resolve!: (outcomes: readonly Outcome[]) => void;
  #reject!: (error: unknown) => void;
  #cancels = 0;
  #isLate = false;
  #isAnswered = false;
  #hasLeft = false;
  #stopping: Promise<boolean> | undefined;
  #patience: NodeJS.Timeout | undefined;
  #onAnswered: (() => void) | undefined;

  /** True when others have kept it from being answered. */
  displaced = false;

  constructor(client: Client, server: ServerState, asked: Asked) {
    this.#client = client;
    this.#server = server;
    this.#asked = asked;
  }

  /** Asks it. */
  ask(send: (done: Done) => void): Promise<readonly Outcome[]> {
    return new Promise((resolve, reject) => {
      const { what, signal, limitMs, isShared } = this.#asked;
      if (this.#client.lost) throw databaseUnavailable(this.#client.lost);
      signal?.throwIfAborted();
      this.#resolve = resolve;
      this.#reject = reject;
      const { overdue, observer } = this.#server;
      this.#told = observer?.sent(what);
      this.#cancels = this.#client.cancels;
      this.#due = isShared
        ? overdue.watch(this.#onWaiting, this.#began + PATIENCE_MS)
        : overdue.watch(this.#onOverdue, this.#began + limitMs);
      signal?.addEventListener('abort', this.#stop);
      send(this.#done);
    });
  }

  /** Waits for an answer that its caller did not wait for; not for long. @param then told whether it has come. */
  settle(then: (answered: boolean) => void): void {
    if (this.#isAnswered || !this.#hasLeft) {
      then(true);
      return;
    }
    const clock = setTimeout(() => {
      this.#onAnswered = undefined;
      then(false);
    }, CANCEL_MS);
    this.#onAnswered = () => {
      clearTimeout(clock);
      then(true);
    };
  }

  readonly #done: Done = (failure, outcomes, begun) => {
    this.#isAnswered = true;
    const { judge } = this.#asked;
    const error = failure && judge ? judge(failure, outcomes, begun) : failure;
    if (this.#hasLeft) {
      this.#onAnswered?.();
      return;
    }
    this.#told?.(error);
    this.#listenNoMore();
    const settle = (): void => (error ? this.#reject(this.#explained(error)) : this.#resolve(outcomes));
    if (!this.#stopping) {
      settle();
      return;
    }
    clearTimeout(this.#patience);
    void this.#stopping.then((taken) => {
      // The next user of this backend must not be hit by a request that was meant for this statement.
      if (!taken) this.#client.destroy(new Error('a request to stop a statement got no answer'));
      settle();
    });
  };

  readonly #stop = (): void => {
    if (this.#stopping) return;
    if (this.#isBehind) {
      // The server has not begun with it, and a request to stop would hit another.
      this.#leave(this.#asked.signal!.reason);
      return;
    }
    this.#stopping = this.#client.cancel();
    const failed = new Error('a statement could not be stopped');
    this.#patience = setTimeout(() => this.#client.destroy(failed), CANCEL_MS);
  };

  readonly #onOverdue = (): void => {
    const { limitMs, isFinal } = this.#asked;
    const { wire } = this.#client;
    const now = performance.now();
    const since = wire.isNext(this.#done) ? Math.max(this.#began, wire.since) : now;
    if (now < since + limitMs) {
      this.#due = this.#server.overdue.watch(this.#onOverdue, since + limitMs);
      return;
    }
    this.#isLate = true;
    if (isFinal) {
      this.#client.destroy(new Error('a commit was not answered in time'));
      return;
    }
    this.#stop();
  };

  readonly #onWaiting = (): void => {
    // What has arrived meanwhile is read first.
    setImmediate(() => {
      if (this.#isAnswered || this.#hasLeft) return;
      const { what, limitMs } = this.#asked;
      if (this.#isBehind) {
        this.displaced = true;
        this.#leave(new Error('another statement keeps the connection'));
        return;
      }
      if (typeof what === 'object') this.#server.slow.set(what, performance.now() + ALONE_MS);
      this.#due = this.#server.overdue.watch(this.#onOverdue, this.#began + limitMs);
    });
  };

  /** Whether others are before it that have not been answered. */
  get #isBehind(): boolean {
    return this.#asked.isShared && !this.#client.wire.isNext(this.#done);
  }

  /** Lets it run by itself. */
  #leave(reason: unknown): void {
    this.#hasLeft = true;
    this.#told?.(reason);
    this.#listenNoMore();
    this.#reject(reason);
  }

  #listenNoMore(): void {
    this.#due?.leave();
    this.#asked.signal?.removeEventListener('abort', this.#stop);
  }

  #explained(error: Error): unknown {
    const { signal, limitMs, explain } = this.#asked;
    const cancelled = (error as pg.DatabaseError).code === '57014';
    const stopped = cancelled || this.#client.lost !== undefined;
    if (error instanceof RpcError) return error;
    if (signal?.aborted && stopped) return signal.reason;
    if (this.#isLate && stopped) return statementTimeout(limitMs, error);
    // The request to stop was meant for one before it.
    if (cancelled && this.#client.cancels > this.#cancels) this.displaced = true;
    return explain(error, performance.now() - this.#began);
  }
}
