import { type Connection, TIDY_MS } from './connection.ts';
import type { Lane } from './lane.ts';
import type { Database } from './pool.ts';
import type { Signal } from './signal.ts';
import type { Notes, Param, Statement } from './statement.ts';
import { Portal, type Queried, type Sink } from './step.ts';
import type { Bound } from './tenants.ts';
import { NO_ROWS, TextRows } from './text-rows.ts';

/** What took the rows of a statement, and how many PostgreSQL says came or were changed. */
export interface Collected<S> {
  readonly sink: S;
  readonly count: bigint;
}

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
   * Runs a statement, of which all of the above are made.
   *
   * @param sink makes what takes the rows; again if the statement is run again.
   */
  collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>>;
  /** What takes rows as what their text becomes. */
  texts<T>(statement: Statement<T>): TextRows<T>;
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
  /** Takes what stored values could not be carried exactly. */
  readonly notes: Notes;
  /** Rows returned and affected so far by this session's statements. */
  readonly rowCount: bigint;
}

/** A session inside a transaction, where a stream can last as long as its reader takes. */
export interface StreamingSession extends Session {
  /**
   * Rows as they are read, in batches and in constant memory; the snapshot is the one of the first.
   *
   * @param sink makes what takes the next batch, told how many rows there are to the end of the section.
   */
  batches<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: (left: number) => S,
  ): AsyncIterable<S>;
}

/** The first row, which must be there. */
export const expected = <T>({ name }: Statement<T>, [row]: readonly T[]): NonNullable<T> => {
  if (row === undefined || row === null) throw new Error(`statement ${name} brought no row`);
  return row;
};

/** What a session's statements need to know of the call that they are run for. */
export interface CallScope {
  /** Ends what is under way. */
  readonly signal: Signal | undefined;
  /** Takes what stored values could not be carried exactly. */
  readonly notes: Notes;
  /** Whose rows alone its statements see; undefined: they see all. */
  readonly bound?: Bound | undefined;
}

/** The ways to read what a statement brings, for every session that can run one. */
export abstract class Statements implements Session {
  readonly call: CallScope;
  #rowCount = 0n;

  constructor(call: CallScope) {
    this.call = call;
  }

  abstract collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>>;

  get rowCount(): bigint {
    return this.#rowCount;
  }

  /** Rows have been returned or affected. */
  protected count(rows: bigint): void {
    this.#rowCount += rows;
  }

  get notes(): Notes {
    return this.call.notes;
  }

  async rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]> {
    return (await this.collect(statement, params, () => this.texts(statement))).sink.rows;
  }

  async row<T>(statement: Statement<T>, params: readonly Param[]): Promise<T | undefined> {
    return (await this.rows(statement, params))[0];
  }

  async one<T>(statement: Statement<T>, params: readonly Param[]): Promise<NonNullable<T>> {
    return expected(statement, await this.rows(statement, params));
  }

  async execute(statement: Statement<unknown>, params: readonly Param[]): Promise<bigint> {
    return (await this.collect(statement, params, () => NO_ROWS)).count;
  }

  texts<T>({ map }: Statement<T>): TextRows<T> {
    const { notes } = this.call;
    return new TextRows((row) => map(row, notes));
  }

  /** Each statement stands alone, unless a session says otherwise. */
  attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return work(this);
  }

  /** As {@link Statements.attempt}. */
  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return work(this);
  }
}

/** Each statement on a connection of its own, committed by itself. */
export abstract class SeparateStatements extends Statements {
  readonly #lane: Lane;
  readonly #first: Queried | undefined;

  /** @param first what goes before each in the same round trip. */
  constructor(lane: Lane, call: CallScope, first?: Queried) {
    super(call);
    this.#lane = lane;
    this.#first = first;
  }

  collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>> {
    const { signal, bound } = this.call;
    const before = { bound, first: this.#first };
    const work = async (connection: Connection): Promise<Collected<S>> => {
      const taken = sink();
      const count = BigInt(await connection.runAfter(before, statement, params, taken, signal));
      this.count(count);
      return { sink: taken, count };
    };
    return statement.reads ? this.#lane.read(statement, signal, work) : this.#lane.use(signal, work);
  }
}

/** Statements at the primary, outside any transaction. */
export class AutoCommitSession extends SeparateStatements {
  constructor({ calls }: Database, call: CallScope) {
    super(calls, call);
  }
}

/** Rows of a section of a stream: it can be gone on with after each. */
const SECTION_ROWS = 500;

/** What a stream brings at once: enough to hide the round trip, little enough to stay small, however wide its rows are. */
const BATCH_BYTES = 4_194_304;
/** Of rows whose width nobody knows yet, and how many times as many as before they may be. */
const FIRST_ROWS = 16;
const GROWTH = 8;

let savepoints = 0;
let portals = 0;

/** Lends a turn for a piece of work; one that tidies up takes it, too, when the call has ended. */
type Exclusive = <R>(work: () => Promise<R>, tidies?: boolean) => Promise<R>;

/** Statements on the connection of an open transaction, in the order they are asked for. */
export class TransactionSession extends Statements implements StreamingSession {
  readonly #connection: Connection;
  readonly #exclusive: Exclusive | undefined;

  /**
   * @param exclusive how a stream takes its turn for each batch when other calls may use the transaction between them;
   *   left out where nobody else can.
   */
  constructor(connection: Connection, call: CallScope, exclusive?: Exclusive) {
    super(call);
    this.#connection = connection;
    this.#exclusive = exclusive;
  }

  async collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>> {
    const taken = sink();
    const count = BigInt(await this.#connection.run(statement, params, taken, this.call.signal));
    this.count(count);
    return { sink: taken, count };
  }

  async *batches<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: (left: number) => S,
  ): AsyncGenerator<S> {
    const connection = this.#connection;
    const { signal } = this.call;
    const exclusive: Exclusive = this.#exclusive ?? ((work) => work());
    portals = (portals + 1) % Number.MAX_SAFE_INTEGER;
    const portal = new Portal(`policy_sidecar_${portals}`, FIRST_ROWS);
    let isOpen = false;
    const next = (batch: S): Promise<boolean> => {
      if (isOpen) return connection.fetch(portal, batch, signal);
      isOpen = true;
      return connection.open(statement, params, portal, batch, signal);
    };
    try {
      for (let more = true, left = SECTION_ROWS; more; left = left || SECTION_ROWS) {
        portal.rows = Math.min(portal.rows, left);
        const batch = sink(left);
        const before = connection.received;
        more = await exclusive(() => next(batch));
        const fitting = (BATCH_BYTES * portal.rows) / (connection.received - before);
        left -= portal.rows;
        portal.rows = Math.max(1, Math.floor(Math.min(fitting, portal.rows * GROWTH)));
        yield batch;
      }
    } finally {
      // In an aborted transaction the portal is gone already, and closing it would only fail.
      if (isOpen) await exclusive(() => connection.close(portal), true).catch(() => {});
    }
  }

  override async attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    savepoints = (savepoints + 1) % Number.MAX_SAFE_INTEGER;
    const savepoint = `policy_sidecar_${savepoints}`;
    // The work's first statement goes out with it; where it fails, so does that.
    const set = this.#connection.command(`savepoint ${savepoint}`, { signal: this.call.signal });
    set.catch(() => {});
    try {
      const result = await work(this);
      await set;
      // Whatever keeps it from being released keeps the transaction from going on, and whoever goes on hears of it.
      this.#connection.command(`release savepoint ${savepoint}`).catch(() => {});
      return result;
    } catch (error) {
      // Whatever keeps the savepoint from being reached keeps the transaction from going on: the cause says more.
      await this.#connection
        .command(`rollback to savepoint ${savepoint}; release savepoint ${savepoint}`, { limitMs: TIDY_MS })
        .catch(() => {});
      throw error;
    }
  }

  override aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return this.attempt(work);
  }
}
