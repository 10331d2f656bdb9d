import { setTimeout as sleep } from 'node:timers/promises';
import { RpcError, refuse } from '../contract/errors.ts';
import type { Connection } from '../database/connection.ts';
import type { Lane } from '../database/lane.ts';
import type { Database } from '../database/pool.ts';
import type { Session } from '../database/session.ts';
import type { Signal } from '../database/signal.ts';
import { isServerError } from '../database/sqlstate.ts';
import { firstText, statement } from '../database/statement.ts';

/** A transaction that a sidecar has prepared, as PostgreSQL keeps it. */
export interface PreparedTransaction {
  readonly id: string;
  /** Timestamp text of PostgreSQL. */
  readonly preparedAt: string;
  readonly expiresAt: string;
}

/** What PostgreSQL keeps a prepared transaction under: names of others' mean nothing here. */
const PREFIX = 'policy-sidecar';

/** Its name, which holds all that any sidecar must know to end it: ids are letters, digits, `-` and `_` alone. */
export const preparedName = (id: string, leaseMs: number): string => `${PREFIX}:${leaseMs}:${id}`;

/** Those that sidecars have prepared in this database. */
const PREPARED = `from (select gid, prepared, split_part(gid, ':', 2)::bigint * interval '1 ms' as lease,
     split_part(gid, ':', 3) as id
   from pg_prepared_xacts
   where database = current_database() and gid ~ '^${PREFIX}:[0-9]{1,12}:[A-Za-z0-9_-]+$' offset 0) as own`;

const byId = statement('prepared.by_id', `select gid ${PREPARED} where id = $1`, firstText);

const all = statement(
  'prepared.all',
  `select id, prepared, prepared + lease ${PREPARED} order by prepared, id`,
  ([id, preparedAt, expiresAt]): PreparedTransaction => ({
    id: id!,
    preparedAt: preparedAt!,
    expiresAt: expiresAt!,
  }),
);

const overdue = statement(
  'prepared.overdue',
  `select id ${PREPARED} where prepared + lease < clock_timestamp() and not pg_is_in_recovery()`,
  firstText,
);

/** What PostgreSQL says of a prepared transaction that another session is ending, or has just ended. */
const TAKEN: ReadonlySet<string | undefined> = new Set(['42704', '55000']);
const AGAIN_MS = 10;

/** All that are prepared, oldest first. */
export const preparedTransactions = (db: Session): Promise<PreparedTransaction[]> => db.rows(all, []);

/**
 * Refuses a transaction that the database could not keep, before that costs it its life.
 *
 * @throws PREPARED_TRANSACTIONS_OFF, PREPARED_TRANSACTIONS_LIMIT.
 */
export const roomForPrepared = async (connection: Connection, signal: Signal | undefined): Promise<void> => {
  const { rows } = await connection.command(
    `select current_setting('max_prepared_transactions'), (select count(*) from pg_prepared_xacts)`,
    { signal },
  );
  const [most, kept] = rows[0]!.map(Number);
  if (most === 0) {
    throw refuse(
      'PREPARED_TRANSACTIONS_OFF',
      'the database keeps no prepared transactions: its max_prepared_transactions is 0',
    );
  }
  if (kept! >= most!) {
    throw refuse('PREPARED_TRANSACTIONS_LIMIT', `the database keeps ${most} prepared transactions already`, {
      metadata: { limit: String(most) },
    });
  }
};

/**
 * Ends a prepared transaction. Once asked for it is not cancelled.
 *
 * @param onMark told where the log stands after it, where that is known.
 * @returns false where there is none of that id.
 */
export const endPrepared = async (
  { reserve, ends }: Pick<Database, 'reserve' | 'ends'>,
  id: string,
  how: 'commit' | 'rollback',
  signal?: Signal,
  onMark: (mark: string | undefined) => void = () => {},
): Promise<boolean> => {
  const end = async (connection: Connection): Promise<'none' | 'ended' | 'taken'> => {
    const [name] = await connection.rows(byId.with(id), signal);
    if (name === undefined) return 'none';
    try {
      await connection.finish(`${how} prepared '${name}'`);
      onMark(connection.mark);
      return 'ended';
    } catch (error) {
      if (error instanceof RpcError && isServerError(error.cause) && TAKEN.has(error.cause.code)) return 'taken';
      throw error;
    }
  };
  for (;;) {
    signal?.throwIfAborted();
    const found = await reserve.use(signal, end, ends);
    if (found !== 'taken') return found === 'ended';
    await sleep(AGAIN_MS);
  }
};

const overdueIds = async (lane: Lane, signal: Signal): Promise<string[]> => {
  const found = await lane.use(signal, (connection) => connection.rows(overdue.with(), signal));
  return found.filter((id) => id !== undefined);
};

/** How often it is looked for what nobody has ended. */
const SWEEP_MS = 5_000;

/** Who is told of what nobody has ended, and once of what cannot be ended, or that it cannot be looked for. */
export interface SweepReport {
  ended(id: string): void;
  failed(error: unknown, id?: string): void;
}

/** Rolls back again and again what nobody has ended within its lease. What another role has prepared is left to it. */
export const sweepPrepared = (database: Database, report: SweepReport): NodeJS.Timeout => {
  let failing = false;
  let stuck: ReadonlySet<string> = new Set();
  const sweep = async (signal: AbortSignal): Promise<void> => {
    const failed = new Set<string>();
    for (const id of await overdueIds(database.reserve, signal)) {
      try {
        if (await endPrepared(database, id, 'rollback', signal)) report.ended(id);
      } catch (error) {
        if (signal.aborted) throw error;
        failed.add(id);
        if (!stuck.has(id)) report.failed(error, id);
      }
    }
    stuck = failed;
  };
  return setInterval(() => {
    sweep(AbortSignal.timeout(SWEEP_MS)).then(
      () => {
        failing = false;
      },
      (error: unknown) => {
        if (!failing) report.failed(error);
        failing = true;
      },
    );
  }, SWEEP_MS).unref();
};
