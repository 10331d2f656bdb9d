import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { type Found, type Tx, txOf, UnreachableError, withClient } from './look.ts';

/** A table that somebody else holds, for longer than a migration waits; the message is one line for the user. */
export class BlockedError extends Error {}

/** How a migration behaves; the defaults suit a database in use. */
export interface Tuning {
  /** Longest that a statement waits for a table, and everybody else behind it. */
  readonly lockMs: number;
  /** How often it tries before it gives up. */
  readonly tries: number;
  /** Tables up to this size are rewritten where they stand; larger ones beside their readers and writers. */
  readonly smallBytes: number;
  /** Longest that a batch of rows keeps writers waiting, about. */
  readonly batchMs: number;
}

export const TUNING: Tuning = { lockMs: 400, tries: 60, smallBytes: 4 * 1024 * 1024, batchMs: 200 };

/** A line for the operator, of what takes time or waits. */
export type Say = (line: string) => void;

/** Two processes that migrate the same database take turns on this advisory lock. */
const LOCK = 7_215_046_101;
/** How often an operator hears of what goes on. */
const NEWS_MS = 5_000;
/** A backend looks once a second whether its client is there still. */
const WATCHED = 'client_connection_check_interval = 1000';
/** A snapshot that the guard kept would be waited for by each index that is built concurrently; one of the worker would be old. */
const BEGIN = 'begin isolation level read committed';
/** Whoever migrates takes the time that it takes. The last one is new in PostgreSQL 17. */
const UNLIMITED = `set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
  select set_config('transaction_timeout', '0', true) where current_setting('transaction_timeout', true) is not null`;
const LOCK_TIMEOUT = '55P03';
const DEADLOCK = '40P01';

interface Blocker {
  readonly pid: string;
  readonly text: string;
}

const age = (seconds: string | null): string => (seconds === null ? '' : `, ${Math.round(Number(seconds))} s`);

const BLOCKER = `pid, coalesce(nullif(application_name, ''), backend_type, '') as application, coalesce(state, '') as state,
  extract(epoch from clock_timestamp() - coalesce(xact_start, query_start)) as age`;

const blocker = (row: Found): Blocker => {
  const what = [row.text('application'), row.text('state')].filter(Boolean).join(', ');
  const pid = row.text('pid');
  return { pid, text: `pid ${pid} (${what}${age(row.maybe('age'))})` };
};

const PROGRESS = `select phase,
    round(100.0 * coalesce(nullif(blocks_done, 0), tuples_done)
      / nullif(case when blocks_done > 0 then blocks_total else tuples_total end, 0)) as percent,
    (select format('pid %s (%s, %s)', a.pid, a.application_name, a.state) from pg_stat_activity a
      where a.pid = nullif(current_locker_pid, 0)) as locker
  from pg_stat_progress_create_index where datname = current_database() limit 1`;

/**
 * Connections of one migration: a worker, a guard that holds the turn, and a watcher that says who blocks the worker.
 *
 * The turn is an advisory lock of an open transaction, so that it also holds behind a pooler that gives a connection away
 * at the end of each transaction; for the same reason every setting of the worker is one of its transaction.
 */
export class Migrating {
  readonly #worker: pg.Client;
  readonly #watcher: pg.Client;
  readonly #say: Say;
  readonly #settings: string;
  #lost = false;
  /** The worker's backend, while it is in a transaction. */
  #pid: string | undefined;
  readonly #watched: boolean;
  readonly tuning: Tuning;

