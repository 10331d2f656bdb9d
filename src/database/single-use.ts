import type { Connection, TransactionMode } from './connection.ts';
import type { Database } from './pool.ts';
import { AutoCommitSession, type Session, TransactionSession } from './session.ts';
import type { Param, Statement } from './statement.ts';
import { abortedError, commitUnknown, orUnknown } from './transactions.ts';

export const READ_COMMITTED: TransactionMode = { isolation: 'read committed', readOnly: false, deferrable: false };

/** A session whose transaction begins with its first statement: until then it holds no connection. */
class LateSession implements Session {
  readonly #database: Database;
  readonly #mode: TransactionMode;
  readonly #signal: AbortSignal | undefined;
  #beginning: Promise<TransactionSession> | undefined;
  #connection: Connection | undefined;
  #leaveGate: (() => void) | undefined;
  #rowCount = (): bigint => 0n;

  constructor(database: Database, mode: TransactionMode, signal: AbortSignal | undefined) {
    this.#database = database;
    this.#mode = mode;
    this.#signal = signal;
  }

  get rowCount(): bigint {
    return this.#rowCount();
  }

  async rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]> {
    return (await this.#begun()).rows(statement, params);
  }

  async row<T>(statement: Statement<T>, params: readonly Param[]): Promise<T | undefined> {
    return (await this.#begun()).row(statement, params);
  }

  async one<T>(statement: Statement<T>, params: readonly Param[]): Promise<NonNullable<T>> {
    return (await this.#begun()).one(statement, params);
  }

  async execute(statement: Statement<unknown>, params: readonly Param[]): Promise<bigint> {
    return (await this.#begun()).execute(statement, params);
  }

  async attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return (await this.#begun()).attempt(work);
  }

  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    const begins = this.#beginning !== undefined || this.#mode.isolation !== 'read committed';
    return begins ? this.attempt(work) : work(new AutoCommitSession(this.#database, this.#signal));
  }

  async commit(): Promise<void> {
    const connection = this.#connection;
    if (!connection) return;
    try {
      const { committed } = await connection.commit();
      if (!committed) throw abortedError();
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
    this.#leaveGate?.();
  }

  #begun(): Promise<TransactionSession> {
    this.#beginning ??= this.#begin();
    return this.#beginning;
  }

  async #begin(): Promise<TransactionSession> {
    this.#leaveGate = await this.#database.writes.enter(this.#signal);
    const { connection } = await this.#database.calls.acquireWith(this.#signal, (idle) =>
      idle.begin(this.#mode, this.#signal),
    );
    this.#connection = connection;
    const session = new TransactionSession(connection, this.#signal);
    this.#rowCount = () => session.rowCount;
    return session;
  }
}

/**
 * Runs work in a transaction of its own on a connection of the `calls` lane and commits it. The transaction begins with
 * the first statement, so what the work does before that, however long it takes, costs no connection.
 *
 * @throws COMMIT_OUTCOME_UNKNOWN when the connection is lost during the commit.
 */
export const singleUse = async (
  database: Database,
  mode: TransactionMode,
  signal: AbortSignal | undefined,
  work: (db: Session) => Promise<unknown>,
): Promise<void> => {
  const session = new LateSession(database, mode, signal);
  try {
    await work(session);
  } catch (error) {
    await session.rollback();
    throw error;
  }
  await orUnknown(session.commit(), signal);
};
