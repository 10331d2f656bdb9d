import type { Logger } from 'pino';
import type { Database } from '../database/pool.ts';
import { problemOf } from '../database/sqlstate.ts';
import { prune } from '../transactions/outcomes.ts';
import { sweepPrepared } from '../transactions/prepared.ts';
import type { TransactionRegistry } from '../transactions/registry.ts';
import type { Audit } from './audit.ts';
import { shownId } from './call-log.ts';

/** How often stored answers past their retention are deleted. */
const PRUNE_MS = 600_000;
/** How long after a start that is done first. */
const FIRST_PRUNE_MS = 60_000;
const OVERDUE = 'its lease ended while it was prepared';
const OVERDUE_KEPT = 'a prepared transaction is past its lease and could not be rolled back';

/**
 * Does again and again what no call asks for: deletes what has been kept long enough, and ends what was prepared and
 * forgotten.
 *
 * @param retentionMs how long stored answers and outcomes are kept.
 * @returns what ends it.
 */
export const startChores = ({
  database,
  retentionMs,
  transactions,
  audit,
  log,
}: {
  readonly database: Database;
  readonly retentionMs: number;
  readonly transactions: TransactionRegistry;
  readonly audit: Audit;
  readonly log: Logger;
}): (() => void) => {
  const pruneOnce = (): void => {
    prune(database.reserve, retentionMs).catch((error: unknown) => {
      log.warn({ problem: problemOf(error) }, 'stored answers could not be pruned');
    });
  };
  // Where none lives long, somebody has to, too; but not all at once with everything else of a start.
  const first = setTimeout(pruneOnce, FIRST_PRUNE_MS).unref();
  const pruning = setInterval(pruneOnce, PRUNE_MS).unref();
  const sweeping = sweepPrepared(database, {
    ended: (id) => {
      transactions.settled(id, 'rolled back', OVERDUE);
      audit.overdue(id, OVERDUE);
      log.warn({ transaction: shownId(id) }, 'a prepared transaction was rolled back: nobody ended it in its lease');
    },
    failed: (error, id) => {
      if (id === undefined) log.warn({ problem: problemOf(error) }, 'prepared transactions cannot be looked through');
      else log.warn({ problem: problemOf(error), transaction: shownId(id) }, OVERDUE_KEPT);
    },
  });
  return () => {
    clearTimeout(first);
    clearInterval(pruning);
    clearInterval(sweeping);
  };
};
