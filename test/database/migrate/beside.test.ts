import { beforeEach, expect, test, vi } from 'vitest';
import { findTable } from '../../../src/database/migrate/catalog.ts';
import type { Retype } from '../../../src/database/migrate/column-plan.ts';
import { ObstacleError } from '../../../src/database/migrate/migrate.ts';
import { addSideColumns, fill } from '../../../src/database/migrate/side-columns.ts';
import { swap } from '../../../src/database/migrate/swap-columns.ts';
import { type Migrating, TUNING, withTurn } from '../../../src/database/migrate/turn.ts';
import { createEmptyDatabase } from '../../support/postgres.ts';
import { useDatabase } from '../../support/use.ts';
import { connected } from '../catalog.ts';

vi.setConfig({ testTimeout: 60_000 });

const database = useDatabase(createEmptyDatabase);
const ask = (sql: string): Promise<unknown[]> =>
  connected(database.url, async (client) => (await client.query(sql)).rows);

const turn = (work: (migrating: Migrating) => Promise<void>): Promise<void> =>
  withTurn(database.url, { say: () => {}, tuning: TUNING }, work);

const RETYPES: readonly Retype[] = [
  {
    name: 'document',
    number: '2',
    from: 'json',
    to: 'jsonb',
    required: false,
    fallback: null,
    free: false,
    beside: true,
  },
];

const DOCUMENTS = 'select id, document::text, pg_typeof(document)::text as type from public.notes order by id';

beforeEach(async () => {
  await ask(`drop table if exists public.notes; create schema if not exists policy_sidecar`);
  await ask('create table public.notes (id integer primary key, document json)');
  await ask(`insert into public.notes select n, '{"a": 1}' from generate_series(1, 2) n`);
});

/** The conversion, with something that others do between the last batch and the change of names. */
const convert = (between: () => Promise<unknown>): Promise<void> =>
  turn(async (migrating) => {
    const table = (await migrating.look((tx) => findTable(tx, 'public.notes')))!;
    await addSideColumns(migrating, table, RETYPES);
    await fill(migrating, table, RETYPES);
    await between();
    await swap(migrating, table, RETYPES, []);
  });

// Story: after the last count a writer stored what jsonb cannot hold. Its new column was NULL, the old one was dropped, and
// the migration had succeeded.
test.each(['{"a": "\\u0000"}', '["\\ud83d"]', '1e999999'])(
  '%s, written once all rows were converted, is not lost',
  async (document) => {
    const refused = await convert(() => ask(`insert into public.notes values (3, '${document}')`)).catch(
      (error) => error,
    );
    expect(refused).toBeInstanceOf(ObstacleError);
    expect(refused.message).toMatch(/public\.notes\.document {2}1 row\(s\): hold a document that jsonb cannot/);
    const rows = [1, 2].map((id) => ({ id: String(id), document: '{"a": 1}', type: 'json' }));
    expect(await ask(DOCUMENTS)).toEqual([...rows, { id: '3', document, type: 'json' }]);
    await ask(`update public.notes set document = '{"a": 2}' where id = 3`);
    await convert(async () => {});
    const after = [...rows, { id: '3', document: '{"a": 2}' }].map((row) => ({ ...row, type: 'jsonb' }));
    expect(await ask(DOCUMENTS)).toEqual(after);
  },
);

// Story: the trigger slept for whoever applies what another server has written, and the new column kept the old value.
test('what is written as a replica writes is converted like the rest', async () => {
  await convert(() =>
    ask(`set session_replication_role = 'replica'; update public.notes set document = '{"a": 2}' where id = 2`),
  );
  expect(await ask(DOCUMENTS)).toEqual([
    { id: '1', document: '{"a": 1}', type: 'jsonb' },
    { id: '2', document: '{"a": 2}', type: 'jsonb' },
  ]);
});
