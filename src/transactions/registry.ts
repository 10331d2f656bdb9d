import { type RpcError, refuse } from '../contract/errors.ts';
import type { Connection } from '../database/connection.ts';
import type { Database } from '../database/pool.ts';
import type { CallScope, StreamingSession } from '../database/session.ts';
import type { Signal } from '../database/signal.ts';
import { databaseReadOnly, shuttingDown } from '../database/sqlstate.ts';
import { statement } from '../database/statement.ts';
import { asRow, TextRows } from '../database/text-rows.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import { Awake } from './awake.ts';
import { type EndCause, type EndedTransaction, endedError, type TransactionState } from './ended.ts';
import { LOCKED, type OutcomeKey } from './outcomes.ts';
import { Transaction } from './transaction.ts';
import type { TransactionIdFacts, TransactionIds } from './transaction-id.ts';

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

/** Told when a lease or a lost connection has ended a transaction that its caller has not. */
export type EndedReport = (transaction: Transaction, how: string) => void;

/** Ended transactions that are remembered. */
const MEMORY = 10_000;

/** The open transactions of this process and the memory of ended ones. */
export class TransactionRegistry {
  readonly #database: Database;
  readonly #ids: TransactionIds;
  readonly #open = new Map<string, Transaction>();
  readonly #memory = new Map<string, EndedTransaction>();
  readonly #awake = new Awake();
  #streams = 0;
  #closing = false;
  readonly limits: TransactionLimits;
  readonly report: EndedReport;
  /** Told of every transaction that ends, however it does; of a cause where the sidecar has ended it. */
  onEnded: (transaction: Transaction, state: TransactionState, how: string, cause?: EndCause) => void = () => {};

  constructor(database: Database, ids: TransactionIds, limits: TransactionLimits, report: EndedReport) {
    this.#database = database;
    this.#ids = ids;
    this.limits = limits;
    this.report = report;
  }

