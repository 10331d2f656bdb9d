import pg from 'pg';
import type { Client } from './client.ts';
import { CANCEL_MS } from './client.ts';
import { databaseError, databaseUnavailable, statementTimeout } from './sqlstate.ts';
import type { Param, Row, Statement } from './statement.ts';

/** Every value travels as PostgreSQL's text: the codecs of this folder, not `pg`, decide what it becomes. */
const RAW = { getTypeParser: () => (text: unknown) => text } as unknown as pg.CustomTypesConfig;

/** Outcome of a statement. */
export interface Result<T> {
  readonly rows: T[];
  /** Rows returned or affected, as PostgreSQL counts them. */
  readonly count: number;
}

/** Isolation levels in PostgreSQL's words. */
export type Isolation = 'read committed' | 'repeatable read' | 'serializable';

/** How a transaction is to be run. */
export interface TransactionMode {
  readonly isolation: Isolation;
  readonly readOnly: boolean;
  /** Only with serializable and read-only: wait for a snapshot that cannot fail. */
  readonly deferrable: boolean;
}

/** What the connections of a database have in common. */
export interface Shared {
  /**
   * Generation of the prepared statements' names: raised when a plan turns out to be of an older schema, so that every
   * connection prepares anew before it, too, meets the old plan.
   */
  generation: number;
  /** False once the server turned out not to keep prepared statements for a connection. */
  named: boolean;
  /** When a server last turned out to have forgotten a prepared statement, by the clock of `performance.now()`. */
  forgotAt: number;
  /** Connections made before are used no more, for nobody knows what they are by now; the same clock. */
  trustedSince: number;
  /** Longest time a statement may take, milliseconds, whoever waits for it. */
  readonly statementMs: number;
  /** Longest wait for a lock, milliseconds, where it cannot be set for the session. */
  readonly lockMs: number | undefined;
  /** Statements under way, with the time at which they have taken too long; looked at now and then. */
  readonly overdue: Map<() => void, number>;
}

/** Time in which a backend must answer what only tidies up, before its connection is given up, milliseconds. */
export const TIDY_MS = 1_000;

/** `pg` writes a negative zero without its sign. */
const bound = (param: Param): unknown => (Object.is(param, -0) ? '-0' : param);

const STALE_PLAN = 'RevalidateCachedQuery';
const UNKNOWN_STATEMENT = '26000';
const DUPLICATE_STATEMENT = '42P05';

/** A server that forgets statements twice within this time, on new connections, keeps none; milliseconds. */
const FORGETFUL_MS = 60_000;

/** SQL that begins a transaction. Whether it may write where nobody has said, the server decides: it may be short of disk. */
const beginText = ({ isolation, readOnly, deferrable }: TransactionMode): string =>
  `begin isolation level ${isolation}${readOnly ? ' read only' : ''}${deferrable ? ' deferrable' : ''}`;

/** One backend, lent to one piece of work at a time. It alone knows whether it may be lent again. */
export class Connection {
  readonly #client: Client;
  readonly #shared: Shared;
  readonly #giveBack: (broken: boolean) => void;
  /** Of the transaction that it is in. */
  #mode: TransactionMode | undefined;
  /** The server has refused the last thing it was asked: `pg` tells the state of the transaction only later. */
  #failed = false;
  #unusable = false;
  #released = false;

  /** True when it has been lent before, so that its backend may have died since without anybody noticing. */
  readonly reused: boolean;

  constructor(client: Client, shared: Shared, reused: boolean, giveBack: (broken: boolean) => void) {
    this.#client = client;
    this.#shared = shared;
    this.reused = reused;
    this.#giveBack = giveBack;
  }

  /** Told when the backend goes away. */
  set onLost(listener: ((error: Error) => void) | undefined) {
    this.#client.onLost = listener;
  }

  /** True when the backend is gone. */
  get lost(): boolean {
    return this.#client.lost !== undefined;
  }

