import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import { durationFromMs, durationMs, type Timestamp } from '@bufbuild/protobuf/wkt';
import type { Calls } from './calls.ts';
import { cancelled, TransactionEndedError, UnavailableError } from './errors.ts';
import {
  type HoldResponse,
  type IsolationLevel,
  TransactionService,
  TransactionState,
} from './gen/hoc/cus/policies/v1/transaction_pb.ts';
import { isLostCommit, settle } from './outcome.ts';
import { type Savepoint, SavepointInUse } from './savepoint.ts';
import { bindStubs, type Caller, type CallOptions, type Stubs } from './stubs.ts';

/** How a transaction is to be run. */
export interface TransactionOptions {
  /** Default: READ_COMMITTED. */
  readonly isolationLevel?: IsolationLevel;
  /** True to refuse writes. */
  readonly readOnly?: boolean;
  /** True to wait for a snapshot on which reading can never conflict; only with SERIALIZABLE and `readOnly`. */
  readonly deferrable?: boolean;
  /** Longest life, milliseconds; default: the sidecar's. */
  readonly totalLeaseMs?: number;
  /** Free text for logs. */
  readonly label?: string;
  /** Ends the transaction, and every call in it. A commit that has begun is not ended. */
  readonly signal?: AbortSignal;
}

/** What is known of a commit. */
export interface Committed {
  /** When the sidecar had the database's word for it; undefined where `GetOutcome` had to be asked. */
  readonly at?: Timestamp | undefined;
  /** For the option `consistency` of reads that must see it, where the sidecar has replicas. */
  readonly consistencyToken?: string | undefined;
}

type News = AsyncIterator<HoldResponse>;

/** A transaction that is open as long as this process, its connection and its lease are. */
export class OpenTransaction {
  /** Its id. */
  readonly id: string;
  readonly #calls: Calls;
  readonly #held: AbortController;
  readonly #signal: AbortSignal;
  /** Whether its caller has ended it. */
  #ended = false;
  /** What has ended it otherwise. */
  #lost: unknown;
  #committed: Committed | undefined;
  #mayBePrepared = false;
  #savepoints = 0;

  private constructor(calls: Calls, id: string, news: News, held: AbortController, signal: AbortSignal) {
    this.id = id;
    this.#calls = calls;
    this.#held = held;
    this.#signal = signal;
    void this.#watch(news);
  }

  /** @internal */
  static async begin(calls: Calls, options: TransactionOptions): Promise<Transaction> {
    const { isolationLevel, readOnly = false, deferrable = false, totalLeaseMs, label = '' } = options;
    const held = new AbortController();
    const ending = AbortSignal.any([calls.closing, ...(options.signal ? [options.signal] : [])]);
    const signal = AbortSignal.any([held.signal, ending]);
    const begin = {
      ...(isolationLevel === undefined ? {} : { isolationLevel }),
      readOnly,
      deferrable,
      ...(totalLeaseMs === undefined ? {} : { totalLease: durationFromMs(totalLeaseMs) }),
      label,
    };
    const news = calls.stream(TransactionService.method.hold, { begin }, { signal })[Symbol.asyncIterator]();
    const { value, done } = await news.next();
    const id = done ? undefined : value.transaction?.id;
    if (id === undefined) throw new UnavailableError({ code: 'UNAVAILABLE', message: 'no transaction was begun' });
    const open = new OpenTransaction(calls, id, news, held, ending);
    return bindStubs(open, open.#caller());
  }

  /** What is known of its commit; undefined before it. */
  get committed(): Committed | undefined {
    return this.#committed;
  }

  /** True where nothing can be done in it any more, whoever or whatever has ended it. */
  get ended(): boolean {
    return this.#ended || this.#lost !== undefined;
  }

  /**
   * Commits. Where the answer is lost, it asks what became of it.
   *
   * @throws ConflictError where it was rolled back and may be tried again, OutcomeUnknownError where nobody could tell.
   */
  async commit(): Promise<Committed> {
    this.#mustBeHeld();
    try {
      this.#committed = await this.#commit();
    } catch (error) {
      this.#lost = error;
      throw error;
    }
    this.#ended = true;
    return this.#committed;
  }

  async #commit(): Promise<Committed> {
    let token: string | undefined;
    try {
      const { committedAt } = await this.#calls.unary(
        TransactionService.method.commit,
        { transactionId: this.id },
        { onTrailer: (trailer) => (token = trailer.get('consistency-token') ?? undefined) },
        { waits: false },
      );
      return { at: committedAt, consistencyToken: token };
    } catch (error) {
      if (!isLostCommit(error)) {
        await this.#undo();
        throw error;
      }
      this.#held.abort();
      await settle(this.#calls, this.id, error);
      return {};
    }
  }

