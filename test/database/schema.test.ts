import { MikroORM } from '@mikro-orm/postgresql';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { entities } from '../../src/entities/index.ts';
import { createDatabase, createEmptyDatabase, type TestDatabase } from '../support/postgres.ts';
import { type Column, columns, connected, keys, tables } from './catalog.ts';

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
