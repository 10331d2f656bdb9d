import pg from 'pg';
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { migrations } from '../../../migrations/index.ts';
import { migrateUp } from '../../../src/database/migrate/migrate.ts';
import { copyDatabase, createEmptyDatabase, type TestDatabase } from '../../support/postgres.ts';
import { useDatabase } from '../../support/use.ts';
import { connected, objects } from '../catalog.ts';
import { makePlatform } from '../platform.ts';

const MIGRATIONS = Object.keys(migrations).length;

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const platform = useDatabase(createEmptyDatabase);
let database: TestDatabase;

beforeAll(() => makePlatform(platform.url));
beforeEach(async () => {
  database = await copyDatabase(platform);
});
afterEach(() => database.drop());

const ask = (sql: string): Promise<pg.QueryResultRow[]> =>
  connected(database.url, async (client) => (await client.query(sql)).rows);
/** What every session of the database has from its beginning. */
const setDefault = (name: string, value: string): Promise<unknown> =>
  ask(`alter database ${new URL(database.url).pathname.slice(1)} set ${name} = '${value}'`);

// Story: the guard held the snapshot of its first question, and the first index that was built concurrently waited for it.
test.each(['repeatable read', 'serializable'])('transactions that are %s by default', async (level) => {
  await ask(`set session_replication_role = 'replica';
    insert into public.policy_enforcements (id, tenant_id, rule_id, action_taken, details)
      select 'large ' || n, 'tenant 1', 'policy_rules 1', 'WARNED', '{}' from generate_series(1, 2000) n`);
  await setDefault('default_transaction_isolation', level);
  expect(await migrateUp(database.url, { tuning: { smallBytes: -1 } })).toHaveLength(MIGRATIONS);
});

test('transactions that the server ends before a migration is done', async () => {
  const [{ known }] = (await ask(`select current_setting('transaction_timeout', true) as known`)) as [
    { known: string | null },
  ];
  if (known === null) return;
  await setDefault('transaction_timeout', '3s');
  const holder = new pg.Client({ connectionString: database.url });
  holder.on('error', () => {});
  await holder.connect();
  await holder.query('set transaction_timeout = 0; begin; select from public.policy_rules');
  const migrated = migrateUp(database.url);
  migrated.catch(() => {});
  await vi.waitFor(
    async () =>
      expect(
        await ask(`select from pg_stat_activity where datname = current_database() and state = 'idle in transaction'
          and application_name = 'policy-sidecar migrate' and xact_start < clock_timestamp() - interval '4 s'`),
      ).toHaveLength(1),
    { timeout: 30_000 },
  );
  await holder.end();
  expect(await migrated).toHaveLength(MIGRATIONS);
});

// Story: no foreign key was spelled as the server spelled it, and each was made a second time.
test('names that are always quoted', async () => {
  await setDefault('quote_all_identifiers', 'on');
  await migrateUp(database.url);
  const twice = await ask(`select conrelid::regclass, conkey, count(*) from pg_constraint where contype = 'f'
    group by conrelid, conkey, confrelid, confkey having count(*) > 1`);
  expect(twice).toEqual([]);
  const first = await connected(database.url, objects);
  await ask('delete from policy_sidecar.migrations');
  await migrateUp(database.url);
  expect(await connected(database.url, objects)).toEqual(first);
});

// Story: a number went through its text, of which the session showed six digits.
test.each([{}, { smallBytes: -1 }])('numbers of which few digits are shown %o', async (tuning) => {
  const shown = () => ask('select id, confidence::text from public.recovery_candidates order by id');
  await ask('update public.recovery_candidates set confidence = (id + 0.1234567) / 97');
  const before = await shown();
  await setDefault('extra_float_digits', '-3');
  expect(await shown()).not.toEqual(before);
  await migrateUp(database.url, { tuning });
  await setDefault('extra_float_digits', '1');
  expect(await shown()).toEqual(before);
});

// Without them a backslash in quotes is one no more, and nothing that jsonb cannot hold is looked for.
test('backslashes that mean something in quotes', async () => {
  const document = '["\\ud800"]';
  await ask(`set session_replication_role = 'replica';
    update public.policy_enforcements set details = '${document}' where id = 'policy_enforcements 1'`);
  await setDefault('standard_conforming_strings', 'off');
  await expect(migrateUp(database.url)).rejects.toThrow(
    /public\.policy_enforcements\.details {2}1 row\(s\): hold a document/,
  );
});
