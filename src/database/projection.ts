import type { DescEnum, DescField, DescMessage, MessageShape } from '@bufbuild/protobuf';
import { create, ScalarType } from '@bufbuild/protobuf';
import type { Cell, Row } from './statement.ts';
import { arrayFromText, jsonToValue, parseJson, timestampFromText, unrepresentable } from './values.ts';

/** The part of an entity that statements are made from; `N` are columns that it must have. */
export interface Table<N extends string = never> {
  readonly meta: { readonly schema?: string; readonly tableName?: string; readonly properties: object };
  /** Marker of the type alone. */
  readonly '~columns'?: Readonly<Record<N, unknown>>;
}

/** Names of an entity's columns. */
export type ColumnOf<E extends Table> = keyof NonNullable<E['~columns']> & string;

/** A name as it stands in SQL. Which words are reserved is for PostgreSQL to say, so every name is quoted. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Schema-qualified name of an entity's table, as logs and notes spell it. */
export const tableName = ({ meta }: Table): string => `${meta.schema}.${meta.tableName}`;

/** Schema-qualified name of an entity's table, as it stands in SQL. */
export const table = ({ meta }: Table): string => `${quoted(meta.schema!)}.${quoted(meta.tableName!)}`;

/** A column of an entity; `alias` is the table's alias in the statement. */
export const column = <E extends Table>(entity: E, name: ColumnOf<E>, alias?: string): string =>
  columnNamed(entity, name, alias);

/** As {@link column}, for a name that a message gives: checked when the module loads. */
export const columnNamed = (entity: Table, name: string, alias?: string): string => {
  if (!Object.hasOwn(entity.meta.properties, name)) throw new Error(`${tableName(entity)} has no column ${name}`);
  return alias === undefined ? quoted(name) : `${alias}.${quoted(name)}`;
};

/** Several columns of an entity, with commas between them. */
export const columnList = <E extends Table>(entity: E, names: readonly ColumnOf<E>[], alias?: string): string =>
  names.map((name) => column(entity, name, alias)).join(', ');

/** Turns one cell into a field's value. Never called with NULL. */
type Decode = (text: string) => unknown;

const enumDecoder = (desc: DescEnum): Decode => {
  const prefix = `${desc.sharedPrefix ?? ''}`.toUpperCase();
  const numbers = new Map<string, number>();
  for (const value of desc.values) {
    const stored = value.name.slice(prefix.length);
    numbers.set(stored, value.number);
    numbers.set(stored.toLowerCase(), value.number);
  }
  return (text) => {
    const number = numbers.get(text);
    if (number === undefined) throw unrepresentable(`${desc.name} has no value for what is stored`);
    return number;
  };
};

/** Text that the database stores for an enum value: its name without the prefix. */
export const enumText = (desc: DescEnum, number: number): string => {
  const value = desc.value[number];
  if (!value) throw new Error(`${desc.name} has no value ${number}`);
  return value.name.slice((desc.sharedPrefix ?? '').length);
};

/** As {@link enumText}, for a set whose stored texts are in lower case. */
export const lowerEnumText = (desc: DescEnum, number: number): string => enumText(desc, number).toLowerCase();

const MESSAGES: Readonly<Record<string, Decode>> = {
  'google.protobuf.Timestamp': timestampFromText,
  'google.protobuf.Value': (text) => jsonToValue(parseJson(text)),
  'hoc.cus.policies.v1.StringList': (text) => ({
    $typeName: 'hoc.cus.policies.v1.StringList',
    values: arrayFromText(text),
  }),
};

const scalarDecoder = (type: ScalarType): Decode => {
  switch (type) {
    case ScalarType.STRING:
      return (text) => text;
    case ScalarType.BOOL:
      return (text) => text === 't';
    case ScalarType.INT32:
    case ScalarType.DOUBLE:
      return Number;
    case ScalarType.INT64:
      return BigInt;
    case ScalarType.BYTES:
      return (text) => Buffer.from(text.slice(2), 'hex');
    default:
      throw new Error(`no column becomes a ${ScalarType[type]}`);
  }
};

const decoder = (field: DescField): Decode => {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarDecoder(field.scalar);
    case 'enum':
      return enumDecoder(field.enum);
    case 'message': {
      const decode = MESSAGES[field.message.typeName];
      if (decode) return decode;
      break;
    }
    case 'list':
      if (field.listKind === 'scalar' && field.scalar === ScalarType.STRING) return arrayFromText;
      break;
  }
  throw new Error(`no column becomes ${field.parent.typeName}.${field.name}`);
};

/** A select list and the mapping of its rows to a message. */
export interface Projection<T> {
  /** Select list: one expression a field, in field order. */
  readonly columns: string;
  /** Row of exactly that select list -> message. NULL leaves the field as it is in an empty message. */
  readonly map: (row: Row) => T;
}

interface ProjectionOptions {
  /** Alias of the entity's table in the statement. */
  readonly alias?: string;
  /** SQL expression of a field whose column has another name, or that is computed. Keys are proto field names. */
  readonly expressions?: Readonly<Record<string, string>>;
  /** Proto fields that no column fills. */
  readonly omit?: readonly string[];
}

/**
 * Derives a select list and a row mapper from a message and an entity: each field takes the column of its own name.
 *
 * The field's type decides how the column's text is read: `string` (text, uuid, numeric), `int32`, `int64`, `double`,
 * `bool`, an enum (value name without prefix, either case), Timestamp, Value (jsonb), StringList (text[]).
 */
export const projection = <D extends DescMessage>(
  message: D,
  entity: Table,
  { alias, expressions = {}, omit = [] }: ProjectionOptions = {},
): Projection<MessageShape<D>> => {
  const fields = message.fields.filter(({ name }) => !omit.includes(name));
  const columns = fields.map(({ name }) => expressions[name] ?? columnNamed(entity, name, alias)).join(', ');
  return { columns, map: rowMapper(message, fields) };
};

/** Mapper of rows whose cells are the given fields of a message, in that order (default: all of them). */
export const rowMapper = <D extends DescMessage>(
  message: D,
  fields: readonly DescField[] = message.fields,
): ((row: Row) => MessageShape<D>) => {
  const readers = fields.map((field) => ({ name: field.localName, decode: decoder(field) }));
  // A literal with implicit-presence defaults: `create` would walk the descriptor for each row.
  const blank = { ...create(message) } as Record<string, unknown>;
  const lists = message.fields.filter(({ fieldKind }) => fieldKind === 'list').map(({ localName }) => localName);
  return (row) => {
    const result: Record<string, unknown> = { ...blank };
    for (const list of lists) result[list] = [];
    for (let index = 0; index < readers.length; index += 1) {
      const cell = row[index] as Cell;
      if (cell !== null) result[readers[index]!.name] = readers[index]!.decode(cell);
    }
    return result as MessageShape<D>;
  };
};

/** Reads a single `bigint` or `integer` cell as the int64 of a response. */
export const count = (row: Row): bigint => BigInt(row[0] ?? 0);

/** Reads a single text cell. */
export const firstText = (row: Row): string | undefined => row[0] ?? undefined;
