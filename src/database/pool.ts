import pg from 'pg';
import { busy, databaseUnavailable, isConnectionError, shuttingDown } from './errors.ts';
import type { Param, Row, Statement } from './statement.ts';

/** Every value travels as PostgreSQL's text: the codecs of this folder, not `pg`, decide what it becomes. */
const RAW = { getTypeParser: () => (text: unknown) => text } as unknown as pg.CustomTypesConfig;

/** What every backend of this program is told at the start, so that text forms and order never depend on the server. */
const SESSION_OPTIONS = [
  '-c TimeZone=UTC',
  '-c DateStyle=ISO',
  '-c bytea_output=hex',
  '-c extra_float_digits=1',
  // A killed sidecar must not leave its statements running.
  '-c client_connection_check_interval=2s',
].join(' ');

/** Outcome of a statement. */
export interface Result<T> {
  readonly rows: T[];
  /** Rows returned or affected, as PostgreSQL counts them. */
  readonly count: number;
}

/** Limits of one share of the connections. */
export interface LaneOptions {
  /** Connections at most. */
  readonly max: number;
  /** Calls that may wait for one. */
  readonly queue: number;
  /** Longest wait, milliseconds. */
  readonly waitMs: number;
}

/** How a call's end reaches PostgreSQL. */
export type Cancel = (pid: number) => Promise<void>;

/** `pg` writes a negative zero without its sign. */
const bound = (param: Param): unknown => (Object.is(param, -0) ? '-0' : param);

/** One backend, lent to one piece of work at a time. */
export class Connection {
  readonly #client: pg.PoolClient;
  readonly #cancel: Cancel;
  #lost: Error | undefined;
  #released = false;
  readonly #onError = (error: Error): void => {
    this.#lost = error;
    this.onLost?.(error);
  };

  /** Told when the backend goes away while nobody runs a statement. */
  onLost: ((error: Error) => void) | undefined;
  /** True when it has been lent before, so that its backend may have died since without anybody noticing. */
  readonly reused: boolean;

  constructor(client: pg.PoolClient, cancel: Cancel, reused: boolean) {
    this.#client = client;
    this.#cancel = cancel;
    this.reused = reused;
    client.on('error', this.#onError);
  }

  /** Process id of the backend. */
  get pid(): number {
    return (this.#client as unknown as { processID: number }).processID;
  }

  /**
   * Runs a prepared statement. When the signal fires, the backend is told to stop and the call fails with the signal's
   * reason; the connection stays usable.
   */
  async run<T>(statement: Statement<T>, params: readonly Param[], signal?: AbortSignal): Promise<Result<T>> {
    const result = await this.#guarded(signal, () =>
      this.#client.query<string[]>({
        name: statement.name,
        text: statement.text,
        values: params.map(bound),
        rowMode: 'array',
        types: RAW,
      } as pg.QueryArrayConfig),
    );
    return { rows: (result.rows as unknown as Row[]).map(statement.map), count: result.rowCount ?? 0 };
  }

  /** Runs unprepared commands (`begin`, `fetch`, …), several at once if they take no parameters. Rows are text. */
  async command(text: string, params?: readonly Param[], signal?: AbortSignal): Promise<{ rows: Row[]; tag: string }> {
    const outcome = await this.#guarded(signal, () =>
      this.#client.query({
        text,
        rowMode: 'array',
        types: RAW,
        ...(params ? { values: params.map(bound) } : {}),
      } as pg.QueryArrayConfig),
    );
    const last = (Array.isArray(outcome) ? outcome.at(-1) : outcome) as pg.QueryArrayResult;
    return { rows: last.rows as Row[], tag: last.command };
  }

  async #guarded<T>(signal: AbortSignal | undefined, query: () => Promise<T>): Promise<T> {
    if (this.#lost) throw databaseUnavailable(this.#lost);
    if (!signal) return query();
    signal.throwIfAborted();
    let cancelled: Promise<void> | undefined;
    const onAbort = (): void => {
      cancelled = this.#cancel(this.pid).catch((error: unknown) => {
        // The statement cannot be stopped: only the end of the connection frees the caller.
        this.#lost = error as Error;
        (this.#client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
      });
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      return await query();
    } catch (error) {
      if (signal.aborted && ((error as pg.DatabaseError).code === '57014' || this.#lost)) throw signal.reason;
      throw error;
    } finally {
      signal.removeEventListener('abort', onAbort);
      // The next user of this backend must not be hit by a cancellation meant for this statement.
      if (cancelled) await cancelled;
    }
  }

  /** Gives the connection back; a broken one is closed. Returns whether it was broken. */
  release(error?: unknown): boolean {
    const broken = this.#lost !== undefined || (error !== undefined && this.#isBroken(error));
    if (this.#released) return broken;
    this.#released = true;
    this.#client.off('error', this.#onError);
    this.#client.release(broken);
    return broken;
  }

  #isBroken(error: unknown): boolean {
    return isConnectionError(error) || (error as pg.DatabaseError).code === '0A000';
  }
}

