import { join } from 'node:path';
import { Migrator } from '@mikro-orm/migrations';
import { MikroORM } from '@mikro-orm/postgresql';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { migrateUp } from '../../src/database/migrate.ts';
import { entities } from '../../src/entities/index.ts';
import { createDatabase, createEmptyDatabase, type TestDatabase } from '../support/postgres.ts';
import { type Column, columns, connected, keys, objects, tables } from './catalog.ts';

interface Shape {
  readonly tables: readonly string[];
  readonly columns: readonly Column[];
  readonly keys: Readonly<Record<string, string>>;
}

const shapeOf = (url: string): Promise<Shape> =>
  connected(url, async (client) => ({
    tables: await tables(client),
    columns: await columns(client),
    keys: await keys(client),
  }));

const tableOf = (entity: (typeof entities)[number]): string => `${entity.meta.schema}.${entity.meta.tableName}`;

/** Tables made from the entities alone, so that PostgreSQL itself spells types and defaults for both sides. */
const createFromEntities = async (url: string): Promise<void> => {
  const orm = await MikroORM.init({ clientUrl: url, dbName: new URL(url).pathname.slice(1), entities } as never);
  try {
    const sql: string = await (orm as MikroORM).schema.getCreateSchemaSQL({ wrap: false });
    await connected(url, (client) => client.query(sql));
  } finally {
    await orm.close();
  }
};

describe('entities and migrations describe the same tables', () => {
  const databases: TestDatabase[] = [];
  let live: Shape;
  let described: Shape;

  beforeAll(async () => {
    databases.push(await createDatabase(), await createEmptyDatabase());
    const [migrated, shadow] = databases as [TestDatabase, TestDatabase];
    await createFromEntities(shadow.url);
    live = await shapeOf(migrated.url);
    described = await shapeOf(shadow.url);
  });

  afterAll(async () => {
    for (const database of databases) await database.drop();
  });

  test('every table has an entity, every entity a table', () => {
    expect(live.tables).toEqual(entities.map(tableOf).sort());
  });

  test.each(entities.map((entity) => [tableOf(entity)]))('%s: columns, types, nullability, defaults, key', (table) => {
    const of = (shape: Shape) => shape.columns.filter((column) => column.table === table);
    expect(of(live)).toEqual(of(described));
    expect(of(live).length).toBeGreaterThan(0);
    expect(live.keys[table]).toBe(described.keys[table]);
  });
});

describe('every way leads to the same schema', () => {
  let fresh: TestDatabase;
  let other: TestDatabase;

  beforeAll(async () => {
    [fresh, other] = [await createDatabase(), await createEmptyDatabase()];
  });

  afterAll(() => Promise.all([fresh.drop(), other.drop()]));

  const shape = (url: string): Promise<unknown> =>
    connected(url, async (client) => ({
      columns: await columns(client),
      objects: (await objects(client)).map(({ id, ...object }) => object),
    }));

  test('MikroORM’s own migrator on an empty database', async () => {
    const orm = await MikroORM.init({
      clientUrl: other.url,
      dbName: new URL(other.url).pathname.slice(1),
      entities,
      extensions: [Migrator],
      logger: () => {},
      migrations: {
        path: join(import.meta.dirname, '..', '..', 'migrations'),
        glob: 'Migration*.ts',
        tableName: 'migrations',
        schema: 'policy_sidecar',
        snapshot: false,
      },
    } as never);
    try {
      await connected(other.url, (client) => client.query('create schema policy_sidecar'));
      await (orm as unknown as { migrator: { up(): Promise<unknown> } }).migrator.up();
    } finally {
      await orm.close();
    }
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
