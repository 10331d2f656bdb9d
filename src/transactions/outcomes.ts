import type { Lane } from '../database/lane.ts';
import type { Session } from '../database/session.ts';
import { count, firstFlag, type Query, statement } from '../database/statement.ts';
import { column, table } from '../database/table.ts';
import { NO_ROWS } from '../database/text-rows.ts';
import { Outcome as OutcomeRow } from '../entities/outcome.ts';
import { PrunedUntil } from '../entities/pruned-until.ts';
import { pruneRequests } from './once.ts';

/** What the evidence of a transaction's commit is kept under, and what is locked while the transaction is open. */
export interface OutcomeKey {
  /** UUID. */
  readonly id: string;
  /** PostgreSQL's advisory lock. */
  readonly lock: bigint;
}

/** How a transaction ended, as far as the database bears it out. */
export type Outcome = 'committed' | 'aborted' | 'in progress' | 'unknown';

/** SQL of the column that takes the lock $1 for as long as the transaction is open, wherever its sidecar is. */
export const LOCKED = 'pg_try_advisory_xact_lock($1)';

const evidence = statement(
  'outcomes.evidence',
  `insert into ${table(OutcomeRow)} (${column(OutcomeRow, 'id')})
   select $1::uuid where pg_current_xact_id_if_assigned() is not null`,
);

/**
 * What runs right before a commit: a row that is there if and only if the transaction committed. One that has written
 * nothing leaves none, and nothing to write to the log of the database either.
 */
export const evidenceOf = ({ id }: OutcomeKey): Query<unknown> => evidence.with(id);

/** The same before a transaction is prepared, which counts as a write whatever it has done. */
export const preparedEvidenceOf = ({ id }: OutcomeKey): string =>
  `insert into ${table(OutcomeRow)} (${column(OutcomeRow, 'id')}) values ('${id}'::uuid)`;

const exists = statement(
  'outcomes.exists',
  `select count(*) from ${table(OutcomeRow)} where ${column(OutcomeRow, 'id')} = $1::uuid`,
  count,
);

const tryLock = statement('outcomes.try_lock', `select ${LOCKED}`, firstFlag);

const OUTCOMES = 'outcomes';

const isKnown = statement(
  'outcomes.is_known',
  `select not pg_is_in_recovery() and not exists (
     select from ${table(PrunedUntil)} where ${column(PrunedUntil, 'name')} = '${OUTCOMES}'
       and ${column(PrunedUntil, 'until')} >= to_timestamp($1::double precision / 1000))`,
  firstFlag,
);

/**
 * Asks the database how a transaction ended, whichever sidecar held it.
 *
 * @param beganAt by the database's clock, milliseconds since 1970.
 */
export const outcomeOf = async (db: Session, { id, lock }: OutcomeKey, beganAt: number): Promise<Outcome> => {
  if ((await db.row(exists, [id])) === 1n) return 'committed';
  if (!(await db.row(tryLock, [lock]))) return 'in progress';
  // Whoever held the lock until now had committed before it was free.
  if ((await db.row(exists, [id])) === 1n) return 'committed';
  // A standby does not see who works on its primary, and what is pruned leaves no trace of how it ended.
  return (await db.row(isKnown, [beganAt])) ? 'aborted' : 'unknown';
};

const pruneOutcomes = statement(
  'outcomes.prune',
  `with pruned as (
     delete from ${table(OutcomeRow)} where ${column(OutcomeRow, 'committed_at')} < now() - make_interval(secs => $1)
   )
   insert into ${table(PrunedUntil)} (${column(PrunedUntil, 'name')}, ${column(PrunedUntil, 'until')})
   values ('${OUTCOMES}', now() - make_interval(secs => $1))
   on conflict (${column(PrunedUntil, 'name')}) do update
     set ${column(PrunedUntil, 'until')} = greatest(${table(PrunedUntil)}.${column(PrunedUntil, 'until')}, excluded.${column(PrunedUntil, 'until')})`,
);

/** Deletes evidence and stored answers older than the retention (milliseconds). */
export const prune = (lane: Lane, retentionMs: number): Promise<void> =>
  lane.use(undefined, async (connection) => {
    await connection.run(pruneRequests, [retentionMs / 1000], NO_ROWS);
    await connection.run(pruneOutcomes, [retentionMs / 1000], NO_ROWS);
  });