  constructor(
    { worker, guard, watcher }: Readonly<Record<'worker' | 'guard' | 'watcher', pg.Client>>,
    watched: boolean,
    say: Say,
    tuning: Tuning,
  ) {
    this.#worker = worker;
    this.#watcher = watcher;
    this.#say = say;
    this.#watched = watched;
    this.tuning = tuning;
    guard.on('end', () => {
      this.#lost = true;
    });
    this.#settings = [
      // Whoever is waited for, the readers of the table wait behind this.
      `set local lock_timeout = ${tuning.lockMs}`,
      UNLIMITED,
      // Zone-less instants are UTC.
      `set local timezone = 'UTC'`,
      // Definitions are read and written with every name in full.
      'set local search_path = pg_catalog',
      'set local quote_all_identifiers = off; set local standard_conforming_strings = on',
      // A number keeps its digits on the way through its text.
      'set local extra_float_digits = 1',
      // A killed migration leaves no backend that goes on and blocks.
      ...(watched ? [`set local ${WATCHED}`] : []),
    ].join('; ');
  }

  /** Says a line. */
  say(line: string): void {
    this.#say(line);
  }

  async #transaction<T>(end: 'commit' | 'rollback', work: (tx: Tx) => Promise<T>): Promise<T> {
    if (this.#lost) throw new UnreachableError('the connection that holds the turn to migrate is gone');
    const tx = txOf(this.#worker);
    await tx.run(`${BEGIN}; ${this.#settings}`);
    try {
      this.#pid = (await tx.row('select pg_backend_pid() as pid')).text('pid');
      const result = await work(tx);
      await tx.run(end);
      return result;
    } catch (error) {
      await tx.run('rollback').catch(() => {});
      throw error;
    } finally {
      this.#pid = undefined;
    }
  }

  /** Looks, and leaves no trace; may make temporary tables. */
  async look<T>(work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#patiently('a look at the catalog', () => this.#transaction('rollback', work));
  }

  /** A short transaction that may want a table for itself: it lets go when it has to wait, and tries again. */
  async short<T>(what: string, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#patiently(what, () => this.#transaction('commit', work));
  }

  /** A transaction that reads for long and locks nothing that anybody waits for. */
  async long<T>(what: string, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#withNews(what, () => this.short(what, work));
  }

  /** A statement that stands outside of every transaction. It keeps no reader and no writer waiting. */
  async alone(what: string, sql: string): Promise<void> {
    // Behind a pooler this may reach another connection than the statement: it harms none.
    if (this.#watched) await this.#worker.query(`set ${WATCHED}`);
    if (this.#lost) throw new UnreachableError('the connection that holds the turn to migrate is gone');
    await this.#withNews(what, async () => {
      await this.#worker.query(sql);
    });
  }

  async #patiently<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    const told = { at: 0 };
    for (let tried = 1; ; tried += 1) {
      let found: readonly Blocker[] = [];
      const watch = this.#watch(async (pid) => {
        const blockers = await this.#blockersOf(pid);
        if (blockers.length > 0) found = blockers;
      });
      try {
        return await attempt();
      } catch (error) {
        const { code } = error as { code?: string };
        if (code !== LOCK_TIMEOUT && code !== DEADLOCK) throw error;
        const who = found.length > 0 ? found.map(({ text }) => text).join(', ') : 'another transaction';
        if (tried >= this.tuning.tries) throw new BlockedError(`${what} is blocked by ${who}; run it again`);
        if (Date.now() - told.at > NEWS_MS) {
          this.#say(`waiting: ${what} is blocked by ${who}`);
          told.at = Date.now();
        }
      } finally {
        await watch();
      }
      // Whoever waited behind this attempt goes first.
      await sleep(Math.min(2_000, this.tuning.lockMs * tried) * (0.75 + Math.random() / 2));
    }
  }

  /** Calls `look` with the worker's backend from time to time; the result ends that. */
  #watch(look: (pid: string) => Promise<void>): () => Promise<void> {
    let looking = Promise.resolve();
    const timer = setInterval(
      () => {
        const pid = this.#pid;
        if (pid !== undefined) looking = looking.then(() => look(pid)).catch(() => {});
      },
      Math.max(50, this.tuning.lockMs / 3),
    );
    return async () => {
      clearInterval(timer);
      await looking;
    };
  }

  async #blockersOf(pid: string): Promise<readonly Blocker[]> {
    const found = await txOf(this.#watcher).rows(
      `select ${BLOCKER} from pg_stat_activity where pid = any(pg_blocking_pids($1)) order by xact_start limit 3`,
      [pid],
    );
    return found.map(blocker);
  }

  /** Says what goes on while something takes long. */
  async #withNews<T>(what: string, work: () => Promise<T>): Promise<T> {
    const began = Date.now();
    let news = Promise.resolve();
    const timer = setInterval(() => {
      news = news.then(async () => {
        // The work goes on without its watcher.
        const [row] = await txOf(this.#watcher)
          .rows(PROGRESS)
          .catch(() => []);
        const [phase, percent, locker] = ['phase', 'percent', 'locker'].map((name) => row?.maybe(name));
        const how = phase ? `: ${phase}${percent ? ` ${percent} %` : ''}${locker ? `, for ${locker}` : ''}` : '';
        this.#say(`${what}${how} (${Math.round((Date.now() - began) / 1_000)} s)`);
      });
    }, NEWS_MS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
      await news;
    }
  }
}

const HOLDER = `select ${BLOCKER} from pg_stat_activity where pid = (select pid from pg_locks
  where locktype = 'advisory' and granted and objsubid = 1 and database = (select oid from pg_database where datname = current_database())
    and (classid::bigint << 32) | objid::bigint = ${LOCK} limit 1)`;

/** Waits for the turn; says who has it. It ends with the guard's transaction. */
const takeTurn = async (guard: pg.Client, say: Say): Promise<void> => {
  const { rows, row } = txOf(guard);
  for (;;) {
    await guard.query(`${BEGIN}; ${UNLIMITED}; set local lock_timeout = ${NEWS_MS}`);
    if ((await row(`select pg_try_advisory_xact_lock(${LOCK}) as mine`)).flag('mine')) return;
    const [holder] = await rows(HOLDER);
    say(`waiting: ${holder ? blocker(holder).text : 'another process'} migrates this database`);
    try {
      await guard.query(`select pg_advisory_xact_lock(${LOCK})`);
      return;
    } catch (error) {
      await guard.query('rollback');
      if ((error as { code?: string }).code !== LOCK_TIMEOUT) throw error;
    }
  }
};

/**
 * Takes the turn to migrate a database for one piece of work.
 *
 * The guard is asked nothing with parameters: PostgreSQL keeps the snapshot of such a question until the next one, and an
 * index that is built concurrently waits for every snapshot.
 */
export const withTurn = (
  url: string,
  { say, tuning }: { readonly say: Say; readonly tuning: Tuning },
  work: (migrating: Migrating) => Promise<void>,
): Promise<void> =>
  withClient(url, (guard) =>
    withClient(url, (worker) =>
      withClient(url, async (watcher) => {
        await takeTurn(guard, say);
        // Before version 14, and on some systems, a server cannot tell that its client is gone while it works.
        const watched = await watcher.query(`set ${WATCHED}`).then(
          () => true,
          () => false,
        );
        await work(new Migrating({ worker, guard, watcher }, watched, say, tuning));
        await guard.query('commit');
      }),
    ),
  );