/** A share of the connections with a bounded queue in front of it. */
export class Lane {
  readonly #pool: pg.Pool;
  readonly #options: LaneOptions;
  readonly #name: string;
  readonly #cancel: Cancel;
  readonly #lentBefore = new WeakSet<pg.PoolClient>();

  constructor(name: string, url: string, options: LaneOptions, cancel: Cancel) {
    this.#name = name;
    this.#options = options;
    this.#cancel = cancel;
    this.#pool = new pg.Pool({
      connectionString: url,
      max: options.max,
      connectionTimeoutMillis: options.waitMs,
      idleTimeoutMillis: 60_000,
      keepAlive: true,
      application_name: `policy-sidecar ${name}`,
      options: SESSION_OPTIONS,
    });
    // An idle backend that dies is replaced at the next use; nobody waits for it.
    this.#pool.on('error', () => {});
  }

  /** Connections lent out now. */
  get busy(): number {
    return this.#pool.totalCount - this.#pool.idleCount;
  }

  /** Most connections this lane may hold. */
  get max(): number {
    return this.#options.max;
  }

  /** Calls waiting for a connection now. */
  get waiting(): number {
    return this.#pool.waitingCount;
  }

  /**
   * Lends a connection. A full queue or too long a wait is RESOURCE_EXHAUSTED; a database that cannot be reached is
   * UNAVAILABLE; an ended call gets its signal's reason.
   */
  async acquire(signal?: AbortSignal): Promise<Connection> {
    signal?.throwIfAborted();
    if (this.#pool.waitingCount >= this.#options.queue) {
      throw busy('CONNECTION_QUEUE_FULL', `too many calls wait for a ${this.#name} connection`);
    }
    const lent = this.#pool.connect();
    const client = await (signal ? raceAbort(lent, signal) : lent).catch((error: unknown) => {
      throw this.#explain(error);
    });
    const reused = this.#lentBefore.has(client);
    this.#lentBefore.add(client);
    return new Connection(client, this.#cancel, reused);
  }

  /**
   * Lends a connection that has done a first piece of work, which changes nothing if it fails. A backend that died while
   * its connection lay idle is noticed only by that work; then the next connection does it.
   */
  async acquireWith<T>(
    signal: AbortSignal | undefined,
    first: (connection: Connection) => Promise<T>,
  ): Promise<{ connection: Connection; result: T }> {
    for (;;) {
      const connection = await this.acquire(signal);
      try {
        return { connection, result: await first(connection) };
      } catch (error) {
        const broken = connection.release(error);
        if (!(broken && connection.reused)) throw error;
      }
    }
  }

  #explain(error: unknown): unknown {
    const message = error instanceof Error ? error.message : '';
    if (message.startsWith('timeout exceeded when trying to connect')) {
      return this.busy >= this.#options.max
        ? busy('CONNECTION_WAIT_TIMEOUT', `no ${this.#name} connection came free in time`)
        : databaseUnavailable(error);
    }
    if (message.startsWith('Cannot use a pool after calling end')) {
      return shuttingDown();
    }
    return error;
  }

  /** Lends a connection for one piece of work that may be done again: see {@link acquireWith}. */
  async use<T>(signal: AbortSignal | undefined, work: (connection: Connection) => Promise<T>): Promise<T> {
    const { connection, result } = await this.acquireWith(signal, work);
    connection.release();
    return result;
  }

  async end(): Promise<void> {
    await this.#pool.end();
  }
}

/** Waits for a client; a call that ends first leaves at once and the client goes straight back when it comes. */
const raceAbort = (lent: Promise<pg.PoolClient>, signal: AbortSignal): Promise<pg.PoolClient> =>
  new Promise((resolve, reject) => {
    let left = false;
    const onAbort = (): void => {
      left = true;
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    lent.then(
      (client) => {
        signal.removeEventListener('abort', onAbort);
        if (left) client.release();
        else resolve(client);
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort);
        reject(error);
      },
    );
  });

/** The database as the rest of the program sees it: three lanes that cannot starve each other. */
export interface Database {
  /** Auto-commit and single-use calls. */
  readonly calls: Lane;
  /** Open transactions and streams. */
  readonly transactions: Lane;
  /** Health, outcomes and cancellation. */
  readonly reserve: Lane;
  end(): Promise<void>;
}

/** Sizes of the lanes. */
export interface DatabaseOptions {
  readonly calls: LaneOptions;
  readonly transactions: LaneOptions;
}

const RESERVE: LaneOptions = { max: 3, queue: 1000, waitMs: 5_000 };

/** Opens the lanes; connections are made when they are first needed. */
export const openDatabase = (url: string, options: DatabaseOptions): Database => {
  const reserve: Lane = new Lane('reserve', url, RESERVE, () => Promise.resolve());
  const cancel: Cancel = (pid) =>
    reserve.use(undefined, async (connection) => {
      await connection.command('select pg_cancel_backend($1)', [pid]);
    });
  const calls = new Lane('call', url, options.calls, cancel);
  const transactions = new Lane('transaction', url, options.transactions, cancel);
  return {
    calls,
    transactions,
    reserve,
    end: async () => {
      await Promise.all([calls.end(), transactions.end(), reserve.end()]);
    },
  };
};
