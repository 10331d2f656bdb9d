import { MikroORM } from '@mikro-orm/postgresql';
import { beforeAll, describe, expect, test } from 'vitest';
import config from '../../mikro-orm.config.ts';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { entities } from '../../src/entities/all.ts';
import { defineTable, int, timestamptz } from '../../src/entities/columns.ts';
import { NOBODY, TENANT } from '../../src/entities/owner.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useDatabase } from '../support/use.ts';
import { type CatalogObject, type Column, columns, connected, objects, tables } from './catalog.ts';

interface Shape {
  readonly tables: readonly string[];
  readonly columns: readonly Column[];
  readonly objects: readonly CatalogObject[];
}

const shapeOf = (url: string): Promise<Shape> =>
  connected(url, async (client) => ({
    tables: await tables(client),
    columns: await columns(client),
    objects: await objects(client),
  }));

const tableOf = (entity: (typeof entities)[number]): string => `${entity.meta.schema}.${entity.meta.tableName}`;

/** MikroORM as it works on a database; `more` replaces what the configuration says. */
const withOrm = async <T>(url: string, work: (orm: MikroORM) => Promise<T>, more: object = {}): Promise<T> => {
  const dbName = new URL(url).pathname.slice(1);
  const orm = await MikroORM.init({ ...config, clientUrl: url, dbName, logger: () => {}, ...more } as never);
  try {
    return await work(orm as MikroORM);
  } finally {
    await orm.close();
  }
};

/** Triggers and functions of the database: no entity states them, and this is why. */
const UNSTATED: Readonly<Record<string, string>> = {
  'm10_recovery.set_updated_at()': 'serves two triggers, and MikroORM makes a function of its own for each',
  'm10_recovery.count_action_outcome()': 'belongs to a trigger that MikroORM cannot state',
  'CREATE TRIGGER trg_failure_matches_updated_at BEFORE UPDATE ON public.failure_matches FOR EACH ROW EXECUTE FUNCTION m10_recovery.set_updated_at()':
    'calls a shared function',
  'CREATE TRIGGER trg_recovery_candidates_updated_at BEFORE UPDATE ON public.recovery_candidates FOR EACH ROW EXECUTE FUNCTION m10_recovery.set_updated_at()':
    'calls a shared function',
  'CREATE TRIGGER trg_recovery_candidates_action_outcome AFTER UPDATE OF execution_status ON public.recovery_candidates FOR EACH ROW EXECUTE FUNCTION m10_recovery.count_action_outcome()':
    'is on one column: MikroORM’s triggers are on rows whole',
  'm10_recovery.enqueue_work(integer,uuid,integer,text)': 'called by the platform’s workers, never by this program',
  'm10_recovery.claim_work(text,integer)': 'called by the platform’s workers, never by this program',
  'm10_recovery.complete_work(integer,boolean,text)': 'called by the platform’s workers, never by this program',
  'm10_recovery.release_stalled_work(integer)': 'called by the platform’s workers, never by this program',
};

/** Checks on `double precision`, of whose casts MikroORM's comparator takes away one word of two: to it they are changed. */
const MISREAD = [
  'failure_catalog_success_rate_check',
  'recovery_candidates_confidence_check',
  'suggestion_action_success_rate_check',
  'suggestion_input_confidence_check',
  'suggestion_input_weight_check',
];

describe('entities and migrations describe the same tables', () => {
  const migrated = useDatabase();
  const shadow = useDatabase(createEmptyDatabase);
  let live: Shape;
  let described: Shape;

  beforeAll(async () => {
    // Tables made from the entities alone, so that PostgreSQL itself spells everything for both sides.
    const sql = await withOrm(shadow.url, (orm) => orm.schema.getCreateSchemaSQL({ wrap: false }));
    await connected(shadow.url, (client) => client.query(sql));
    live = await shapeOf(migrated.url);
    described = await shapeOf(shadow.url);
  });

  test('every table has an entity, every entity a table', () => {
    expect(live.tables).toEqual(entities.map(tableOf).sort());
  });

  test.each(entities.map((entity) => [tableOf(entity)]))(
    '%s: columns, types, nullability, defaults, constraints, indexes',
    (table) => {
      const of = ({ columns, objects }: Shape) => ({
        columns: columns.filter((column) => column.table === table),
        objects: objects
          .filter((object) => object.table === table && ['constraint', 'index'].includes(object.kind))
          .map(({ kind, name, definition }) => ({ kind, name, definition })),
      });
      expect(of(live)).toEqual(of(described));
      expect(of(live).columns.length).toBeGreaterThan(0);
      expect(of(live).objects).toContainEqual(
        expect.objectContaining({ definition: expect.stringMatching(/^PRIMARY KEY/) }),
      );
    },
  );

  test('triggers and functions are those that entities cannot state', () => {
    const found = live.objects.flatMap(({ kind, name, definition }) =>
      kind === 'trigger' ? [definition] : kind === 'function' ? [name] : [],
    );
    expect(found.sort()).toEqual(Object.keys(UNSTATED).sort());
    expect(described.objects.filter(({ kind }) => ['trigger', 'function'].includes(kind))).toEqual([]);
  });

  test('MikroORM’s generators, started here, refuse all that changes a database', async () => {
    const before = await shapeOf(migrated.url);
    await withOrm(migrated.url, async (orm) => {
      const { schema, migrator } = orm as MikroORM & { migrator: { create(): Promise<unknown> } };
      for (const attempt of [
        () => schema.create(),
        () => schema.update(),
        () => schema.refresh(),
        () => schema.drop(),
        () => schema.clear(),
        () => schema.getUpdateSchemaSQL(),
        () => schema.getUpdateSchemaMigrationSQL(),
        () => schema.getDropSchemaSQL(),
        () => schema.dropDatabase(),
        () => migrator.create(),
      ]) {
        await expect(attempt(), String(attempt)).rejects.toThrow('written by hand');
      }
    });
    expect(await shapeOf(migrated.url)).toEqual(before);
  });

  test('MikroORM’s comparator, asked all the same, finds nothing but checks that it cannot read', async () => {
    const sql = await withOrm(migrated.url, (orm) => orm.schema.getUpdateSchemaSQL({ wrap: false }), {
      extensions: [],
      schemaGenerator: { ignoreTriggers: true, ignoreRoutines: true },
    });
    const statements = sql.split('\n').filter((line) => line !== '');
    const named = statements.map((statement) => / (?:drop|add) constraint "(\w+)"/.exec(statement)?.[1] ?? statement);
    expect([...new Set(named)].sort()).toEqual(MISREAD);
  });
});

