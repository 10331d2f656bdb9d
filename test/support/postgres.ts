import { randomUUID } from 'node:crypto';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { inject } from 'vitest';
import type { TestProject } from 'vitest/node';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { startEmbedded } from '../../src/embedded/embedded.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Connection string of the server's maintenance database, as superuser. */
    postgresUrl: string;
  }
}

/** A migrated database that every test database is a copy of. */
const TEMPLATE = 'policy_sidecar_template';

/** Databases are copied one at a time: a template must have no other user. */
const CLONE_LOCK = 7_215_046_102;

const onServer = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

const withDatabase = (url: string, database: string): string => {
  const changed = new URL(url);
  changed.pathname = `/${database}`;
  return changed.href;
};

/**
 * One PostgreSQL for the whole run: the one of TEST_DATABASE_URL (a superuser's), else an embedded one that is gone
 * afterwards. Nothing here depends on what survives a power cut, so it does not wait for the disk.
 */
export default async (project: TestProject): Promise<() => Promise<void>> => {
  const given = process.env['TEST_DATABASE_URL'];
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-test-'));
  await chmod(folder, 0o755);
  const removeFolder = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const embedded = given
    ? undefined
    : await startEmbedded({
        dataDir: folder,
        settings: {
          fsync: 'off',
          synchronous_commit: 'off',
          full_page_writes: 'off',
          max_connections: '400',
          max_prepared_transactions: '64',
        },
      }).catch(async (error: unknown) => {
        await removeFolder();
        throw error;
      });
  const url = given ?? embedded!.adminUrl;
  const tearDown = async (): Promise<void> => {
    await onServer(url, (client) => client.query(`drop database if exists ${TEMPLATE} with (force)`));
    await embedded?.stop();
    if (embedded) await rm(embedded.dataDir, { recursive: true, force: true });
    await removeFolder();
  };
  try {
    await onServer(url, async (client) => {
      await client.query(`drop database if exists ${TEMPLATE} with (force)`);
      await client.query(`create database ${TEMPLATE} template template0 encoding 'UTF8' locale 'C'`);
    });
    await migrateUp(withDatabase(url, TEMPLATE));
  } catch (error) {
    await tearDown();
    throw error;
  }
  project.provide('postgresUrl', url);
  return tearDown;
};

/** A database of one test file's own. */
export interface TestDatabase {
  readonly url: string;
  drop(): Promise<void>;
}

const create = async (template: string): Promise<TestDatabase> => {
  const server = inject('postgresUrl');
  const name = `test_${randomUUID().replaceAll('-', '')}`;
  await onServer(server, async (client) => {
    await client.query('select pg_advisory_lock($1)', [CLONE_LOCK]);
    await client.query(`create database ${name} template ${template} strategy file_copy`);
  });
  return {
    url: withDatabase(server, name),
    drop: async () => {
      await onServer(server, (client) => client.query(`drop database if exists ${name} with (force)`));
    },
  };
};

/** A fresh, migrated database. */
export const createDatabase = (): Promise<TestDatabase> => create(TEMPLATE);

/** A fresh database without anything. */
export const createEmptyDatabase = (): Promise<TestDatabase> => create('template0');

/** As {@link createEmptyDatabase}, in an encoding. */
export const createEncodedDatabase = (encoding: string): Promise<TestDatabase> =>
  create(`template0 encoding '${encoding}' locale 'C'`);

/** A fresh copy of a database that nobody uses meanwhile. */
export const copyDatabase = ({ url }: TestDatabase): Promise<TestDatabase> => create(new URL(url).pathname.slice(1));

/**
 * A pool for looking behind the service's back. The end of a pool does not wait for its sockets, so the drop of its
 * database may still reach them: that is nobody's failure.
 */
export const openPool = (url: string, max: number): pg.Pool => {
  const pool = new pg.Pool({ connectionString: url, max });
  pool.on('error', () => {});
  return pool;
};