  /** @internal Commits unless its caller has ended it. What else has ended it is thrown: a block may have kept it to itself. */
  async conclude(): Promise<void> {
    if (!this.#ended) await this.commit();
  }

  /**
   * Makes sure that it can be committed, and ends it here: `commitPrepared` or `rollbackPrepared` of a client does the rest, as
   * the caller's own database has ended. Where neither comes, it is rolled back at the end of its lease.
   *
   * @param options `leaseMs`: how long it may stay prepared, milliseconds; default: the sidecar's.
   * @returns the lease granted, milliseconds.
   * @throws ConflictError where it was rolled back and may be tried again; PreconditionError or LimitError where the database keeps
   * no prepared transactions, or no more of them: it stays open. Where the answer is lost it may be prepared, and `rollback`, or
   * the end of its block, rolls it back even so.
   */
  async prepare({ leaseMs }: { readonly leaseMs?: number } = {}): Promise<number> {
    this.#mustBeHeld();
    const request = { transactionId: this.id, ...(leaseMs === undefined ? {} : { lease: durationFromMs(leaseMs) }) };
    try {
      const { lease } = await this.#calls.unary(TransactionService.method.prepare, request, {}, { waits: false });
      this.#ended = true;
      return durationMs(lease!);
    } catch (error) {
      if (isLostCommit(error)) {
        this.#mayBePrepared = true;
        this.#lost = error;
      }
      throw error;
    }
  }

  /** Rolls back; where the sidecar cannot be told, it notices that the transaction is no longer held. Never fails. */
  async rollback(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#undo();
  }

  /** Rolls back unless it has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.rollback();
  }

  /** Sets a savepoint: leaving its block without `release` undoes what was done since, and only that. */
  savepoint(): Promise<Savepoint>;
  /** Runs a block of its own: what it throws undoes what it has done, and is passed on. */
  savepoint<T>(work: () => Promise<T>): Promise<T>;
  async savepoint<T>(work?: () => Promise<T>): Promise<Savepoint | T> {
    this.#savepoints += 1;
    const savepoint = await SavepointInUse.set(
      `sp_${this.#savepoints}`,
      (method, request) => this.#call(method, { transactionId: this.id, ...request }),
      (error) => {
        this.#lost ??= error;
        this.#held.abort();
      },
    );
    if (work === undefined) return savepoint;
    try {
      const result = await work();
      await savepoint.release();
      return result;
    } catch (error) {
      await savepoint[Symbol.asyncDispose]();
      throw error;
    }
  }

  #mustBeHeld(): void {
    if (this.#signal.aborted) throw cancelled(this.#signal);
    if (this.#lost !== undefined) throw this.#lost;
  }

  async #undo(): Promise<void> {
    const { rollback, rollbackPrepared } = TransactionService.method;
    const request = { transactionId: this.id };
    if (this.#lost === undefined) {
      await this.#calls.unary(rollback, request, {}, { waits: false }).catch(() => this.#held.abort());
      return;
    }
    this.#held.abort();
    if (!this.#mayBePrepared) return;
    // What is prepared outlives its stream.
    await this.#calls.unary(rollbackPrepared, request, {}, { waits: false, repeatable: true }).catch(() => {});
  }

  /** Notices when it ends without being asked to. */
  async #watch(news: News): Promise<void> {
    let state: TransactionState = TransactionState.OPEN;
    try {
      for (let next = await news.next(); !next.done; next = await news.next()) {
        state = next.value.transaction?.state ?? state;
      }
      if (this.#ended || state !== TransactionState.ROLLED_BACK) return;
      this.#lost ??= new TransactionEndedError({
        code: 'FAILED_PRECONDITION',
        reason: 'TRANSACTION_ROLLED_BACK',
        message: 'the transaction was rolled back without being asked to here',
      });
    } catch (error) {
      this.#lost ??= error;
    }
  }

  /** A call of its own service in it. */
  async #call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    this.#mustBeHeld();
    return this.#calls.unary(method, request, { signal: this.#signal }, { waits: false });
  }

  #caller(): Caller {
    const prepare = (options: CallOptions) => {
      this.#mustBeHeld();
      const signal = options.signal ? AbortSignal.any([options.signal, this.#signal]) : this.#signal;
      return [
        { ...options, signal },
        { headers: { transaction: this.id }, waits: false },
      ] as const;
    };
    return {
      unary: async (method, request, options) => this.#calls.unary(method, request, ...prepare(options)),
      stream: (method, request, options) => this.#calls.stream(method, request, ...prepare(options)),
    };
  }
}

/** An open transaction with the calls of all services, each of which runs in it. */
export type Transaction = OpenTransaction & Stubs;
