import { defineEntity, type EntitySchema, p, Type } from '@mikro-orm/core';

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
export const varcharArray = () => p.type(ArrayType).$type<string[]>().columnType('character varying[]');
/** `double precision[]`, as PostgreSQL's text. */
export const doubleArray = () => exact('double precision[]');

/** Builders of a table's columns, keyed by column name, in physical order. */
type Columns = NonNullable<Parameters<typeof defineEntity>[0]['properties']> & object;

/** An entity whose type knows its columns; the marker has no value. */
type Described<C> = EntitySchema & { readonly '~columns'?: C };

/**
 * Describes one table: property names are column names, in physical order.
 *
 * @param qualified schema-qualified table name, `policy.risk_ceilings`; it also names the entity, since two schemas
 *   hold a table of the same name.
 */
export const defineTable = <const C extends Columns>(qualified: `${string}.${string}`, columns: C): Described<C> => {
  const [schema, tableName] = qualified.split('.') as [string, string];
  return defineEntity({ name: qualified, schema, tableName, properties: columns }) as Described<C>;
};
