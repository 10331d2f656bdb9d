import { Code, RpcError, refuse } from '../contract/errors.ts';
import type { Concluded, Connection } from '../database/connection.ts';
import { type CallScope, type Session, type StreamingSession, TransactionSession } from '../database/session.ts';
import { EitherSignal, Ending, type Signal } from '../database/signal.ts';
import { commitUnknown } from '../database/sqlstate.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import { orUnknown } from './commit-grace.ts';
import { abortedError, type EndCause, endedError, type TransactionState } from './ended.ts';
import { NumberedCalls } from './numbered-calls.ts';
import { evidenceOf, type OutcomeKey, preparedEvidenceOf } from './outcomes.ts';
import { preparedName, roomForPrepared } from './prepared.ts';
import type { TransactionRegistry } from './registry.ts';
import { Turns } from './turns.ts';

/** What a caller asks for when it begins a transaction. */
export interface BeginOptions extends TransactionMode {
  readonly caller: string;
  readonly label: string;
  /** Milliseconds; undefined takes the configured default, `none` has no idle lease. */
  readonly idleLeaseMs: number | 'none' | undefined;
  /** Milliseconds; undefined takes the configured default. */
  readonly totalLeaseMs: number | undefined;
  /** True where a stream ties it to its caller, who then has heard of it. */
  readonly held: boolean;
}

/** Configured bounds. */
export interface TransactionLimits {
  readonly idleLeaseMs: number;
  readonly idleLeaseMaxMs: number;
  /** Longest idle lease before the first use: the answer to its beginning may have been lost. */
  readonly firstUseMs: number;
  readonly totalLeaseMs: number;
  readonly totalLeaseMaxMs: number;
  /** Calls that may wait inside one transaction. */
  readonly queue: number;
}

/** Told when the reaper or a lost connection ends a transaction that its caller did not end. */
export type EndedReport = (transaction: Transaction, how: string) => void;

/** One open transaction: a connection, a lease, and the calls that use it one at a time. */
export class Transaction {
  readonly id: string;
  readonly caller: string;
  readonly label: string;
  readonly mode: TransactionMode;
  readonly idleLeaseMs: number;
  readonly totalLeaseMs: number;
  readonly beganAt = Date.now();
  readonly #connection: Connection;
  readonly #registry: TransactionRegistry;
  readonly #key: OutcomeKey | undefined;
  readonly #savepoints: string[] = [];
  readonly #numbered = new NumberedCalls();
  readonly #turns: Turns;
  #unused: boolean;
  /** True where a stream holds it, which reads ahead. */
  readonly #held: boolean;
  #idleTimer: NodeJS.Timeout | undefined;
  readonly #totalTimer: NodeJS.Timeout;
  readonly #expiry = new Ending();
  #settle: (() => void) | undefined;
  /** Settles when the transaction has ended, however it did. */
  readonly ended: Promise<void> = new Promise((resolve) => {
    this.#settle = resolve;
  });
  state: TransactionState = 'open';
  /** True when its commit left evidence in the database. */
  wrote = false;
  lastUsedAt = Date.now();
  lastMethod = '';
  calls = 0;

