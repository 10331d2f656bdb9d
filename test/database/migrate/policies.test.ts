import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { migrateTenants, tables, tenantsStatus } from '../../../src/database/migrate/tenant-policies.ts';
import { BlockedError } from '../../../src/database/migrate/turn.ts';
import { createDatabase, type TestDatabase } from '../../support/postgres.ts';
import { connected } from '../catalog.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let database: TestDatabase;
let holder: pg.Client;

beforeEach(async () => {
  database = await createDatabase();
  holder = new pg.Client({ connectionString: database.url, application_name: 'some report' });
  holder.on('error', () => {});
  await holder.connect();
});
afterEach(async () => {
  await holder.end();
  await database.drop();
});

/** The table that comes last, so that whoever holds all until the end holds all others by then. */
const HELD = 'public.tenants';

const isWaiting = (): Promise<unknown> =>
  connected(database.url, async (client) => {
    const { rows } = await client.query(
      `select from pg_locks where not granted and relation = $1::regclass and mode = 'AccessExclusiveLock'`,
      [HELD],
    );
    expect(rows).toHaveLength(1);
  });

// Story: one report that was left open in psql stopped every reader of every table for as long as it stood.
test('a table that somebody holds keeps nobody from the others, nor from itself', async () => {
  await holder.query(`begin; select from ${HELD}`);
  const migrated = migrateTenants(database.url);
  migrated.catch(() => {});
  await vi.waitFor(isWaiting, { timeout: 20_000, interval: 20 });
  await connected(database.url, async (client) => {
    await client.query(`set lock_timeout = '5s'`);
    for (const table of tables()) await client.query(`select from ${table} limit 1`);
  });
  await holder.query('rollback');
  await migrated;
  expect(await tenantsStatus(database.url)).toEqual({ role: true, lacking: [] });
});

test('who holds it is said; it is given up in time, and gone on with later', async () => {
  await holder.query(`begin; select from ${HELD}`);
  const lines: string[] = [];
  const tuning = { lockMs: 150, tries: 3 };
  const refused = await migrateTenants(database.url, { say: (line) => lines.push(line), tuning }).catch(
    (error: unknown) => error,
  );
  expect(refused).toBeInstanceOf(BlockedError);
  expect((refused as Error).message).toMatch(/^public\.tenants is blocked by pid \d+ \(some report, /);
  expect(lines).toContainEqual(
    expect.stringMatching(/^waiting: public\.tenants is blocked by pid \d+ \(some report, /),
  );
  expect((await tenantsStatus(database.url)).lacking).toContain(HELD);
  await holder.query('rollback');
  await migrateTenants(database.url);
  expect((await tenantsStatus(database.url)).lacking).toEqual([]);
});

test('two at once take turns', async () => {
  await Promise.all([migrateTenants(database.url), migrateTenants(database.url), migrateTenants(database.url)]);
  expect((await tenantsStatus(database.url)).lacking).toEqual([]);
});

test('nothing is changed where one table stands in the way', async () => {
  await holder.query(`create policy mine on ${HELD} using (true)`);
  await expect(migrateTenants(database.url)).rejects.toThrow(`${HELD} has a policy of its own, mine`);
  const { rows } = await holder.query('select from pg_class where relrowsecurity');
  expect(rows).toEqual([]);
});
