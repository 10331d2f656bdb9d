import { type Connection, TIDY_MS } from './connection.ts';
import type { Database } from './pool.ts';
import type { Param, Statement } from './statement.ts';

/** What a driver may do with the database; where it runs (auto-commit or inside a transaction) is not its concern. */
export interface Session {
  /** All rows. */
  rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]>;
  /** The first row, if there is one. */
  row<T>(statement: Statement<T>, params: readonly Param[]): Promise<T | undefined>;
  /** The row of a statement that always has one; that none came is an error of this program. */
  one<T>(statement: Statement<T>, params: readonly Param[]): Promise<NonNullable<T>>;
  /** Runs a write and returns the number of rows it affected. */
  execute(statement: Statement<unknown>, params: readonly Param[]): Promise<bigint>;
  /**
   * Runs statements whose failure must not end the caller's transaction: under a savepoint inside one. Without one each
   * statement stands alone anyway. The error is thrown on.
   */
  attempt<T>(work: (db: Session) => Promise<T>): Promise<T>;
  /**
   * Like {@link Session.attempt}, for reads alone that the caller waits after: a transaction that has not begun, and for
   * which each statement has a snapshot of its own anyway, does not begin with them.
   */
  aside<T>(work: (db: Session) => Promise<T>): Promise<T>;
  /** Rows returned and affected so far by this session's statements. */
  readonly rowCount: bigint;
}

/** A session inside a transaction, where a stream can last as long as its reader takes. */
export interface StreamingSession extends Session {
  /** Rows as they are read, in constant memory; the snapshot is the one of the first row. */
  stream<T>(statement: Statement<T>, params: readonly Param[]): AsyncIterable<T>;
}

/** The first row, which must be there. */
const expected = <T>({ name }: Statement<T>, [row]: readonly T[]): NonNullable<T> => {
  if (row === undefined || row === null) throw new Error(`statement ${name} brought no row`);
  return row;
};

/** The ways to read what a statement brings, for every session that can run one. */
export abstract class Statements {
  abstract readonly rowCount: bigint;

  abstract rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]>;

  async row<T>(statement: Statement<T>, params: readonly Param[]): Promise<T | undefined> {
    return (await this.rows(statement, params))[0];
  }

  async one<T>(statement: Statement<T>, params: readonly Param[]): Promise<NonNullable<T>> {
    return expected(statement, await this.rows(statement, params));
  }

  async execute(statement: Statement<unknown>, params: readonly Param[]): Promise<bigint> {
    const before = this.rowCount;
    await this.rows(statement, params);
    return this.rowCount - before;
  }
}

/** Rows fetched at once by a stream: enough to hide the round trip, little enough to stay small. */
const FETCH_ROWS = 500;

let cursors = 0;

/** Reads a statement through a cursor of the transaction that `connection` is in. */
async function* readCursor<T>(
  connection: Connection,
  statement: Statement<T>,
  params: readonly Param[],
  signal: AbortSignal | undefined,
  exclusive: <R>(work: () => Promise<R>) => Promise<R> = (work) => work(),
): AsyncGenerator<T> {
  cursors = (cursors + 1) % Number.MAX_SAFE_INTEGER;
  const cursor = `policy_sidecar_${cursors}`;
  const declaration = `declare ${cursor} no scroll cursor for ${statement.text}`;
  await exclusive(() => connection.commands(declaration, signal, undefined, params));
  let drained = false;
  try {
    while (!drained) {
      const { rows } = await exclusive(() => connection.command(`fetch ${FETCH_ROWS} from ${cursor}`, signal));
      for (const row of rows) yield statement.map(row);
      drained = rows.length < FETCH_ROWS;
    }
  } finally {
    // In an aborted transaction the cursor is gone already, and closing it would only fail.
    await exclusive(() => connection.command(`close ${cursor}`, undefined, TIDY_MS)).catch(() => {});
  }
}

/** Each statement on a connection of its own, committed by itself. */
export class AutoCommitSession extends Statements implements Session {
  readonly #database: Database;
  readonly #signal: AbortSignal | undefined;
  rowCount = 0n;

  constructor(database: Database, signal: AbortSignal | undefined) {
    super();
    this.#database = database;
    this.#signal = signal;
  }

  async rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]> {
    const { rows, count } = await this.#database.calls.use(this.#signal, (connection) =>
      connection.run(statement, params, this.#signal),
    );
    this.rowCount += BigInt(count);
    return rows;
  }

  attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return work(this);
  }

  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return work(this);
  }
}

let savepoints = 0;

/** Statements on the connection of an open transaction, in the order they are asked for. */
export class TransactionSession extends Statements implements StreamingSession {
  readonly #connection: Connection;
  readonly #signal: AbortSignal | undefined;
  readonly #exclusive: (<R>(work: () => Promise<R>) => Promise<R>) | undefined;
  rowCount = 0n;

  /**
   * @param exclusive how a stream takes its turn for each batch when other calls may use the transaction between them;
   *   left out where nobody else can.
   */
  constructor(
    connection: Connection,
    signal: AbortSignal | undefined,
    exclusive?: <R>(work: () => Promise<R>) => Promise<R>,
  ) {
    super();
    this.#connection = connection;
    this.#signal = signal;
    this.#exclusive = exclusive;
  }

  async rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]> {
    const { rows, count } = await this.#connection.run(statement, params, this.#signal);
    this.rowCount += BigInt(count);
    return rows;
  }

  async *stream<T>(statement: Statement<T>, params: readonly Param[]): AsyncGenerator<T> {
    for await (const row of readCursor(this.#connection, statement, params, this.#signal, this.#exclusive)) {
      this.rowCount += 1n;
      yield row;
    }
  }

  async attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    savepoints = (savepoints + 1) % Number.MAX_SAFE_INTEGER;
    const savepoint = `policy_sidecar_${savepoints}`;
    await this.#connection.command(`savepoint ${savepoint}`, this.#signal);
    try {
      const result = await work(this);
      await this.#connection.command(`release savepoint ${savepoint}`);
      return result;
    } catch (error) {
      // Whatever keeps the savepoint from being reached keeps the transaction from going on: the cause says more.
      await this.#connection
        .command(`rollback to savepoint ${savepoint}; release savepoint ${savepoint}`, undefined, TIDY_MS)
        .catch(() => {});
      throw error;
    }
  }

  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return this.attempt(work);
  }
}