  /** True while a failed statement keeps the transaction from going on. */
  get aborted(): boolean {
    return this.#mode !== undefined && this.#failed;
  }

  /**
   * Runs a prepared statement. When the signal fires, or the statement takes too long, the backend is told to stop; one
   * that does not is left behind. Either way the call goes on within {@link CANCEL_MS}.
   *
   * @throws RpcError as the SQLSTATE table has it, or the signal's reason.
   */
  async run<T>(statement: Statement<T>, params: readonly Param[], signal?: AbortSignal): Promise<Result<T>> {
    const { generation, named } = this.#shared;
    const name = generation === 0 ? statement.name : `${statement.name}~${generation}`;
    const result = await this.#guarded(signal, this.#shared.statementMs, statement.reads, () =>
      this.#client.query<string[]>({
        ...(named && this.#client.pooler !== 'transaction' ? { name } : {}),
        text: statement.text,
        values: params.map(bound),
        rowMode: 'array',
        types: RAW,
      } as pg.QueryArrayConfig),
    );
    return { rows: (result.rows as unknown as Row[]).map(statement.map), count: result.rowCount ?? 0 };
  }

  /**
   * Runs an unprepared command (`savepoint`, `fetch`, …), or several in one round trip.
   *
   * @param limitMs how long it may take.
   * @returns rows and tag of the last of them.
   */
  async command(
    text: string,
    signal?: AbortSignal,
    limitMs = this.#shared.statementMs,
  ): Promise<{ rows: Row[]; tag: string }> {
    return (await this.commands(text, signal, limitMs)).at(-1)!;
  }

  /** As {@link Connection.command}: rows and tags of all of them. */
  async commands(
    text: string,
    signal?: AbortSignal,
    limitMs = this.#shared.statementMs,
    params?: readonly Param[],
  ): Promise<{ rows: Row[]; tag: string }[]> {
    const outcome = await this.#guarded(signal, limitMs, true, () =>
      this.#client.query({
        text,
        rowMode: 'array',
        types: RAW,
        ...(params ? { values: params.map(bound) } : {}),
      } as pg.QueryArrayConfig),
    );
    const results = (Array.isArray(outcome) ? outcome : [outcome]) as pg.QueryArrayResult[];
    return results.map(({ rows, command }) => ({ rows: rows as Row[], tag: command }));
  }

  /**
   * Begins a transaction.
   *
   * @param then SQL that runs in the same round trip; left out: nothing.
   * @returns the rows of that.
   */
  async begin(mode: TransactionMode, signal: AbortSignal | undefined, then?: string): Promise<Row[]> {
    this.#mode = mode;
    const { lockMs } = this.#shared;
    const local =
      this.#client.pooler === 'transaction' && lockMs !== undefined ? [`set local lock_timeout = ${lockMs}`] : [];
    try {
      const { rows } = await this.command([beginText(mode), ...local, ...(then ? [then] : [])].join('; '), signal);
      return rows;
    } catch (error) {
      await this.rollback();
      throw error;
    }
  }

  /**
   * Commits. Not cancelled by anybody once begun.
   *
   * @param evidence SQL that runs before the commit in the same round trip; left out: nothing.
   * @returns whether it is committed (a failed transaction is rolled back instead), and the rows of the evidence.
   */
  async commit(evidence?: string): Promise<{ committed: boolean; evidence: readonly Row[] }> {
    const results = await this.commands(evidence ? `${evidence}; commit` : 'commit');
    this.#mode = undefined;
    return { committed: results.at(-1)!.tag === 'COMMIT', evidence: evidence ? results[0]!.rows : [] };
  }

  /** Rolls back, whatever the state; a backend that does not answer is left behind and does so by itself. */
  async rollback(): Promise<void> {
    if (this.#mode && !this.lost) await this.command('rollback', undefined, TIDY_MS).catch(() => {});
    this.#mode = undefined;
  }

  async #guarded<T>(
    signal: AbortSignal | undefined,
    limitMs: number,
    reads: boolean,
    query: () => Promise<T>,
  ): Promise<T> {
    const client = this.#client;
    if (client.lost) throw databaseUnavailable(client.lost);
    signal?.throwIfAborted();
    const began = performance.now();
    let late = false;
    let stopping: Promise<boolean> | undefined;
    let patience: NodeJS.Timeout | undefined;
    const stop = (): void => {
      if (stopping) return;
      stopping = client.cancel();
      patience = setTimeout(() => client.destroy(new Error('a statement could not be stopped')), CANCEL_MS);
    };
    const onOverdue = (): void => {
      late = true;
      stop();
    };
    this.#shared.overdue.set(onOverdue, began + limitMs);
    signal?.addEventListener('abort', stop, { once: true });
    try {
      const result = await query();
      this.#failed = false;
      return result;
    } catch (error) {
      if (error instanceof pg.DatabaseError) this.#failed = true;
      const stopped = client.lost !== undefined || (error as pg.DatabaseError).code === '57014';
      if (signal?.aborted && stopped) throw signal.reason;
      if (late && stopped) throw statementTimeout(limitMs, error);
      throw this.#explain(error, reads, performance.now() - began);
    } finally {
      this.#shared.overdue.delete(onOverdue);
      signal?.removeEventListener('abort', stop);
      clearTimeout(patience);
      // The next user of this backend must not be hit by a request that was meant for this statement.
      if (stopping && !(await stopping)) client.destroy(new Error('a request to stop a statement got no answer'));
    }
  }

  /** What became of the connection, and what the caller sees. */
  #explain(error: unknown, reads: boolean, tookMs: number): unknown {
    const client = this.#client;
    if (!(error instanceof pg.DatabaseError)) {
      return client.lost ? databaseUnavailable(error) : error;
    }
    const { code, routine, severity } = error;
    if (severity === 'FATAL' || severity === 'PANIC') {
      client.destroy(error);
      return databaseError(error, { reads });
    }
    if (code === '0A000' && routine === STALE_PLAN) {
      this.#shared.generation += 1;
      return databaseError(error, { stalePlan: true });
    }
    if (code === UNKNOWN_STATEMENT || code === DUPLICATE_STATEMENT) {
      this.#noteForgotten();
      return databaseError(error, { stalePlan: true });
    }
    const readOnlyDatabase = code === '25006' && !this.#mode?.readOnly;
    // Where this server was followed to, another may be the one to write to by now.
    if (readOnlyDatabase) this.#unusable = true;
    const { statementTimeoutMs } = client;
    return databaseError(error, {
      reads,
      readOnlyDatabase,
      ownLimit: statementTimeoutMs > 0 && tookMs >= statementTimeoutMs,
    });
  }

  /** Whoever makes a session forget its statements (`discard all`) makes it forget its settings, too, and others with it. */
  #noteForgotten(): void {
    const shared = this.#shared;
    const now = performance.now();
    if (this.#client.bornAt > shared.forgotAt && now - shared.forgotAt < FORGETFUL_MS) shared.named = false;
    // Of those that find out together, one is enough.
    if (this.#client.bornAt < shared.trustedSince) return;
    shared.forgotAt = now;
    shared.trustedSince = now;
  }

  /** The database turned out to be read-only although nobody asked for that: it is left, so that a failover is followed. */
  leave(): void {
    this.#unusable = true;
  }

  /** Gives the connection back; one that is lost, or in the middle of something, is closed. Returns whether it was lost. */
  release(): boolean {
    const { lost } = this;
    if (this.#released) return lost;
    this.#released = true;
    this.#client.onLost = undefined;
    const isIdle = this.#mode === undefined && this.#client.getTransactionStatus() === 'I';
    const trusted = this.#client.bornAt >= this.#shared.trustedSince;
    const clean = isIdle && !lost && trusted && !this.#unusable;
    this.#giveBack(!clean);
    return lost;
  }
}
