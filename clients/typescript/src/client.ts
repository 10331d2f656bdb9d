import type { MessageInitShape } from '@bufbuild/protobuf';
import { Calls, type ClientOptions, outsideTransactions, singleUse, singleUseManner } from './calls.ts';
import type { OperationSchema } from './gen/hoc/cus/policies/v1/operation_pb.ts';
import {
  type ExecuteResponse,
  type GetOutcomeRequest,
  type IsolationLevel,
  type Outcome,
  type PreparedTransaction,
  TransactionService,
} from './gen/hoc/cus/policies/v1/transaction_pb.ts';
import { outcomeOf } from './outcome.ts';
import { Deadline, retrying } from './retry.ts';
import { bindStubs, type CallOptions, type Stubs } from './stubs.ts';
import { OpenTransaction, type Transaction, type TransactionOptions } from './transaction.ts';
import type { Transport } from './transport.ts';

/** How a list of operations is run. */
export interface ExecuteOptions extends CallOptions {
  /** Default: READ_COMMITTED. */
  readonly isolationLevel?: IsolationLevel;
  /** How often the sidecar tries the whole list while it conflicts with others, 1 to 10; default 1. */
  readonly maxAttempts?: number;
}

/** How a transaction that may be tried again is run. */
export interface RunOptions extends TransactionOptions {
  /** How often it is tried at most; default 5. */
  readonly attempts?: number;
  /** After that many milliseconds no other attempt begins; default: the client's timeout. */
  readonly timeoutMs?: number;
}

const RUN_ATTEMPTS = 5;

/** What a client does beside the calls of the services. */
export class Connection {
  /** Calls of which each is its own transaction, tried again under the same key when an answer is lost. */
  readonly singleUse: Stubs;
  readonly #calls: Calls;

  private constructor(calls: Calls) {
    this.#calls = calls;
    this.singleUse = bindStubs({}, singleUse(calls));
  }

  /** @internal */
  static over(transport: Transport, options: ClientOptions): Client {
    const calls = new Calls(transport, options);
    return bindStubs(new Connection(calls), outsideTransactions(calls));
  }

  /** Opens a transaction: `await using` rolls it back unless it was committed. */
  transaction(options?: TransactionOptions): Promise<Transaction>;
  /**
   * Runs a block in a transaction, which is committed when the block ends and rolled back when it throws.
   *
   * @throws what has ended the transaction, where that was neither this nor the block, however the block ended.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>;
  async transaction<T>(
    first: TransactionOptions | ((tx: Transaction) => Promise<T>) = {},
    options: TransactionOptions = {},
  ): Promise<Transaction | T> {
    if (typeof first !== 'function') return OpenTransaction.begin(this.#calls, first);
    const tx = await OpenTransaction.begin(this.#calls, options);
    try {
      const result = await first(tx);
      await tx.conclude();
      return result;
    } finally {
      await tx.rollback();
    }
  }

  /**
   * Runs a block in a transaction, and all of it again in another one while it fails with what may succeed later: a
   * conflict, a sidecar or database that went away. The block must be repeatable.
   */
  async run<T>(work: (tx: Transaction) => Promise<T>, options: RunOptions = {}): Promise<T> {
    const { attempts = RUN_ATTEMPTS, timeoutMs = this.#calls.timeoutMs, signal } = options;
    return retrying({ attempts, deadline: new Deadline(timeoutMs), signal }, () => this.transaction(work, options));
  }

  /** Runs a list of operations in one round trip, all or nothing; a lost answer is asked for again. */
  async execute(
    operations: readonly MessageInitShape<typeof OperationSchema>[],
    options: ExecuteOptions = {},
  ): Promise<ExecuteResponse> {
    const { isolationLevel, maxAttempts } = options;
    const request = {
      operations: [...operations],
      ...(isolationLevel === undefined ? {} : { isolationLevel }),
      ...(maxAttempts === undefined ? {} : { maxAttempts }),
    };
    const manner = { ...singleUseManner(options), repeatable: true };
    return this.#calls.unary(TransactionService.method.execute, request, options, manner);
  }

  /** How a transaction, or a request with an idempotency key, ended. */
  async outcome(subject: GetOutcomeRequest['subject']): Promise<Outcome> {
    return outcomeOf(this.#calls, subject);
  }

  /**
   * Commits what `Transaction.prepare` has prepared, at any sidecar of its database. Asked again, it is no error.
   *
   * @throws TransactionEndedError where it was rolled back, PreconditionError where it is not prepared.
   */
  async commitPrepared(transactionId: string, options?: CallOptions): Promise<void> {
    const { commitPrepared } = TransactionService.method;
    await this.#calls.unary(commitPrepared, { transactionId }, options, { repeatable: true });
  }

  /**
   * Rolls back what `Transaction.prepare` has prepared, at any sidecar of its database. Asked again, it is no error.
   *
   * @throws TransactionEndedError where it was committed, PreconditionError where it is not prepared.
   */
  async rollbackPrepared(transactionId: string, options?: CallOptions): Promise<void> {
    const { rollbackPrepared } = TransactionService.method;
    await this.#calls.unary(rollbackPrepared, { transactionId }, options, { repeatable: true });
  }

  /** What is prepared in the database and has not ended, oldest first; of other callers' without an id. */
  async listPrepared(options?: CallOptions): Promise<PreparedTransaction[]> {
    const { listPrepared } = TransactionService.method;
    const { transactions } = await this.#calls.unary(listPrepared, {}, options, { repeatable: true });
    return transactions;
  }

  /** Closes its connections; open transactions are rolled back. */
  close(): void {
    this.#calls.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A sidecar: the calls of all services, of which those outside a transaction may only read, and transactions. */
export type Client = Connection & Stubs;
