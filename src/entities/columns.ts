import { defineEntity, type EntitySchema, p, ReferenceKind, Type } from '@mikro-orm/core';
import type { Change, Owner } from './owner.ts';

/** A column type whose JavaScript form is PostgreSQL's own text, so that no digit is lost on the way. */
class TextType extends Type<string, string> {
  override compareAsType(): string {
    return 'string';
  }
}

/** A `text[]` whose elements survive exactly; the array literal is written and read by the `pg` client. */
class ArrayType extends Type<string[], string[]> {
  override compareAsType(): string {
    return 'array';
  }
}

const exact = (columnType: string) => p.type(TextType).$type<string>().columnType(columnType);

/** `uuid`, canonical lower-case text. */
export const uuid = () => exact('uuid');
/** `text`. */
export const text = () => exact('text');
/** `varchar(length)`, or unbounded `varchar` without a length. */
export const varchar = (length?: number) =>
  length === undefined ? exact('character varying') : exact(`character varying(${length})`).length(length);
/** `integer`. */
export const int = () => p.integer().columnType('integer');
/** `serial`: an `integer` numbered by its own sequence. */
export const serial = () => p.integer().columnType('integer').autoincrement();
/** `bigint`, decimal text: JavaScript numbers end at 2^53. */
export const bigint = () => exact('bigint');
/** `double precision`. */
export const double = () => p.double().columnType('double precision');
/** `numeric(precision, scale)`, exact decimal text. */
export const numeric = (precision: number, scale: number) => exact(`numeric(${precision},${scale})`);
/** `boolean`. */
export const bool = () => p.boolean().columnType('boolean');
/** `timestamptz`, PostgreSQL's text: a `Date` would drop the microseconds. */
export const timestamptz = () => exact('timestamp with time zone');
/** `jsonb`, JSON text. */
export const jsonb = () => exact('jsonb');
/** `bytea`, in PostgreSQL's hex text. */
export const bytea = () => exact('bytea');
/** `xid8`, a transaction id of PostgreSQL, decimal text. */
export const xid8 = () => exact('xid8');
/** `text[]`. */
export const textArray = () => p.type(ArrayType).$type<string[]>().columnType('text[]');
/** `varchar[]`. */
export const varcharArray = () => p.type(ArrayType).$type<string[]>().columnType('varchar[]');
/** `double precision[]`, as PostgreSQL's text. */
export const doubleArray = () => exact('double precision[]');

/** Builders of a table's columns, keyed by column name, in physical order. */
type Columns = NonNullable<Parameters<typeof defineEntity>[0]['properties']> & object;

/** An entity whose type knows its columns; the marker has no value. */
export type Described<C = unknown> = EntitySchema & {
  readonly '~columns'?: C;
  readonly rows: Owner;
  readonly changes: readonly Change[];
};

/** A column of an index, in PostgreSQL's words. */
export type Key<N extends string> = `${N}${'' | ' collate "C"'}${'' | ' desc'}`;

/** What an index is on: its columns, or these with a condition or a method other than btree. */
type IndexOn<N extends string> =
  | readonly Key<N>[]
  | { readonly on: readonly Key<N>[]; readonly where?: string; readonly using?: 'gin' };

/** A reference to another table's `id`; `to` is schema-qualified. */
interface ForeignKey<N extends string> {
  readonly on: N;
  readonly to: `${string}.${string}`;
  readonly onDelete?: 'cascade' | 'set null';
}

/** What a table holds its rows to, and what finds them, each by the name that it has in the database. */
interface Rules<N extends string> {
  /** Whose its rows are. */
  readonly rows: Owner<N>;
  /** What serving does to its rows beside reading them: its role gets these rights, and no other; left out: nothing. */
  readonly changes?: readonly Change[];
  readonly foreignKeys?: Readonly<Record<string, ForeignKey<N>>>;
  /** Columns of unique constraints. */
  readonly uniques?: Readonly<Record<string, readonly N[]>>;
  /** SQL conditions. */
  readonly checks?: Readonly<Record<string, string>>;
  /** Unique indexes that are no constraint: those with a condition, and what the platform made as an index. */
  readonly uniqueIndexes?: Readonly<Record<string, IndexOn<N>>>;
  readonly indexes?: Readonly<Record<string, IndexOn<N>>>;
}

const tables = new Map<string, EntitySchema>();

/** MikroORM has no foreign key but a relation, so the column becomes one: by name, as its target may be defined later. */
const refer = (entity: EntitySchema, name: string, { on, to, onDelete }: ForeignKey<string>): void => {
  Object.assign((entity.meta.properties as Record<string, object>)[on]!, {
    kind: ReferenceKind.MANY_TO_ONE,
    entity: () => tables.get(to),
    fieldName: on,
    foreignKeyName: name,
    deleteRule: onDelete ?? 'no action',
    updateRule: 'no action',
  });
};

const quoted = (key: string): string => key.replace(/^\w+/, '"$&"');

/** Indexes as whole statements: MikroORM tells these apart by their names, and all others by guesses at PostgreSQL's text. */
const statements = (schema: string, table: string, indexes: Readonly<Record<string, IndexOn<string>>>, unique = '') =>
  Object.entries(indexes).map(([name, index]) => {
    const { on, where, using = 'btree' } = 'on' in index ? index : { on: index };
    const condition = where === undefined ? '' : ` where ${where}`;
    const columns = on.map(quoted).join(', ');
    const target = `"${schema}"."${table}"`;
    return { name, expression: `create ${unique}index "${name}" on ${target} using ${using} (${columns})${condition}` };
  });

/**
 * Describes one table: property names are column names, in physical order.
 *
 * @param qualified schema-qualified table name, `policy.risk_ceilings`; it also names the entity, since two schemas
 *   hold a table of the same name.
 * @param rules whose its rows are, what serving changes of them, and its constraints and indexes besides the primary key.
 */
export const defineTable = <const C extends Columns>(
  qualified: `${string}.${string}`,
  columns: C,
  {
    rows,
    changes = [],
    foreignKeys = {},
    uniques = {},
    checks = {},
    uniqueIndexes = {},
    indexes = {},
  }: Rules<keyof C & string>,
): Described<C> => {
  const [schema, tableName] = qualified.split('.') as [string, string];
  const entity = defineEntity({
    name: qualified,
    schema,
    tableName,
    properties: columns,
    uniques: [
      ...Object.entries(uniques).map(([name, properties]) => ({ name, properties: [...properties] })),
      ...statements(schema, tableName, uniqueIndexes, 'unique '),
    ],
    checks: Object.entries(checks).map(([name, expression]) => ({ name, expression })),
    indexes: statements(schema, tableName, indexes),
  } as never) as EntitySchema;
  for (const [name, foreignKey] of Object.entries(foreignKeys)) refer(entity, name, foreignKey);
  tables.set(qualified, entity);
  return Object.assign(entity, { rows, changes });
};
