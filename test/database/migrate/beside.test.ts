import { beforeEach, expect, test, vi } from 'vitest';
import { findTable } from '../../../src/database/migrate/catalog.ts';
import type { Retype } from '../../../src/database/migrate/column-plan.ts';
import type { Tx } from '../../../src/database/migrate/look.ts';
import { ObstacleError } from '../../../src/database/migrate/migrate.ts';
import {
  addSideColumns,
  checkSideColumns,
  fill,
  indexUnfilled,
  refuseUnfilled,
} from '../../../src/database/migrate/side-columns.ts';
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

const DOCUMENT: Retype = {
  name: 'document',
  number: '2',
  from: 'json',
  to: 'jsonb',
  required: false,
  fallback: null,
  free: false,
  beside: true,
};
const WEIGHT: Retype = { ...DOCUMENT, name: 'weight', number: '3', from: 'real', to: 'double precision' };
const RETYPES = [DOCUMENT, WEIGHT];

const DOCUMENTS = 'select id, document::text, pg_typeof(document)::text as type from public.notes order by id';

beforeEach(async () => {
  await ask(`drop table if exists public.notes; create schema if not exists policy_sidecar`);
  await ask('create table public.notes (id integer primary key, document json, weight real)');
  await ask(`insert into public.notes select n, '{"a": 1}' from generate_series(1, 2) n`);
});

/** What others do between two steps. */
type Others = () => Promise<unknown>;

/** The conversion, with what others do before its batches, and between the last one and the change of names. */
const convert = (between: Others, before: Others = async () => {}): Promise<void> =>
  turn(async (migrating) => {
    const table = (await migrating.look((tx) => findTable(tx, 'public.notes')))!;
    await addSideColumns(migrating, table, RETYPES);
    await before();
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

test('what was written before the last batch is refused like that', async () => {
  const write = () => ask(`update public.notes set document = '{"a": "\\u0000"}' where id = 1`);
  await expect(convert(async () => {}, write)).rejects.toThrow(ObstacleError);
  expect(await ask(DOCUMENTS)).toMatchObject([
    { document: '{"a": "\\u0000"}', type: 'json' },
    { document: '{"a": 1}' },
  ]);
});

// Between the last count and the check that no value is missing, which a bare error told of.
test('what a column that must not be NULL would lack is refused like that', async () => {
  const required = [{ ...DOCUMENT, required: true }];
  const refused = turn(async (migrating) => {
    const table = (await migrating.look((tx) => findTable(tx, 'public.notes')))!;
    await addSideColumns(migrating, table, required);
    await fill(migrating, table, required);
    await ask(`insert into public.notes values (3, '1e999999')`);
    await checkSideColumns(migrating, table, required, new Map());
  });
  await expect(refused).rejects.toThrow(ObstacleError);
  expect(await ask('select document::text from public.notes where id = 3')).toEqual([{ document: '1e999999' }]);
});

// Story: the digits of a number went by what its writer's session shows of one.
test('a number keeps its digits, whoever writes it', async () => {
  await convert(
    () => ask(`set extra_float_digits = -3; insert into public.notes values (4, null, 0.7654321)`),
    () => ask(`set extra_float_digits = 0; update public.notes set weight = 0.1234567 where id = 1`),
  );
  expect(await ask('select id, weight from public.notes where weight is not null order by id')).toEqual([
    { id: '1', weight: '0.1234567' },
    { id: '4', weight: '0.7654321' },
  ]);
});

// A look at each row would keep everybody waiting for as long as the table is large.
test('what is left is found in an index of nothing else, which goes with the old column', async () => {
  await ask(`insert into public.notes select n, '{"a": 1}' from generate_series(3, 5000) n`);
  const plan: string[] = [];
  await turn(async (migrating) => {
    const table = (await migrating.look((tx) => findTable(tx, 'public.notes')))!;
    await addSideColumns(migrating, table, RETYPES);
    await fill(migrating, table, RETYPES);
    for (let run = 1; run <= 2; run += 1) await indexUnfilled(migrating, table, RETYPES);
    await migrating.look(async (tx) => {
      const row: Tx['row'] = async (text) => {
        plan.push(...(await tx.rows(`explain ${text}`)).map((line) => line.text('QUERY PLAN')));
        return tx.row(text);
      };
      await refuseUnfilled({ ...tx, row }, table, RETYPES);
    });
    await swap(migrating, table, RETYPES, []);
  });
  expect(plan.join('\n')).toContain(' unfilled_');
  expect(await ask(`select relname from pg_class where relname ~ '__adopting'`)).toEqual([]);
});

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
