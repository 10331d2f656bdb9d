import type { Connection } from '../database/connection.ts';
import type { Database } from '../database/pool.ts';
import {
  AutoCommitSession,
  type CallScope,
  type Collected,
  type Session,
  Statements,
  TransactionSession,
} from '../database/session.ts';
import { commitUnknown } from '../database/sqlstate.ts';
import type { Param, Statement } from '../database/statement.ts';
import type { Sink } from '../database/step.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import { orUnknown } from './commit-grace.ts';
import { abortedError } from './ended.ts';

/** A session whose transaction begins with its first statement: until then it holds no connection. */
class LateSession extends Statements {
  readonly #database: Database;
  readonly #mode: TransactionMode;
  #beginning: Promise<TransactionSession> | undefined;
  #connection: Connection | undefined;
  #session: TransactionSession | undefined;

  constructor(database: Database, mode: TransactionMode, call: CallScope) {
    super(call);
    this.#database = database;
    this.#mode = { ...mode, bound: call.bound };
  }

  async collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>> {
    let collected: Collected<S> | undefined;
    const begin = async (connection: Connection): Promise<void> => {
      const taken = sink();
      const first = { statement, params, sink: taken };
      const count = await connection.begin(this.#mode, this.call.signal, first);
      collected = { sink: taken, count: BigInt(count) };
    };
    const session = await (this.#beginning ?? this.#begin(begin));
    if (!collected) return session.collect(statement, params, sink);
    this.count(collected.count);
    return collected;
  }

  /** Its own are those of the statement that has begun the transaction. */
  override get rowCount(): bigint {
    return super.rowCount + (this.#session?.rowCount ?? 0n);
  }

  override async attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    const begin = (connection: Connection): Promise<unknown> => connection.begin(this.#mode, this.call.signal);
    return (await (this.#beginning ?? this.#begin(begin))).attempt(work);
  }

  override async aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    const begins = this.#beginning !== undefined || this.#mode.isolation !== 'read committed';
    if (begins) return this.attempt(work);
    const before = new AutoCommitSession(this.#database, this.call);
    try {
      return await work(before);
    } finally {
      this.count(before.rowCount);
    }
  }

  async commit(): Promise<void> {
    const connection = this.#connection;
    if (!connection) return;
    try {
      const { committed } = await connection.commit();
      if (!committed) throw abortedError();
      this.call.notes.mark = connection.mark;
    } catch (error) {
      throw connection.lost ? commitUnknown(error) : error;
    } finally {
      await this.#leave();
    }
  }

  async rollback(): Promise<void> {
    // One that is just beginning would otherwise be left open.
    await this.#beginning?.catch(() => {});
    await this.#leave();
  }

  async #leave(): Promise<void> {
    await this.#connection?.rollback();
    this.#connection?.release();
  }

  /** @param first begins the transaction; again on another connection where that turns out to be dead. */
  #begin(first: (connection: Connection) => Promise<unknown>): Promise<TransactionSession> {
    this.#beginning = this.#begun(first).catch((error: unknown) => {
      this.#beginning = undefined;
      throw error;
    });
    return this.#beginning;
  }

  async #begun(first: (connection: Connection) => Promise<unknown>): Promise<TransactionSession> {
    const { calls, writes } = this.#database;
    const { connection } = await calls.acquireWith(this.call.signal, first, writes);
    this.#connection = connection;
    this.#session = new TransactionSession(connection, this.call);
    return this.#session;
  }
}

/**
 * Runs work in a transaction of its own on a connection of the `calls` lane and commits it. The transaction begins with
 * the first statement, so what the work does before that, however long it takes, costs no connection.
 *
 * @throws COMMIT_OUTCOME_UNKNOWN when the connection is lost during the commit.
 */
export const inOwn = async <T>(
  database: Database,
  mode: TransactionMode,
  call: CallScope,
  work: (db: Session) => Promise<T>,
): Promise<T> => {
  const session = new LateSession(database, mode, call);
  let result: T;
  try {
    result = await work(session);
  } catch (error) {
    await session.rollback();
    throw error;
  }
  await orUnknown(session.commit(), call.signal);
  return result;
};

/** A session for one statement, which is a transaction of its own to PostgreSQL: it commits as it ends. */
class ImplicitSession extends Statements {
  readonly #database: Database;
  #used = false;

  constructor(database: Database, call: CallScope) {
    super(call);
    this.#database = database;
  }

  async collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>> {
    if (this.#used) throw new Error(`${statement.name} is the second statement of one`);
    this.#used = true;
    const { signal, bound } = this.call;
    const { calls, writes } = this.#database;
    const work = async (connection: Connection): Promise<Collected<S>> => {
      const taken = sink();
      const count = BigInt(await connection.runAlone(statement, params, taken, signal, bound));
      this.call.notes.mark = connection.mark;
      return { sink: taken, count };
    };
    const collected = await calls.useOnce(signal, work, writes);
    this.count(collected.count);
    return collected;
  }
}

/**
 * Runs work of one statement, which commits by itself in the same round trip.
 *
 * @throws COMMIT_OUTCOME_UNKNOWN when the connection is lost meanwhile.
 */
export const inImplicit = <T>(database: Database, call: CallScope, work: (db: Session) => Promise<T>): Promise<T> =>
  work(new ImplicitSession(database, call));
