import { Code, RpcError, refuse } from '../contract/errors.ts';
import type { Concluded, Connection } from '../database/connection.ts';
import { type CallScope, type Session, type StreamingSession, TransactionSession } from '../database/session.ts';
import { EitherSignal, Ending, type Signal } from '../database/signal.ts';
import { commitUnknown } from '../database/sqlstate.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import { orUnknown } from './commit-grace.ts';
import { abortedError, type EndCause, endedError, type TransactionState } from './ended.ts';
import { Lease } from './lease.ts';
import { NumberedCalls } from './numbered-calls.ts';
import { evidenceOf, type OutcomeKey, preparedEvidenceOf } from './outcomes.ts';
import { preparedName, roomForPrepared } from './prepared.ts';
import type { BeginOptions, TransactionRegistry } from './registry.ts';
import { Savepoints } from './savepoints.ts';
import { Turns } from './turns.ts';

/** One open transaction: a connection, a lease, and the calls that use it one at a time. */
export class Transaction {
  readonly id: string;
  readonly caller: string;
  readonly label: string;
  readonly mode: TransactionMode;
  readonly beganAt = Date.now();
  readonly lease: Lease;
  readonly #connection: Connection;
  readonly #registry: TransactionRegistry;
  readonly #key: OutcomeKey | undefined;
  readonly #savepoints: Savepoints;
  readonly #numbered = new NumberedCalls();
  readonly #turns: Turns;
  /** True where a stream holds it, which reads ahead. */
  readonly #held: boolean;
  readonly #expiry = new Ending();
  #settle: (() => void) | undefined;
  /** Settles when the transaction has ended, however it did. */
  readonly ended: Promise<void> = new Promise((resolve) => {
    this.#settle = resolve;
  });
  state: TransactionState = 'open';
  /** True when its commit left evidence in the database. */
  wrote = false;
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
    this.#savepoints = new Savepoints(connection);
    this.#key = key;
    this.id = id;
    this.caller = options.caller;
    this.label = options.label;
    this.mode = options;
    this.#held = options.held;
    this.lease = new Lease(options, limits, (cause, how) => this.#expire(cause, how));
    this.#turns = new Turns(limits.queue, () => this.state === 'open' && this.#rest());
    connection.onLost = () => this.#onLost();
    this.#stayAwake();
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

  #rest(): void {
    this.#stayAwake();
    this.lease.rest();
  }

  #stayAwake(): void {
    if (!this.#held) this.#registry.stayAwake();
  }

  /** Ends an overdue transaction. A commit under way wins. */
  #expire(cause: EndCause, how: string): void {
    if (this.state !== 'open') return;
    this.#cutShort('expired', cause, how);
    this.#registry.report(this, how);
  }

  /** Whatever it runs is stopped and rolled back, and who waits is refused. */
  #cutShort(state: 'expired' | 'rolled back', cause: EndCause, how: string): void {
    this.state = state;
    this.#registry.forget(this, state, how, cause);
    this.#expiry.abort(endedError({ caller: this.caller, state, how, endedAt: Date.now() }));
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
    this.lease.use();
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
    return this.#turn(signal, () => {
      if (this.failed) throw abortedError();
      return this.#of('Savepoint', this.#savepoints.set(name));
    });
  }

  /** Undoes everything since the savepoint, which stays; heals an aborted transaction. */
  rollBackTo(name: string, signal: Signal | undefined): Promise<void> {
    const undo = (): Promise<void> => this.#of('RollbackToSavepoint', this.#savepoints.rollBackTo(name));
    return this.#turn(signal, undo, true);
  }

  /** Forgets the savepoint and those set after it; keeps what was done. */
  release(name: string, signal: Signal | undefined): Promise<void> {
    return this.#turn(signal, () => {
      if (this.failed) throw abortedError();
      return this.#of('ReleaseSavepoint', this.#savepoints.release(name));
    });
  }

  #of(rpc: string, running: Promise<void>): Promise<void> {
    this.lastMethod = `TransactionService/${rpc}`;
    return this.#noting(() => running);
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
    this.#cutShort('rolled back', cause, how);
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
    this.lease.end();
    this.#numbered.clear();
    this.#connection.release();
    this.#settle();
    this.#settle = undefined;
  }
}
