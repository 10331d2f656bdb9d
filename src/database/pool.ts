import pg from 'pg';
import { type RpcError, refuse } from '../contract/errors.ts';
import { Client, type ClientOptions } from './client.ts';
import { Connection, type Shared } from './connection.ts';
import { Gate } from './gate.ts';
import type { Signal } from './signal.ts';
import { connectError, databaseUnavailable, isStalePlan, shuttingDown } from './sqlstate.ts';
import type { Target } from './target.ts';

/** Limits of one share of the connections. */
export interface LaneOptions {
  /** Connections at most. */
  readonly max: number;
  /** Calls that may wait for one. */
  readonly queue: number;
  /** Longest wait, milliseconds. */
  readonly waitMs: number;
}

const IDLE_MS = 60_000;

/** A share of the connections with a bounded queue in front of it. */
export class Lane {
  readonly #pool: pg.Pool;
  readonly #options: LaneOptions;
  readonly #name: string;
  readonly #shared: Shared;
  readonly #clients = new Set<Client>();
  readonly #lent = new Set<Client>();
  readonly #lentBefore = new WeakSet<Client>();

  constructor(
    name: string,
    client: Omit<ClientOptions, 'applicationName' | 'connectMs'>,
    shared: Shared,
    options: LaneOptions,
  ) {
    this.#name = name;
    this.#options = options;
    this.#shared = shared;
    const clients = this.#clients;
    const clientOptions: ClientOptions = {
      ...client,
      connectMs: options.waitMs,
      applicationName: `policy-sidecar ${name}`,
    };
    this.#pool = new pg.Pool({
      max: options.max,
      connectionTimeoutMillis: options.waitMs,
      idleTimeoutMillis: IDLE_MS,
      Client: class extends Client {
        constructor() {
          super(clientOptions);
          clients.add(this);
          this.on('end', () => clients.delete(this));
        }
      } as never,
    });
    // An idle backend that dies is replaced at the next use; nobody waits for it.
    this.#pool.on('error', () => {});
  }

  /** Most connections this lane may hold. */
  get max(): number {
    return this.#options.max;
  }

  /**
   * Lends a connection. A full queue or too long a wait is RESOURCE_EXHAUSTED; a database that cannot be reached is
   * UNAVAILABLE; an ended call gets its signal's reason.
   */
  async acquire(signal?: Signal): Promise<Connection> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.#pool.waitingCount >= this.#options.queue) {
        throw refuse('CONNECTION_QUEUE_FULL', `too many calls wait for a ${this.#name} connection`);
      }
      const lent = this.#pool.connect();
      const found = await (signal ? raceAbort(lent, signal) : lent).catch((error: unknown) => {
        throw signal?.aborted ? signal.reason : this.#explain(error);
      });
      const client = found as unknown as Client & pg.PoolClient;
      if (client.bornAt >= this.#shared.trustedSince) return this.#lend(client);
      client.release(true);
      client.destroy(new Error('left'));
    }
  }

  #lend(client: Client & pg.PoolClient): Connection {
    const reused = this.#lentBefore.has(client);
    this.#lentBefore.add(client);
    this.#lent.add(client);
    return new Connection(client, this.#shared, reused, (broken) => {
      this.#lent.delete(client);
      client.release(broken);
      if (broken) client.destroy(new Error('left'));
    });
  }

  /**
   * Lends a connection that has done a first piece of work, which changes nothing if it fails. A backend that died while
   * its connection lay idle, or whose plan is of an older schema, is noticed only by that work; then it is done again.
   */
  async acquireWith<T>(
    signal: Signal | undefined,
    first: (connection: Connection) => Promise<T>,
  ): Promise<{ connection: Connection; result: T }> {
    for (let replanned = false; ; ) {
      const connection = await this.acquire(signal);
      try {
        return { connection, result: await first(connection) };
      } catch (error) {
        const lost = connection.release();
        const stale: boolean = !replanned && isStalePlan(error);
        replanned ||= stale;
        if (!stale && !(lost && connection.reused && !signal?.aborted)) throw error;
      }
    }
  }

  #explain(error: unknown): RpcError {
    const message = error instanceof Error ? error.message : '';
    if (message.startsWith('timeout exceeded when trying to connect')) {
      return this.#lent.size >= this.#options.max
        ? refuse('CONNECTION_WAIT_TIMEOUT', `no ${this.#name} connection came free in time`)
        : databaseUnavailable(error);
    }
    if (message.startsWith('Cannot use a pool after calling end')) return shuttingDown();
    return connectError(error);
  }

  /**
   * Lends a connection for one piece of work that must not be done again, unless it has certainly done nothing: its plan
   * was of an older schema.
   */
  async useOnce<T>(signal: Signal | undefined, work: (connection: Connection) => Promise<T>): Promise<T> {
    for (let replanned = false; ; replanned = true) {
      const connection = await this.acquire(signal);
      try {
        return await work(connection);
      } catch (error) {
        if (replanned || !isStalePlan(error)) throw error;
      } finally {
        connection.release();
      }
    }
  }

  /** Lends a connection for one piece of work that may be done again: see {@link acquireWith}. */
  async use<T>(signal: Signal | undefined, work: (connection: Connection) => Promise<T>): Promise<T> {
    const { connection, result } = await this.acquireWith(signal, work);
    connection.release();
    return result;
  }

  /** Closes what lies idle. */
  refresh(reason: Error): void {
    for (const client of this.#clients) if (client.ready && !this.#lent.has(client)) client.destroy(reason);
  }

  /** Lends nothing any more; settles when everything has come back. */
  async end(): Promise<void> {
    await this.#pool.end();
  }

  /** Cuts every connection off, whatever it does. */
  destroy(reason: Error): void {
    for (const client of this.#clients) client.destroy(reason);
  }
}

/** Waits for a client; a call that ends first leaves at once and the client goes straight back when it comes. */
const raceAbort = (lent: Promise<pg.PoolClient>, signal: Signal): Promise<pg.PoolClient> =>
  new Promise((resolve, reject) => {
    let left = false;
    const onAbort = (): void => {
      left = true;
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort);
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
  /** Single-use writes pass here first: those that wait for a lock leave connections to the reads. */
  readonly writes: Gate;
  /** Open transactions and streams. */
  readonly transactions: Lane;
  /** Health and outcomes. */
  readonly reserve: Lane;
  /**
   * Leaves every connection, at once or when it comes back: after an outage nobody knows which still reach the server,
   * and after a failover, which server.
   */
  refresh(reason: Error): void;
  /** Lends nothing any more and waits for what is lent, at most so long (milliseconds); then cuts it off. */
  end(patienceMs: number): Promise<void>;
}

/** Sizes of the lanes, and the clocks. */
export interface DatabaseOptions {
  readonly calls: LaneOptions;
  readonly transactions: LaneOptions;
  /** Longest time a statement may take, milliseconds. */
  readonly statementMs: number;
  /** Longest wait for a lock, milliseconds. */
  readonly lockMs: number;
  readonly pooler: ClientOptions['pooler'];
}

const RESERVE: LaneOptions = { max: 3, queue: 1000, waitMs: 5_000 };

/** How often statements are looked at that may have taken too long, milliseconds. */
const LOOK_MS = 50;

/** Of ten connections for calls, those that writes leave to reads. */
const READ_SHARE = 0.3;

/** Opens the lanes; connections are made when they are first needed. */
export const openDatabase = (target: Target, options: DatabaseOptions): Database => {
  const { lockMs, statementMs, pooler } = options;
  const shared: Shared = {
    generation: 0,
    prepared: new Map(),
    bound: new Map(),
    named: true,
    forgotAt: Number.NEGATIVE_INFINITY,
    trustedSince: 0,
    statementMs,
    lockMs,
    overdue: new Map(),
  };
  const client = { target, pooler, lockMs };
  const reserve = new Lane('reserve', client, shared, RESERVE);
  const calls = new Lane('call', client, shared, options.calls);
  const transactions = new Lane('transaction', client, shared, options.transactions);
  const lanes = [calls, transactions, reserve];
  const { max, queue, waitMs } = options.calls;
  const writes = new Gate('call', { slots: Math.max(1, max - Math.ceil(max * READ_SHARE)), queue, waitMs });
  const clock = setInterval(() => {
    const now = performance.now();
    for (const [onOverdue, at] of shared.overdue) if (now >= at) onOverdue();
  }, LOOK_MS).unref();
  return {
    calls,
    writes,
    transactions,
    reserve,
    refresh: (reason) => {
      shared.trustedSince = performance.now();
      for (const lane of lanes) lane.refresh(reason);
    },
    end: async (patienceMs) => {
      const cut = setTimeout(() => {
        for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
      }, patienceMs);
      await Promise.all(lanes.map((lane) => lane.end()));
      clearTimeout(cut);
      clearInterval(clock);
      // The end of a pool does not wait for its sockets, and a server that is gone never closes them.
      for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
    },
  };
};
