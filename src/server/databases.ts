import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { type Database, type DatabaseOptions, openDatabase } from '../database/pool.ts';
import { Replicas } from '../database/replicas.ts';
import { readTarget, type Target } from '../database/target.ts';
import type { Telemetry } from '../telemetry/telemetry.ts';

/** Where calls are run. */
export interface Databases {
  readonly database: Database;
  readonly replicas: Replicas | undefined;
  /** Lends nothing any more and waits for what is lent, at most so long (milliseconds); then cuts it off. */
  end(patienceMs: number): Promise<void>;
}

const targetOf = (url: string, log: Logger): Target =>
  readTarget(url, (problem) => {
    log.warn({ problem }, 'TLS files of the database not usable, those read before stay in use');
  });

interface Opening {
  readonly config: Config;
  readonly options: DatabaseOptions;
  readonly log: Logger;
}

const openReplicas = (database: Database, targets: readonly Target[], { config, options, log }: Opening): Replicas =>
  new Replicas(database, targets, {
    ...options,
    waitMs: config.replicaWaitMs,
    maxLagMs: config.replicaMaxLagMs,
    report: (replica, problem, cause) => {
      if (problem === undefined) log.info({ replica }, 'a replica is read from now on');
      else log.warn({ replica, problem, ...(cause === undefined ? {} : { cause }) }, 'a replica is left out');
    },
  });

/**
 * The database, and its replicas where some are configured.
 *
 * @param url PostgreSQL connection string of the database.
 * @throws ConfigError naming what is wrong with it, or with a replica's.
 */
export const openDatabases = (
  config: Config,
  { url, telemetry, log }: { readonly url: string; readonly telemetry: Telemetry | undefined; readonly log: Logger },
): Databases => {
  const options = {
    pooler: config.pooler,
    observer: telemetry,
    statementMs: config.callTimeoutMs,
    lockMs: config.lockTimeoutMs,
    calls: { max: config.poolMax, queue: config.poolQueue, waitMs: config.poolWaitMs },
    transactions: { max: config.transactionsMax, queue: config.poolQueue, waitMs: config.poolWaitMs },
    marks: config.replicaUrls.length > 0,
  };
  // All are read before anything is opened, which nobody would close.
  const [target, ...targets] = [url, ...config.replicaUrls].map((each) => targetOf(each, log));
  const database = openDatabase(target!, options);
  const replicas = targets.length > 0 ? openReplicas(database, targets, { config, options, log }) : undefined;
  return {
    database,
    replicas,
    end: async (patienceMs) => {
      await Promise.all([database.end(patienceMs), replicas?.end(patienceMs)]);
    },
  };
};
