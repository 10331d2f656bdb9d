import { beforeAll, describe, expect, test, vi } from 'vitest';
import { migrations } from '../../migrations/index.ts';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useDatabase } from '../support/use.ts';
import { columns, connected, objects } from './catalog.ts';
import { ORIGINAL } from './original-shape.ts';
import { allRows, expectKept, makePlatform, ROWS } from './platform.ts';

// Whole migrations, on a machine that does other things, too.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

type Row = Readonly<Record<string, unknown>>;

const MIGRATIONS = Object.keys(migrations).length;

/** Names that adoption takes away, each for a reason that DIFFERENCES.md gives. */
const GONE = [
  'ck_policy_rules_rule_type',
  'ix_policy_precedence_policy_id',
  'ix_evaluations_agent_id',
  'ix_evaluations_tenant_id',
  'ix_evaluations_action_type',
  'ix_evaluations_evaluated_at',
  'ix_violations_agent_id',
  'ix_violations_tenant_id',
  'ix_violations_violation_type',
  'ix_violations_detected_at',
];

/** Columns of the original that hold longer texts than ours would. */
const WIDER = [
  'public.policy_rules.tenant_id',
  'public.policy_enforcements.tenant_id',
  'public.limits.tenant_id',
  'public.policy_proposals.synthetic_scenario_id',
];

