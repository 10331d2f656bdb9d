/** The database every server of the bench is measured on. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { migrateUp } from '../src/database/migrate/migrate.ts';
import { startEmbedded } from '../src/embedded/embedded.ts';

export interface Database {
  readonly url: string;
  /** The same database, for whoever may make roles. */
  readonly adminUrl: string;
  /** A connection of the bench's own. */
  readonly client: pg.Client;
  /** As PostgreSQL says it. */
  readonly version: string;
  stop(): Promise<void>;
}

/** Violations in the database of which the point read takes one and the list a hundred. */
export const VIOLATIONS = 10_000;

/**
 * SQL that adds violations. All rows have the same length on the wire, so that load can tell a right answer by its bytes,
 * and whole milliseconds, since a JavaScript date holds no more.
 */
export const addViolations = (from: number, to: number): string => `insert into policy.violations
  (id, violation_type, severity, description, evidence, agent_id, tenant_id, routed_to_governor, detected_at, policy_name)
  select gen_random_uuid(), 'cost', 0.5, 'a violation of some length, as they are', '{"metric": "cost", "value": 12.5}',
    'agent-' || lpad((n % 100)::text, 2, '0'), 'tenant-' || lpad((n % 50)::text, 2, '0'), true,
    timestamptz '2026-01-01 00:00:00.123+00' - n * interval '1 second', 'a policy'
  from generate_series(${from}, ${to}) n`;

/** A database of its own on the server of `given`, dropped in the end; absent: on an embedded PostgreSQL. */
export const openDatabase = async (given: string | undefined): Promise<Database> => {
  const { url, adminUrl, drop } = given ? await createOn(given) : await embedded();
  await migrateUp(url);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(addViolations(1, VIOLATIONS));
  await client.query('vacuum analyze');
  const { rows } = await client.query<{ server_version: string }>('show server_version');
  return {
    url,
    adminUrl,
    client,
    version: rows[0]!.server_version,
    stop: async () => {
      await client.end();
      await drop();
    },
  };
};

const embedded = async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-bench-'));
  await chmod(folder, 0o755);
  const { url, adminUrl, stop } = await startEmbedded({ dataDir: folder });
  return {
    url,
    adminUrl: Object.assign(new URL(adminUrl), { pathname: new URL(url).pathname }).href,
    drop: async () => {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
};

const createOn = async (given: string) => {
  const name = `policy_sidecar_bench_${process.pid}`;
  const admin = async (sql: string): Promise<void> => {
    const client = new pg.Client({ connectionString: given });
    await client.connect();
    await client.query(sql);
    await client.end();
  };
  await admin(`create database ${name}`);
  const url = new URL(given);
  url.pathname = `/${name}`;
  return { url: url.href, adminUrl: url.href, drop: () => admin(`drop database ${name} with (force)`) };
};
