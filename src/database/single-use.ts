import { isConnectionError } from './errors.ts';
import type { Connection, Database } from './pool.ts';
import { AutoCommitSession, type Session, TransactionSession } from './session.ts';
import type { Param, Statement } from './statement.ts';
import { abortedError, beginText, commitUnknown, ROLLBACK_MS, type TransactionMode } from './transactions.ts';

export const READ_COMMITTED: TransactionMode = { isolation: 'read committed', readOnly: false, deferrable: false };

/** A session whose transaction begins with its first statement: until then it holds no connection. */
class LateSession implements Session {
  readonly #database: Database;
  readonly #mode: TransactionMode;
  readonly #signal: AbortSignal | undefined;
  #beginning: Promise<TransactionSession> | undefined;
  #connection: Connection | undefined;
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

  async *stream<T>(statement: Statement<T>, params: readonly Param[]): AsyncGenerator<T> {
    yield* (await this.#begun()).stream(statement, params);
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
    let failure: unknown;
    try {
      const { tag } = await connection.command('commit');
      if (tag !== 'COMMIT') throw abortedError();
    } catch (error) {
      failure = error;
      throw isConnectionError(error) ? commitUnknown(error) : error;
    } finally {
      connection.release(failure);
    }
  }

  async rollback(reason: unknown): Promise<void> {
    // One that is just beginning would otherwise be left open.
    await this.#beginning?.catch(() => {});
    await this.#connection?.command('rollback', undefined, AbortSignal.timeout(ROLLBACK_MS)).catch(() => {});
    this.#connection?.release(reason);
  }

  #begun(): Promise<TransactionSession> {
    this.#beginning ??= this.#begin();
    return this.#beginning;
  }

  async #begin(): Promise<TransactionSession> {
    const { connection } = await this.#database.calls.acquireWith(this.#signal, (idle) =>
      idle.command(beginText(this.#mode), undefined, this.#signal),
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
    await session.rollback(error);
    throw error;
  }
  await session.commit();
};
