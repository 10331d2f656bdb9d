import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { readTarget } from './target.ts';

const FOLDER = join(import.meta.dirname, '..', '..', 'migrations');
const SCHEMA = 'policy_sidecar';
const TABLE = 'migrations';
/** Two processes that migrate the same database take turns on this advisory lock. */
const LOCK = 7_215_046_101;

/** Where a database stands against this program. */
export interface MigrationStatus {
  /** Applied, oldest first; `at` is PostgreSQL's text of the instant. */
  readonly executed: readonly { readonly name: string; readonly at: string }[];
  /** Known to this program and not applied yet. */
  readonly pending: readonly string[];
  /** Applied by a newer program. */
  readonly unknown: readonly string[];
}

/** Names of all migrations of this program, oldest first. */
const known = (): string[] =>
  readdirSync(FOLDER)
    .filter((file) => /^Migration\d+_\w+\.ts$/.test(file))
    .map((file) => file.replace(/\.ts$/, ''))
    .sort();

/** A database that lets nobody in; the message is one line for the user. */
export class UnreachableError extends Error {}

const CONNECT_MS = 10_000;

const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({
    connectionString: url,
    application_name: 'policy-sidecar migrate',
    connectionTimeoutMillis: CONNECT_MS,
  });
  client.on('error', () => {});
  await client.connect().catch((error: NodeJS.ErrnoException) => {
    throw new UnreachableError(`${readTarget(url).description} cannot be used: ${error.message || error.code}`);
  });
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

const statusOf = async (client: pg.Client): Promise<MigrationStatus> => {
  const { rows: found } = await client.query(`select to_regclass('${SCHEMA}.${TABLE}') is not null as there`);
  const { rows } = found[0].there
    ? await client.query(`select name, executed_at::text as at from ${SCHEMA}.${TABLE} order by id`)
    : { rows: [] };
  const names = new Set(rows.map(({ name }) => name));
  const all = known();
  return {
    executed: rows,
    pending: all.filter((name) => !names.has(name)),
    unknown: [...names].filter((name) => !all.includes(name)),
  };
};

/** Compares a database with the migrations of this program. */
export const migrationStatus = (url: string): Promise<MigrationStatus> => withClient(url, statusOf);

/**
 * Applies what is pending, each migration in a transaction of its own.
 *
 * @returns names of the migrations applied.
 */
export const migrateUp = (url: string): Promise<readonly string[]> =>
  withClient(url, async (client) => {
    await client.query('select pg_advisory_lock($1)', [LOCK]);
    const { pending } = await statusOf(client);
    if (pending.length === 0) return [];
    // The ORM is only loaded when there is something to migrate: a start with nothing pending should not pay for it.
    const { MikroORM } = await import('@mikro-orm/postgresql');
    const { Migrator } = await import('@mikro-orm/migrations');
    const { entities } = await import('../entities/index.ts');
    const orm = await MikroORM.init({
      dbName: client.database,
      // The ORM would read host, user and password from the URL and forget the rest: TLS, sockets, the PG* variables.
      driverOptions: { connectionString: url },
      entities,
      extensions: [Migrator],
      logger: () => {},
      migrations: { path: FOLDER, glob: 'Migration*.ts', tableName: TABLE, schema: SCHEMA, snapshot: false },
    } as never);
    try {
      await client.query(`create schema if not exists ${SCHEMA}`);
      await (orm as unknown as { migrator: { up(): Promise<unknown> } }).migrator.up();
    } finally {
      await orm.close();
    }
    return pending;
  });
