import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { migrateUp } from '../../src/database/migrate.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { columns, connected, objects, rowsOf, tables } from './catalog.ts';
import { ORIGINAL_ROWS, ORIGINAL_SHAPE, ORIGINAL_TRIGGERS } from './original-shape.ts';

type Row = Readonly<Record<string, unknown>>;

/** Values that adoption is meant to change, by table and column: what the original left open gets its default. */
const FILLED: Readonly<Record<string, Row>> = {
  'policy.risk_ceilings': { breach_action: 'block' },
  'policy.ethical_constraints': { enforcement_level: 'strict', violation_action: 'block' },
  'policy.temporal_policies': { breach_action: 'block' },
  'policy.policy_dependencies': { resolution_strategy: 'source_wins' },
  'public.proxy_calls': {
    input_tokens: 0,
    output_tokens: 0,
    cost_cents: 0,
    was_blocked: false,
    replay_eligible: true,
    created_at: expect.any(String),
  },
  'public.default_guardrails': { is_enabled: true, is_default: true, priority: 100, version: 'v1' },
  'public.failure_matches': { is_retryable: false },
  'public.recovery_candidates': { decision: 'pending' },
  'm10_recovery.work_queue': { priority: 0 },
};

const ZONELESS = /^\d{4}-\d\d-\d\dT[\d:.]+$/;

/** What a value of the original has to be after adoption. */
const adopted = (table: string, column: string, value: unknown): unknown => {
  if (value === null || (typeof value === 'string' && value.startsWith("'"))) return FILLED[table]?.[column] ?? value;
  return typeof value === 'string' && ZONELESS.test(value) ? `${value}+00:00` : value;
};

/** Expects each row to be there still, with every value it had. */
const expectKept = (table: string, before: readonly string[], after: readonly string[]): void => {
  const found: readonly Row[] = after.map((row) => JSON.parse(row));
  for (const row of before) {
    const expected = Object.entries(JSON.parse(row) as Row).map(([name, value]) => [name, adopted(table, name, value)]);
    expect(found, table).toContainEqual(expect.objectContaining(Object.fromEntries(expected)));
  }
};

const allRows = async (client: pg.Client, names: readonly string[]): Promise<Record<string, string[]>> => {
  const found: Record<string, string[]> = {};
  for (const name of names) found[name] = await rowsOf(client, name);
  return found;
};

describe('adopting a database of the original shape', () => {
  let fresh: TestDatabase;
  let old: TestDatabase;
  let before: Record<string, string[]>;
  let client: pg.Client;
  let release: () => void;
  let closed: Promise<void>;

  beforeAll(async () => {
    [fresh, old] = [await createDatabase(), await createDatabase()];
    const name = new URL(old.url).pathname.slice(1);
    await connected(old.url, async (each) => {
      // A session far from UTC: whatever reads a zone-less timestamp in it is off by hours.
      await each.query(`alter database ${name} set timezone to 'America/New_York'`);
      await each.query(ORIGINAL_SHAPE);
      await each.query(ORIGINAL_ROWS);
      await each.query(ORIGINAL_TRIGGERS);
      await each.query("set timezone to 'UTC'");
      before = await allRows(each, await tables(each));
    });
    await migrateUp(old.url);
    await new Promise<void>((opened, failed) => {
      closed = connected(old.url, async (each) => {
        await each.query("set timezone to 'UTC'");
        client = each;
        opened();
        await new Promise<void>((resolve) => {
          release = resolve;
        });
      });
      closed.catch(failed);
    });
  });

  afterAll(async () => {
    release();
    await closed;
    await Promise.all([fresh.drop(), old.drop()]);
  });

  const only = async (url: string, names: ReadonlySet<string>) =>
    connected(url, async (each) => ({
      columns: (await columns(each))
        .filter(({ table }) => names.has(table))
        .sort((a, b) => `${a.table} ${a.name}`.localeCompare(`${b.table} ${b.name}`)),
      objects: (await objects(each))
        .filter(({ table }) => names.has(table))
        .map(({ kind, name, definition }) => ({ kind, name, definition })),
    }));

  test('its catalog is that of a fresh database', async () => {
    const names = new Set(await connected(fresh.url, tables));
    const expected = await only(fresh.url, names);
    const actual = await only(old.url, names);
    expect(actual.columns).toEqual(expected.columns);
    expect(actual.objects).toEqual(expected.objects);
  });

  test('every row is there, with every value it had', async () => {
    const after = await allRows(client, Object.keys(before));
    for (const [table, rows] of Object.entries(before)) expectKept(table, rows, after[table]!);
    expect(Object.values(before).flat().length).toBeGreaterThan(50);
  });

  test('seeds add no row beside those that were there', async () => {
    const after = await allRows(client, Object.keys(before));
    for (const [table, rows] of Object.entries(before)) expect(after[table]!.length, table).toBe(rows.length);
    const { rows } = await client.query(
      `select max_value from policy.risk_ceilings where name = 'hourly_cost_ceiling'`,
    );
    expect(rows[0].max_value).toBe('77');
  });

  test('zone-less timestamps are read as UTC, to the microsecond', async () => {
    const { rows } = await client.query('select created_at, reviewed_at, effective_from from public.policy_proposals');
    expect(rows).toEqual([
      {
        created_at: '2024-03-10 02:30:00.123456+00',
        reviewed_at: '2024-11-03 01:30:00.000001+00',
        effective_from: '2024-12-31 23:59:59.999999+00',
      },
    ]);
  });

  test('single precision widens to the digits it showed', async () => {
    const { rows } = await client.query(
      `select c.confidence, a.success_rate from public.recovery_candidates c
       join m10_recovery.suggestion_action a on a.id = c.selected_action_id`,
    );
    expect(rows).toEqual([{ confidence: '0.8123457', success_rate: '0.4' }]);
  });

  test('views are back with their options, grants, comment and indexes', async () => {
    const { rows } = await client.query(`
      select (select round(percent::numeric, 5) from m10_recovery.suggestions_full_context) as percent,
        (select reloptions::text from pg_class where oid = 'recovery_candidates_with_context'::regclass) as options,
        has_table_privilege('pg_monitor', 'recovery_candidates_with_context', 'select') as granted,
        obj_description('recovery_candidates_with_context'::regclass, 'pg_class') as comment,
        to_regclass('m10_recovery.mv_top_pending_key') is not null as indexed`);
    expect(rows).toEqual([
      {
        percent: '81.23457',
        options: '{security_barrier=true}',
        granted: 't',
        comment: 'candidates and what failed',
        indexed: 't',
      },
    ]);
  });

  test('an outcome is counted once, whatever counted before', async () => {
    await client.query('begin');
    await client.query(`update public.recovery_candidates set execution_status = 'succeeded'`);
    const { rows } = await client.query('select total_applications from m10_recovery.suggestion_action where id = 1');
    await client.query('rollback');
    expect(rows).toEqual([{ total_applications: '6' }]);
  });

  test('migrating again changes nothing and rewrites nothing', async () => {
    const state = async () => ({
      columns: await columns(client),
      objects: await objects(client),
      rows: await allRows(client, await tables(client)),
    });
    const first = await state();
    await client.query('delete from policy_sidecar.migrations');
    expect(await migrateUp(old.url)).toHaveLength(6);
    expect(await state()).toEqual(first);
    expect(await migrateUp(old.url)).toEqual([]);
  });
});