/** A definition without what is only a spelling: a check that was written as PostgreSQL shows it is shown with other casts. */
const body = (definition: string): string => {
  let plain = definition
    .replace(/^(CREATE (?:UNIQUE )?INDEX) \S+/, '$1')
    .replace(/\((\w+) = true\)/g, '$1')
    .replace(/\((\w+) = false\)/g, '(NOT $1)')
    .replace(/::(?:character varying|text)(?:\[\])?/g, '');
  for (let before = ''; before !== plain; ) {
    before = plain;
    plain = plain.replace(/\((\w+|'[^']*'|ARRAY\[[^[\]]*\])\)/g, '$1');
  }
  return plain;
};

const bodies = async (url: string): Promise<Map<string, string[]>> =>
  connected(url, async (client) => {
    const found = new Map<string, string[]>();
    for (const { kind, table, definition } of await objects(client)) {
      const key = `${kind} ${table}`;
      found.set(key, [...(found.get(key) ?? []), body(definition)]);
    }
    return found;
  });

/** Tables up to this size are converted where they stand, or none at all is. */
const WAYS = [
  ['small tables, where they stand', {}],
  ['large tables, beside their readers and writers', { smallBytes: -1 }],
] as const;

describe.each(WAYS)('adopting the platform’s database: %s', (_, tuning) => {
  const fresh = useDatabase();
  const old = useDatabase(createEmptyDatabase);
  let before: Record<string, string[]>;

  beforeAll(async () => {
    await makePlatform(old.url);
    before = await allRows(old.url);
    expect(await migrateUp(old.url, { tuning })).toHaveLength(MIGRATIONS);
  });

  const ask = (query: string): Promise<Row[]> => connected(old.url, async (client) => (await client.query(query)).rows);

  test('every row of every table is there, with every value it had', async () => {
    expectKept(before, await allRows(old.url, Object.keys(before)));
    expect(Object.values(before).flat().length).toBeGreaterThan(30 * ROWS);
  });

  test('columns are those of a fresh database; only texts may be longer', async () => {
    const of = async (url: string) =>
      new Map(
        (await connected(url, columns)).map(({ table, name, ...column }) => [
          `${table}.${name}`,
          WIDER.includes(`${table}.${name}`) ? { ...column, type: 'character varying' } : column,
        ]),
      );
    const actual = await of(old.url);
    for (const [name, column] of await of(fresh.url))
      expect({ name, ...actual.get(name) }).toEqual({ name, ...column });
  });

  test('constraints, indexes and triggers of a fresh database are there, whatever they are called', async () => {
    const actual = await bodies(old.url);
    for (const [key, wanted] of await bodies(fresh.url)) {
      expect(actual.get(key), key).toEqual(expect.arrayContaining(wanted));
    }
  });

  test('what the platform has named is there under its name', async () => {
    const found = new Set(
      (await connected(old.url, objects)).map(({ kind, name }) => `${kind} ${name.replace(/^public\./, '')}`),
    );
    for (const { name: table, constraints, indexes } of ORIGINAL.tables) {
      const short = table.replace(/^public\./, '');
      const names = [
        ...Object.keys(constraints).map((name) => ['constraint', name]),
        ...indexes.map((index) => ['index', / INDEX (\S+)/.exec(index)![1]!]),
      ] as const;
      for (const [kind, name] of names) {
        expect([name, found.has(`${kind} ${short} ${name}`)]).toEqual([name, !GONE.includes(name!)]);
      }
    }
  });

  test('nothing that helped on the way is left', async () => {
    const rows = await ask(`
      select relname from pg_class where relname ~ '__adopting|__before'
      union all select attname from pg_attribute join pg_class on pg_class.oid = attrelid
        where relkind <> 'i' and attname ~ '__adopting|__before|__not_null'
      union all select conname from pg_constraint where conname ~ '__adopting|__not_null' or not convalidated
      union all select tgname from pg_trigger where tgname ~ 'adopt'
      union all select proname from pg_proc where proname ~ 'adopt'
      union all select relname from pg_class join pg_index on indexrelid = pg_class.oid where not indisvalid`);
    expect(rows).toEqual([]);
  });

  test('views are back with options, grants, comments, defaults, rules and indexes', async () => {
    const rows = await ask(`
      select (select count(*) from m10_recovery.suggestions_full_context where percent is not null) > 0 as answers,
        (select reloptions::text from pg_class where oid = 'recovery_candidates_with_context'::regclass) as options,
        has_table_privilege('pg_monitor', 'recovery_candidates_with_context', 'select') as granted,
        has_column_privilege('pg_monitor', 'recovery_candidates_with_context', 'decision', 'update with grant option') as on_column,
        obj_description('recovery_candidates_with_context'::regclass, 'pg_class') as comment,
        col_description('recovery_candidates_with_context'::regclass, 2) as column_comment,
        (select count(*) from pg_rewrite where ev_class = 'recovery_candidates_with_context'::regclass) as rules,
        (select count(*) from pg_attrdef where adrelid = 'recovery_candidates_with_context'::regclass) as defaults,
        to_regclass('m10_recovery.mv_top_pending_key') is not null as indexed,
        has_table_privilege('pg_monitor', 'm10_recovery.mv_top_pending', 'select') as granted_too,
        (select count(*) from m10_recovery.mv_top_pending) = (select count(*) from recovery_candidates where decision = 'pending') as filled,
        to_regclass('m10_recovery.top_of_top') is not null as outer`);
    expect(rows).toEqual([
      {
        answers: 't',
        options: '{security_barrier=true}',
        granted: 't',
        on_column: 't',
        comment: 'candidates and what failed',
        column_comment: "as 'stored'",
        rules: '2',
        defaults: '1',
        indexed: 't',
        granted_too: 't',
        filled: 't',
        outer: 't',
      },
    ]);
  });

  test('a column that changed its type has its comment and grants', async () => {
    const rows = await ask(`
      select col_description(attrelid, attnum) as comment, has_column_privilege('pg_monitor', attrelid, attnum, 'select') as granted
        from pg_attribute where attrelid = 'recovery_candidates'::regclass and attname = 'confidence'`);
    expect(rows).toEqual([{ comment: "how 'sure'", granted: 't' }]);
  });

  test('rules that exist are neither active nor inactive to who asks the new columns', async () => {
    expect(await ask('select distinct is_active, mode, priority, actions from policy_rules')).toEqual([
      { is_active: null, mode: null, priority: null, actions: null },
    ]);
  });

  test('what goes with a tenant, goes with it still', async () => {
    const left = await connected(old.url, async (client) => {
      await client.query('begin');
      await client.query(`delete from tenants where id = 'tenant 1'`);
      const { rows } = await client.query(`select
        (select count(*) from policy_rules where tenant_id = 'tenant 1') + (select count(*) from limits where tenant_id = 'tenant 1')
        + (select count(*) from policy_enforcements where tenant_id = 'tenant 1') as left`);
      await client.query('rollback');
      return rows;
    });
    expect(left).toEqual([{ left: '0' }]);
  });

  test('an outcome is counted once, whatever counted before', async () => {
    const counted = await connected(old.url, async (client) => {
      await client.query('begin');
      await client.query(
        `update recovery_candidates set execution_status = 'executing', selected_action_id = 1 where id = 3`,
      );
      const total = 'select coalesce(total_applications, 0) as total from m10_recovery.suggestion_action where id = 1';
      const { rows: first } = await client.query(total);
      await client.query(`update recovery_candidates set execution_status = 'succeeded' where id = 3`);
      const { rows: second } = await client.query(total);
      await client.query('rollback');
      return Number(second[0].total) - Number(first[0].total);
    });
    expect(counted).toBe(1);
  });

  test('migrating again changes nothing and rewrites nothing', async () => {
    const state = async () => ({
      columns: await connected(old.url, columns),
      objects: await connected(old.url, objects),
      rows: await allRows(old.url),
    });
    const first = await state();
    await ask('delete from policy_sidecar.migrations');
    expect(await migrateUp(old.url, { tuning })).toHaveLength(MIGRATIONS);
    expect(await state()).toEqual(first);
    expect(await migrateUp(old.url)).toEqual([]);
  });
});