  constructor(
    registry: TransactionRegistry,
    connection: Connection,
    { id, key }: { readonly id: string; readonly key: OutcomeKey | undefined },
    options: BeginOptions,
  ) {
    const { limits } = registry;
    this.#registry = registry;
    this.#connection = connection;
    this.#key = key;
    this.id = id;
    this.caller = options.caller;
    this.label = options.label;
    this.mode = options;
    this.#held = options.held;
    this.#unused = !this.#held;
    this.totalLeaseMs = Math.min(options.totalLeaseMs ?? limits.totalLeaseMs, limits.totalLeaseMaxMs);
    this.idleLeaseMs =
      options.idleLeaseMs === 'none'
        ? this.totalLeaseMs
        : Math.min(options.idleLeaseMs ?? limits.idleLeaseMs, limits.idleLeaseMaxMs);
    this.#turns = new Turns(limits.queue, () => this.state === 'open' && this.#rest());
    this.#totalTimer = setTimeout(
      () => this.#expire('total_lease', `open for ${this.totalLeaseMs} ms`),
      this.totalLeaseMs,
    );
    connection.onLost = () => this.#onLost();
    this.#rest();
  }

  /** True when a statement has failed, so that only a rollback can follow. */
  get failed(): boolean {
    return this.#connection.aborted;
  }

  /** A commit under way finds out by itself. */
  #onLost(): void {
    if (this.state === 'open') this.#finish('lost', 'its database connection was lost');
  }

  /** Calls waiting for their turn. */
  get waiting(): number {
    return this.#turns.waiting;
  }

  /** True while a call has its turn. */
  get running(): boolean {
    return this.#turns.running;
  }

  /** The idle lease as it runs now, milliseconds: shorter until the first use, unless a stream holds the transaction. */
  get leaseMs(): number {
    return this.#unused ? Math.min(this.idleLeaseMs, this.#registry.limits.firstUseMs) : this.idleLeaseMs;
  }

  #rest(): void {
    this.#stayAwake();
    this.lastUsedAt = Date.now();
    clearTimeout(this.#idleTimer);
    const { leaseMs } = this;
    this.#idleTimer = setTimeout(() => this.#expire('idle_lease', `idle for ${leaseMs} ms`), leaseMs);
  }

  #stayAwake(): void {
    if (!this.#held) this.#registry.stayAwake();
  }

  /** Ends an overdue transaction: whatever it runs is stopped and rolled back. A commit under way wins. */
  #expire(cause: 'idle_lease' | 'total_lease', how: string): void {
    if (this.state !== 'open') return;
    this.state = 'expired';
    this.#registry.forget(this, 'expired', how, cause);
    this.#registry.report(this, how);
    this.#expiry.abort(endedError({ caller: this.caller, state: 'expired', how, endedAt: Date.now() }));
    this.#turns.afterwards(() => this.#rollBack());
  }

  /** Takes a turn; a full queue keeps nobody out who is `expected`. */
  #turn<T>(signal: Signal | undefined, work: () => Promise<T>, expected = false): Promise<T> {
    const begin = (): Promise<T> => {
      this.#assertOpen();
      return work();
    };
    const turn = this.#turns.take(signal, begin, expected);
    this.#stayAwake();
    this.#unused = false;
    clearTimeout(this.#idleTimer);
    return turn;
  }

  #assertOpen(): void {
    if (this.state === 'committing') {
      throw refuse('COMMIT_OUTCOME_UNKNOWN', 'its commit is under way; ask GetOutcome whether it takes effect');
    }
    if (this.state !== 'open') throw this.#registry.endedOf(this.id, this.caller);
  }

  /** The call's statements end with the transaction, too. */
  #scope({ signal, notes }: CallScope): CallScope {
    return { signal: signal ? new EitherSignal(signal, this.#expiry) : this.#expiry, notes };
  }

  async #noting<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      // Whatever the call has made of it: the connection knows best.
      if (this.#connection.lost && this.state === 'open') this.#onLost();
      throw error;
    }
  }

  /** Runs one call's statements. A failed statement aborts the transaction until a rollback to a savepoint. */
  run<T>(method: string, call: CallScope, work: (db: Session) => Promise<T>): Promise<T> {
    return this.#turn(call.signal, () => {
      if (this.failed) throw abortedError();
      this.lastMethod = method;
      this.calls += 1;
      const scope = this.#scope(call);
      return this.#noting(() => work(new TransactionSession(this.#connection, scope)));
    });
  }

  /** Runs a streaming call: each batch of rows takes its own turn, so other calls run between them. */
  async *stream<T>(
    method: string,
    call: CallScope,
    work: (db: StreamingSession) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    this.#assertOpen();
    this.lastMethod = method;
    this.calls += 1;
    // Once it has begun no full queue keeps it from its next rows, nor from its end.
    let begun = false;
    const exclusive = <R>(step: () => Promise<R>, tidies = false): Promise<R> => {
      const turn = this.#turn(
        tidies ? undefined : call.signal,
        () => {
          if (this.failed) throw abortedError();
          return this.#noting(step);
        },
        begun,
      );
      begun = true;
      return turn;
    };
    yield* work(new TransactionSession(this.#connection, this.#scope(call), exclusive));
  }

  /**
   * Runs a call under a sequence number once: a retry with the same number and the same request gets the first answer.
   *
   * @param digest identifies method and request.
   */
  once(sequence: bigint, digest: string, work: () => Promise<Uint8Array>): Promise<Uint8Array> {
    return this.#numbered.once(sequence, digest, work, (error) => {
      const isFull = error instanceof RpcError && error.code === Code.RESOURCE_EXHAUSTED;
      return isFull || this.#turns.hasLeft(error);
    });
  }

  /** Sets a savepoint; the same name may be set again and then hides the earlier one. */
  savepoint(name: string, signal: Signal | undefined): Promise<void> {
    return this.#turn(signal, async () => {
      if (this.failed) throw abortedError();
      this.lastMethod = 'TransactionService/Savepoint';
      await this.#noting(() => this.#connection.command(`savepoint "u_${name}"`));
      this.#savepoints.push(name);
    });
  }

  /** Undoes everything since the savepoint, which stays; heals an aborted transaction. */
  rollBackTo(name: string, signal: Signal | undefined): Promise<void> {
    return this.#turn(
      signal,
      async () => {
        this.lastMethod = 'TransactionService/RollbackToSavepoint';
        const index = this.#indexOf(name);
        await this.#noting(() => this.#connection.command(`rollback to savepoint "u_${name}"`));
        this.#savepoints.length = index + 1;
      },
      true,
    );
  }

  /** Forgets the savepoint and those set after it; keeps what was done. */
  release(name: string, signal: Signal | undefined): Promise<void> {
    return this.#turn(signal, async () => {
      if (this.failed) throw abortedError();
      this.lastMethod = 'TransactionService/ReleaseSavepoint';
      const index = this.#indexOf(name);
      await this.#noting(() => this.#connection.command(`release savepoint "u_${name}"`));
      this.#savepoints.length = index;
    });
  }

  #indexOf(name: string): number {
    const index = this.#savepoints.lastIndexOf(name);
    if (index !== -1) return index;
    throw refuse('SAVEPOINT_UNKNOWN', `this transaction has no savepoint ${name}`);
  }

  /**
   * Commits. Answers only for a commit: an aborted transaction is rolled back and says so, a lost answer is UNAVAILABLE
   * with the advice to ask GetOutcome. Once begun it is not cancelled, and its caller does not wait for it for ever.
   */
  commit(call: CallScope): Promise<void> {
    return this.#conclude(call, 'committed', 'commit', () =>
      this.#connection.commit(this.#key && evidenceOf(this.#key)),
    );
  }

  /**
   * Prepares it, and leaves its end to whoever commits or rolls back what is prepared. It stays open where the database can
   * take no prepared transaction, or it is read-only.
   */
  async prepare(leaseMs: number | undefined, call: CallScope): Promise<number> {
    const key = this.#key;
    if (!key) throw refuse('READ_ONLY_TRANSACTION', 'a read-only transaction has nothing to prepare');
    const { limits } = this.#registry;
    const grantedMs = Math.min(leaseMs ?? limits.totalLeaseMs, limits.totalLeaseMaxMs);
    await this.#turn(call.signal, () =>
      this.failed ? Promise.resolve() : this.#noting(() => roomForPrepared(this.#connection, call.signal)),
    );
    await this.#conclude(call, 'prepared', 'prepare', () =>
      this.#connection.prepare(preparedName(this.id, grantedMs), preparedEvidenceOf(key)),
    );
    return grantedMs;
  }

  #conclude(
    call: CallScope,
    state: 'committed' | 'prepared',
    how: string,
    ask: () => Promise<Concluded>,
  ): Promise<void> {
    return this.#turn(
      call.signal,
      async () => {
        if (this.failed) {
          await this.#end('rolled back', `${how} of an aborted transaction`);
          throw refuse(
            'TRANSACTION_ABORTED',
            'an earlier statement of this transaction failed; it has been rolled back',
          );
        }
        this.state = 'committing';
        await orUnknown(this.#concluded(call, state, how, ask), call.signal);
      },
      true,
    );
  }

  async #concluded(
    { notes }: CallScope,
    state: 'committed' | 'prepared',
    how: string,
    ask: () => Promise<Concluded>,
  ): Promise<void> {
    try {
      const { committed, evident } = await ask();
      this.wrote = evident;
      if (!committed) {
        this.#finish('rolled back', `the database rolled it back at ${how}`);
        throw abortedError();
      }
      if (state === 'committed') notes.mark = this.#connection.mark;
      this.#finish(state, how);
    } catch (error) {
      if (this.#connection.lost) {
        this.#finish('unknown', `the connection was lost during ${how}`);
        throw commitUnknown(error);
      }
      if (error instanceof RpcError && error.reason === 'COMMIT_OUTCOME_UNKNOWN') {
        this.#finish('unknown', `the wait for a standby was ended at ${how}`);
        throw error;
      }
      await this.#connection.rollback();
      this.#finish('rolled back', `the ${how} failed`);
      throw error;
    }
  }

  /** Rolls back, after the calls that are under way. */
  rollback(how: string): Promise<void> {
    return this.#turn(undefined, () => this.#end('rolled back', how), true);
  }

  /** Ends it at once on the server's own account: what is running is stopped, waiting calls are refused. */
  abandon(cause: EndCause, how: string): Promise<void> {
    if (this.state !== 'open') return this.ended;
    this.state = 'rolled back';
    this.#registry.forget(this, 'rolled back', how, cause);
    this.#expiry.abort(endedError({ caller: this.caller, state: 'rolled back', how, endedAt: Date.now() }));
    this.#turns.afterwards(() => this.#rollBack());
    return this.ended;
  }

  async #end(state: TransactionState, how: string): Promise<void> {
    this.state = state;
    this.#registry.forget(this, state, how);
    await this.#rollBack();
  }

  async #rollBack(): Promise<void> {
    await this.#connection.rollback();
    this.#cleanUp();
  }

  /** Notes an end that PostgreSQL has already decided. */
  #finish(state: TransactionState, how: string): void {
    if (this.#settle === undefined) return;
    const wasOpen = this.state === 'open' || this.state === 'committing';
    this.state = wasOpen ? state : this.state;
    if (wasOpen) this.#registry.forget(this, state, how);
    if (state === 'lost' && wasOpen) this.#registry.report(this, how);
    this.#cleanUp();
  }

  #cleanUp(): void {
    if (this.#settle === undefined) return;
    clearTimeout(this.#idleTimer);
    clearTimeout(this.#totalTimer);
    this.#numbered.clear();
    this.#connection.release();
    this.#settle();
    this.#settle = undefined;
  }
}
