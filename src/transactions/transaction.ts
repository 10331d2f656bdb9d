import { Code, RpcError, refuse } from '../contract/errors.ts';
import type { Concluded, Connection, TransactionMode } from '../database/connection.ts';
import { type CallScope, type Session, type StreamingSession, TransactionSession } from '../database/session.ts';
import { EitherSignal, Ending, earlier, type Signal } from '../database/signal.ts';
import { commitUnknown } from '../database/sqlstate.ts';
import { orUnknown } from './commit-grace.ts';
import { abortedError, endedError, type TransactionState } from './ended.ts';
import { evidenceOf, type OutcomeKey, preparedEvidenceOf } from './outcomes.ts';
import { preparedName, roomForPrepared } from './prepared.ts';
import type { TransactionRegistry } from './registry.ts';

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

const SEQUENCE_MEMORY = 1_024;
const SEQUENCE_BYTES = 8 * 1024 * 1024;

interface Remembered {
  readonly digest: string;
  readonly answer: Promise<Uint8Array>;
  bytes: number;
}

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
  readonly #sequence = new Map<bigint, Remembered>();
  #sequenceBytes = 0;
  #sequenceForgotten = 0n;
  /** Why calls have ended that had not begun. */
  readonly #unstarted = new WeakSet<object>();
  #unused: boolean;
  /** True where a stream holds it, which reads ahead. */
  readonly #held: boolean;
  #tail: Promise<unknown> = Promise.resolve();
  #waiting = 0;
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
  running = false;

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
    this.#totalTimer = setTimeout(() => this.#expire(`open for ${this.totalLeaseMs} ms`), this.totalLeaseMs);
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
    return this.#waiting;
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
    this.#idleTimer = setTimeout(() => this.#expire(`idle for ${leaseMs} ms`), leaseMs);
  }

  #stayAwake(): void {
    if (!this.#held) this.#registry.stayAwake();
  }

  /** Ends an overdue transaction: whatever it runs is stopped and rolled back. A commit under way wins. */
  #expire(how: string): void {
    if (this.state !== 'open') return;
    this.state = 'expired';
    this.#registry.forget(this, 'expired', how);
    this.#registry.report(this, how);
    this.#expiry.abort(endedError({ caller: this.caller, state: 'expired', how, endedAt: Date.now() }));
    void this.#tail.then(() => this.#rollBack());
  }

  /** Takes a turn: calls run in arrival order, one at a time. A full queue keeps nobody out who is `expected`. */
  #turn<T>(signal: Signal | undefined, work: () => Promise<T>, expected = false): Promise<T> {
    if (!expected && this.#waiting >= this.#registry.limits.queue) {
      throw refuse('TRANSACTION_QUEUE_FULL', 'too many calls wait inside this transaction');
    }
    this.#stayAwake();
    this.#waiting += 1;
    this.#unused = false;
    clearTimeout(this.#idleTimer);
    const before = this.#tail;
    const mustWait = signal && (this.running || this.#waiting > 1);
    let hasLeft = false;
    const turn = (async () => {
      await (mustWait ? earlier(before, signal) : before);
      this.#waiting -= 1;
      if (signal?.aborted) {
        hasLeft = true;
        this.#unstarted.add(signal.reason as object);
        throw signal.reason;
      }
      this.#assertOpen();
      this.running = true;
      try {
        return await work();
      } finally {
        this.running = false;
      }
    })();
    const settled = turn.then(
      () => {},
      // Whoever comes after one who has left waits for those before.
      () => (hasLeft ? before : undefined),
    );
    this.#tail = settled.then(() => {
      if (this.state === 'open' && this.#waiting === 0) this.#rest();
    });
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
    const exclusive = <R>(step: () => Promise<R>): Promise<R> => {
      const turn = this.#turn(
        call.signal,
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
    const known = this.#sequence.get(sequence);
    if (known) {
      if (known.digest === digest) return known.answer;
      throw refuse('SEQUENCE_REUSED', `sequence number ${sequence} of this transaction belongs to another request`);
    }
    if (sequence <= this.#sequenceForgotten) {
      throw refuse('SEQUENCE_FORGOTTEN', `the answer to sequence number ${sequence} is no longer kept`);
    }
    const remembered: Remembered = { digest, answer: work(), bytes: 0 };
    this.#sequence.set(sequence, remembered);
    remembered.answer.then(
      (answer) => {
        remembered.bytes = answer.length;
        this.#sequenceBytes += answer.length;
        this.#trimSequence();
      },
      (error: unknown) => {
        // A refusal that ran nothing may be tried again under the same number.
        const ranNothing = error instanceof RpcError && error.code === Code.RESOURCE_EXHAUSTED;
        if (ranNothing || this.#unstarted.has(error as object)) this.#sequence.delete(sequence);
      },
    );
    return remembered.answer;
  }

  #trimSequence(): void {
    for (const [sequence, { bytes }] of this.#sequence) {
      if (this.#sequence.size <= SEQUENCE_MEMORY && this.#sequenceBytes <= SEQUENCE_BYTES) return;
      this.#sequence.delete(sequence);
      this.#sequenceBytes -= bytes;
      if (sequence > this.#sequenceForgotten) this.#sequenceForgotten = sequence;
    }
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
  abandon(how: string): Promise<void> {
    if (this.state !== 'open') return this.ended;
    this.state = 'rolled back';
    this.#registry.forget(this, 'rolled back', how);
    this.#expiry.abort(endedError({ caller: this.caller, state: 'rolled back', how, endedAt: Date.now() }));
    void this.#tail.then(() => this.#rollBack());
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
    this.#sequence.clear();
    this.#connection.release();
    this.#settle();
    this.#settle = undefined;
  }
}
