import { type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import type { Connection, TransactionMode } from './connection.ts';
import type { Database } from './pool.ts';
import { type OnceRequest, runOnce } from './requests.ts';
import { AutoCommitSession, type CallScope, type Session, Statements, TransactionSession } from './session.ts';
import type { Param, Statement } from './statement.ts';
import { abortedError, commitUnknown, orUnknown } from './transactions.ts';
import type { Sink } from './wire.ts';

export const READ_COMMITTED: TransactionMode = { isolation: 'read committed', readOnly: false, deferrable: false };

/** A session whose transaction begins with its first statement: until then it holds no connection. */
class LateSession extends Statements implements Session {
  readonly #database: Database;
  readonly #mode: TransactionMode;
  #beginning: Promise<TransactionSession> | undefined;
  #connection: Connection | undefined;
  #leaveGate: (() => void) | undefined;

  constructor(database: Database, mode: TransactionMode, call: CallScope) {
    super(call);
    this.#database = database;
    this.#mode = mode;
  }

  async collect<S extends Sink>(statement: Statement<unknown>, params: readonly Param[], sink: () => S): Promise<S> {
    const session = await this.#begun();
    const before = session.rowCount;
    const taken = await session.collect(statement, params, sink);
    this.rowCount += session.rowCount - before;
    return taken;
  }

  async attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return (await this.#begun()).attempt(work);
  }

  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    const begins = this.#beginning !== undefined || this.#mode.isolation !== 'read committed';
    return begins ? this.attempt(work) : work(new AutoCommitSession(this.#database, this.call));
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
    const { signal } = this.call;
    this.#leaveGate = await this.#database.writes.enter(signal);
    const { connection } = await this.#database.calls.acquireWith(signal, (idle) => idle.begin(this.#mode, signal));
    this.#connection = connection;
    return new TransactionSession(connection, this.call);
  }
}

/**
 * Runs work in a transaction of its own on a connection of the `calls` lane and commits it. The transaction begins with
 * the first statement, so what the work does before that, however long it takes, costs no connection.
 *
 * @throws COMMIT_OUTCOME_UNKNOWN when the connection is lost during the commit.
 */
const singleUse = async (
  database: Database,
  mode: TransactionMode,
  call: CallScope,
  work: (db: Session) => Promise<unknown>,
): Promise<void> => {
  const session = new LateSession(database, mode, call);
  try {
    await work(session);
  } catch (error) {
    await session.rollback();
    throw error;
  }
  await orUnknown(session.commit(), call.signal);
};

/**
 * Answers a call in a transaction of its own, as {@link singleUse} runs it; one with a request id at most once, and a
 * repeat with what was answered first.
 *
 * @throws FAILED_PRECONDITION `REQUEST_ID_REUSED` when the id belongs to another request.
 */
export const answerOnce = async <D extends DescMessage>(
  database: Database,
  mode: TransactionMode,
  call: CallScope,
  { output, once }: { readonly output: D; readonly once: OnceRequest | undefined },
  run: (db: Session) => Promise<MessageShape<D>>,
): Promise<MessageShape<D>> => {
  let response: MessageShape<D> | undefined;
  await singleUse(database, mode, call, async (db) => {
    response = once
      ? fromBinary(output, await runOnce(db, once, async () => toBinary(output, await run(db))))
      : await run(db);
  });
  return response!;
};