test('a constraint, index or owner on a column that the table has not does not compile', () => {
  const columns = { id: int().primary(), at: timestamptz() };
  const none = 'public.none';
  expect(() => {
    defineTable(none, columns, {
      rows: { of: 'tenant', column: 'id' },
      indexes: { right: ['at desc', 'id collate "C" desc'] },
      uniques: { r: ['at'] },
    });
    // @ts-expect-error: no such column
    defineTable(none, columns, { rows: NOBODY, indexes: { wrong: ['att'] } });
    // @ts-expect-error: no such order
    defineTable(none, columns, { rows: NOBODY, indexes: { wrong: ['at down'] } });
    // @ts-expect-error: no such column
    defineTable(none, columns, { rows: NOBODY, uniqueIndexes: { wrong: { on: ['ids'], where: 'id > 0' } } });
    // @ts-expect-error: no such column
    defineTable(none, columns, { rows: NOBODY, uniques: { wrong: ['ids'] } });
    // @ts-expect-error: no such column
    defineTable(none, columns, { rows: NOBODY, foreignKeys: { wrong: { on: 'ids', to: 'public.limits' } } });
    // @ts-expect-error: no such column
    defineTable(none, columns, { rows: TENANT });
    // @ts-expect-error: nothing is said of whose the rows are
    defineTable(none, columns, {});
  }).toThrow(TypeError);
});

describe('every way leads to the same schema', () => {
  const fresh = useDatabase();
  const other = useDatabase(createEmptyDatabase);

  const shape = (url: string): Promise<unknown> =>
    connected(url, async (client) => ({
      columns: await columns(client),
      objects: (await objects(client)).map(({ id, ...object }) => object),
    }));

  test('MikroORM’s own migrator on an empty database', async () => {
    await connected(other.url, (client) => client.query('create schema policy_sidecar'));
    await withOrm(other.url, (orm) => (orm as unknown as { migrator: { up(): Promise<unknown> } }).migrator.up());
    expect(await shape(other.url)).toEqual(await shape(fresh.url));
    expect(await migrateUp(other.url)).toEqual([]);
  });

  test('a database that an earlier release has migrated', async () => {
    await connected(other.url, (client) =>
      client.query(`delete from policy_sidecar.migrations where name ~ '000600';
        alter table policy_rules alter is_active set default true, alter mode set default 'active';
        insert into policy_rules (id, tenant_id, name, status) values ('retired', 't', 'n', 'RETIRED'), ('active', 't', 'n', 'ACTIVE');
        alter table proxy_calls alter input_tokens set not null, alter cost_cents set not null, alter created_at set not null;
        alter table default_guardrails alter is_enabled set not null, alter priority set not null;
        alter table failure_matches alter is_retryable set not null;
        alter table recovery_candidates alter decision set not null;
        alter table m10_recovery.work_queue alter priority set not null;
        drop index uq_rc_fmid_sig`),
    );
    expect(await migrateUp(other.url)).toHaveLength(1);
    expect(await shape(other.url)).toEqual(await shape(fresh.url));
    const { rows } = await connected(other.url, (client) =>
      client.query('select id, is_active, mode from policy_rules order by id'),
    );
    expect(rows).toEqual([
      { id: 'active', is_active: 't', mode: 'active' },
      { id: 'retired', is_active: null, mode: null },
    ]);
  });
});