  /** Open transactions, oldest first. */
  list(): Transaction[] {
    return [...this.#open.values()];
  }

  /** Begins a leased transaction. */
  async begin(options: BeginOptions, signal: Signal | undefined): Promise<Transaction> {
    if (this.#closing) throw shuttingDown();
    this.#refuseSelfDeadlock(options.caller);
    if (!options.held) this.stayAwake();
    const draft = this.#ids.draft();
    const { connection, result: beganAt } = await this.#database.transactions.acquireWith(signal, (idle) =>
      startTransaction(idle, options, draft.key, signal),
    );
    const id = this.#ids.issue(draft, options.caller, beganAt);
    const key = options.readOnly ? undefined : draft.key;
    const transaction = new Transaction(this, connection, { id, key }, options);
    this.#open.set(transaction.id, transaction);
    if (signal?.aborted) {
      // Nobody will ever hear its id.
      await transaction.abandon('caller_left', 'its caller left while it began');
      throw signal.reason;
    }
    if (this.#closing) {
      // Its caller waited for a connection, and nobody would wait for its end.
      await transaction.abandon('shutdown', 'the sidecar shut down while it began');
      throw shuttingDown();
    }
    return transaction;
  }

  /**
   * Runs a stream outside any transaction in a read-only one of its own: listed, with a lease, since it lasts as long as
   * its reader takes. Streams leave half of the connections to transactions.
   */
  async *reading<T>(
    { caller, method }: { readonly caller: string; readonly method: string },
    call: CallScope,
    work: (db: StreamingSession) => AsyncIterable<T>,
  ): AsyncGenerator<T> {
    const most = Math.max(1, Math.ceil(this.#database.transactions.max / 2));
    if (this.#streams >= most) throw refuse('STREAM_LIMIT', `${most} streams outside transactions are open already`);
    this.#streams += 1;
    const transaction = await this.begin(
      {
        caller,
        label: `stream ${method}`,
        isolation: 'repeatable read',
        readOnly: true,
        deferrable: false,
        idleLeaseMs: undefined,
        totalLeaseMs: this.limits.totalLeaseMaxMs,
        held: true,
        bound: call.bound,
      },
      call.signal,
    ).catch((error: unknown) => {
      this.#streams -= 1;
      throw error;
    });
    // A reader who does not read never lets this generator end, only its lease.
    void transaction.ended.then(() => {
      this.#streams -= 1;
    });
    try {
      yield* transaction.stream(method, call, work);
    } finally {
      await transaction.abandon('stream_ended', 'its stream ended');
    }
  }

  /** Stays awake for what comes next in a transaction. */
  stayAwake(): void {
    this.#awake.stay(this.#open.size);
  }

  /** A caller that holds every connection itself would wait for itself. */
  #refuseSelfDeadlock(caller: string): void {
    let held = 0;
    for (const transaction of this.#open.values()) if (transaction.caller === caller) held += 1;
    if (held >= this.#database.transactions.max) {
      throw refuse('TRANSACTION_LIMIT', `this caller already holds all ${held} transactions; end one first`);
    }
  }

  /** The open transaction of that id and caller; how it ended otherwise. */
  find(id: string, caller: string): Transaction {
    const transaction = this.#open.get(id);
    if (!transaction) throw this.endedOf(id, caller);
    if (transaction.caller !== caller) throw foreign();
    return transaction;
  }

  /** True while a transaction of that id is open, whoever's it is. */
  isOpen(id: string): boolean {
    return this.#open.has(id);
  }

  /** How an id ended, if this process remembers it. */
  remembered(id: string, caller: string): EndedTransaction | undefined {
    const ended = this.#memory.get(id);
    if (ended && ended.caller !== caller) throw foreign();
    return ended;
  }

  /** The refusal of an id that is not open. */
  endedOf(id: string, caller: string): RpcError {
    const ended = this.remembered(id, caller);
    if (ended) return endedError(ended);
    const facts = this.#ids.read(id, caller);
    if (facts && facts.holder !== this.#ids.holder) return elsewhere(facts.holder);
    if (facts) {
      return refuse('TRANSACTION_LOST', 'the transaction ended long ago; ask GetOutcome how');
    }
    return unknownTransaction();
  }

  /** Where the outcome of an id issued to `caller` is to be looked for; the refusal for any other. */
  factsOf(id: string, caller: string): TransactionIdFacts {
    const open = this.#open.get(id);
    if (open && open.caller !== caller) throw foreign();
    this.remembered(id, caller);
    const facts = this.#ids.read(id, caller);
    if (!facts) throw unknownTransaction();
    return facts;
  }

  /** Moves a transaction from the open ones to memory. */
  forget(transaction: Transaction, state: TransactionState, how: string, cause?: EndCause): void {
    if (!this.#open.delete(transaction.id)) return;
    this.onEnded(transaction, state, how, cause);
    const { caller, ended: settled, wrote } = transaction;
    this.#memory.set(transaction.id, { caller, state, how, endedAt: Date.now(), settled, wrote });
    if (this.#memory.size > MEMORY) this.#memory.delete(this.#memory.keys().next().value!);
  }

  /** A prepared transaction has been ended, as far as this process remembers it. */
  settled(id: string, state: 'committed' | 'rolled back', how: string): void {
    const ended = this.#memory.get(id);
    if (ended?.state === 'prepared') this.#memory.set(id, { ...ended, state, how, endedAt: Date.now() });
  }

  /** Whether an id was issued to a caller. */
  isOf(id: string, caller: string): boolean {
    return this.#ids.read(id, caller) !== undefined;
  }

  /** Ends what callers have open who are no longer known. */
  remove(callers: ReadonlySet<string>, how: string): void {
    for (const transaction of this.list()) {
      if (!callers.has(transaction.caller)) continue;
      this.report(transaction, how);
      void transaction.abandon('caller_removed', how);
    }
  }

  /** Refuses new transactions. */
  close(): void {
    this.#closing = true;
  }

  /** Waits for the open ones to end; those still open after the time are rolled back. */
  async drain(timeoutMs: number): Promise<void> {
    this.close();
    const open = this.list();
    if (open.length === 0) return;
    const all = Promise.all(open.map(({ ended }) => ended));
    const timeout = new Promise<'late'>((resolve) => setTimeout(resolve, timeoutMs, 'late').unref());
    if ((await Promise.race([all, timeout])) === 'late') {
      await Promise.all(this.list().map((transaction) => transaction.abandon('shutdown', 'the sidecar shut down')));
    }
  }
}

const foreign = (): RpcError => refuse('TRANSACTION_NOT_YOURS', 'the transaction belongs to another caller');

const unknownTransaction = (): RpcError => refuse('TRANSACTION_UNKNOWN', 'there is no such transaction');

/** The refusal of an id that another process issued: the sidecar of another pod, or this one's predecessor. */
export const elsewhere = (holder: string): RpcError =>
  refuse(
    'TRANSACTION_ELSEWHERE',
    `the transaction was begun by the sidecar ${holder}, and is usable there alone; ask GetOutcome how it ended`,
    { metadata: { holder } },
  );

const LOOK = `current_setting('transaction_read_only'), extract(epoch from clock_timestamp()) * 1000`;
const look = statement('transaction.begin_read_only', `select ${LOOK}`);
const lookAndLock = statement('transaction.begin', `select ${LOOK}, ${LOCKED}`);

/** Starts a transaction in one round trip and takes its snapshot; returns the database's clock, milliseconds. */
const startTransaction = async (
  connection: Connection,
  mode: TransactionMode,
  key: OutcomeKey,
  signal: Signal | undefined,
): Promise<number> => {
  const { statement, params } = mode.readOnly ? look.with() : lookAndLock.with(key.lock);
  const sink = new TextRows(asRow);
  await connection.begin(mode, signal, { statement, params, sink });
  const [isReadOnly, beganAt] = sink.rows[0]!;
  if (isReadOnly === 'on' && !mode.readOnly) {
    connection.markUnusable();
    await connection.rollback();
    throw databaseReadOnly();
  }
  return Math.floor(Number(beganAt));
};
