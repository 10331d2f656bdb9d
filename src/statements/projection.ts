import type { DescEnum, DescField, DescMessage, MessageShape } from '@bufbuild/protobuf';
import { create, ScalarType } from '@bufbuild/protobuf';
import type { Value } from '@bufbuild/protobuf/wkt';
import { type RpcError, refuse } from '../contract/errors.ts';
import type { Cell, Notes, Row, RowMap } from '../database/statement.ts';
import { columnNamed, type Table, tableName } from '../database/table.ts';
import {
  arrayFromText,
  flatArray,
  int32FromText,
  int64FromText,
  jsonToValue,
  type Note,
  nearestInteger,
  nearestTimestamp,
  parseJson,
  timestampFromText,
} from '../database/values.ts';

/** How the cells of a field are read. Never called with NULL. */
interface Codec {
  /** The value, or undefined if the field cannot hold it. */
  readonly exact: (text: string) => unknown;
  /** What comes nearest to a value that the field cannot hold. */
  readonly nearest: (text: string, note: Note) => unknown;
}

/** A codec of a type that holds whatever its columns do. */
const always = (exact: (text: string) => unknown): Codec => ({ exact, nearest: exact });

const enumCodec = (desc: DescEnum): Codec => {
  const prefix = `${desc.sharedPrefix ?? ''}`.toUpperCase();
  const numbers = new Map<string, number>();
  for (const value of desc.values) {
    const stored = value.name.slice(prefix.length);
    numbers.set(stored, value.number);
    numbers.set(stored.toLowerCase(), value.number);
  }
  return {
    exact: (text) => numbers.get(text),
    nearest: (_text, note) => {
      note('unspecified');
      return 0;
    },
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

const documentFromText = (text: string): Value | undefined => {
  try {
    return jsonToValue(parseJson(text));
  } catch {
    return undefined;
  }
};

/** Codec of documents. What nobody can read, since it is nested too deep, is carried as its text. */
export const document = (exact: (text: string) => Value | undefined = documentFromText): Codec => ({
  exact,
  nearest: (text, note) => {
    note('as-text');
    return jsonToValue(text);
  },
});

const listMessage = (values: string[] | undefined): object | undefined =>
  values && { $typeName: 'hoc.cus.policies.v1.StringList', values };

const MESSAGES: Readonly<Record<string, Codec>> = {
  'google.protobuf.Timestamp': { exact: timestampFromText, nearest: nearestTimestamp },
  'google.protobuf.Value': document(),
  'hoc.cus.policies.v1.StringList': {
    exact: (text) => listMessage(arrayFromText(text)),
    nearest: (text, note) => listMessage(flatArray(text, note)),
  },
};

const scalarCodec = (type: ScalarType): Codec => {
  switch (type) {
    case ScalarType.STRING:
      return always((text) => text);
    case ScalarType.BOOL:
      return always((text) => text === 't');
    case ScalarType.DOUBLE:
      return always(Number);
    case ScalarType.INT32:
      return { exact: int32FromText, nearest: (text, note) => Number(nearestInteger(text, 32, note)) };
    case ScalarType.INT64:
      return { exact: int64FromText, nearest: (text, note) => nearestInteger(text, 64, note) };
    case ScalarType.BYTES:
      return always((text) => Buffer.from(text.slice(2), 'hex'));
    default:
      throw new Error(`no column becomes a ${ScalarType[type]}`);
  }
};

const codecOf = (field: DescField): Codec => {
  switch (field.fieldKind) {
    case 'scalar':
      return scalarCodec(field.scalar);
    case 'enum':
      return enumCodec(field.enum);
    case 'message': {
      const codec = MESSAGES[field.message.typeName];
      if (codec) return codec;
      break;
    }
    case 'list':
      if (field.listKind === 'scalar' && field.scalar === ScalarType.STRING) {
        return { exact: arrayFromText, nearest: flatArray };
      }
      break;
  }
  throw new Error(`no column becomes ${field.parent.typeName}.${field.name}`);
};

/** A select list and the mapping of its rows to a message. */
export interface Projection<T> {
  /** Select list: one expression a field, in field order. */
  readonly columns: string;
  /** Row of exactly that select list -> message. NULL leaves the field as it is in an empty message. */
  readonly map: RowMap<T>;
}

interface ProjectionOptions {
  /** Alias of the entity's table in the statement. */
  readonly alias?: string;
  /** SQL expression of a field whose column has another name, or that is computed. Keys are proto field names. */
  readonly expressions?: Readonly<Record<string, string>>;
  /** `schema.table.column` of fields that other tables fill, for notes. */
  readonly origins?: Readonly<Record<string, string>>;
  /** How fields are read whose type alone does not tell. */
  readonly codecs?: Readonly<Record<string, Codec>>;
  /** Proto fields that no column fills. */
  readonly omit?: readonly string[];
  /** Proto fields that tell rows apart; the primary key unless said otherwise. */
  readonly key?: readonly string[];
}

/** One field of a row: how its cell is read, and what notes call its place. */
interface Reader {
  readonly field: DescField;
  readonly origin: string;
  readonly codec: Codec;
}

/**
 * Derives a select list and a row mapper from a message and an entity: each field takes the column of its own name.
 *
 * The field's type decides how the column's text is read: `string` (text, uuid, numeric), `int32`, `int64`, `double`,
 * `bool`, an enum (value name without prefix, either case), Timestamp, Value (jsonb), StringList (text[]). A stored value
 * that the field cannot hold is carried in the form that comes nearest, and noted with its place.
 */
export const projection = <D extends DescMessage>(
  message: D,
  entity: Table,
  { alias, expressions = {}, origins = {}, codecs = {}, omit = [], key }: ProjectionOptions = {},
): Projection<MessageShape<D>> => {
  const properties = entity.meta.properties as Record<string, { primary?: boolean }>;
  const expressionOf = (name: string): string => expressions[name] ?? columnNamed(entity, name, alias);
  const nameOfColumn = (sql: string): string | undefined =>
    Object.keys(properties).find((name) => columnNamed(entity, name, alias) === sql);
  const readers = message.fields
    .filter(({ name }) => !omit.includes(name))
    .map((field) => {
      const name = nameOfColumn(expressionOf(field.name));
      const origin = origins[field.name] ?? `${tableName(entity)}.${name ?? field.name}`;
      return { field, origin, codec: codecs[field.name] ?? codecOf(field), isKey: name && properties[name]?.primary };
    });
  const keyAt = readers.flatMap(({ field, isKey }, at) => ((key ? key.includes(field.name) : isKey) ? [at] : []));
  const columns = readers.map(({ field }) => expressionOf(field.name)).join(', ');
  return { columns, map: mapper(message, readers, keyAt) };
};

/** Mapper of rows whose cells are the given fields of a message, in that order (default: all of them). */
export const rowMapper = <D extends DescMessage>(
  message: D,
  fields: readonly DescField[] = message.fields,
): RowMap<MessageShape<D>> =>
  mapper(
    message,
    fields.map((field) => ({ field, origin: `${message.name}.${field.name}`, codec: codecOf(field) })),
    [],
  );

const mapper = <D extends DescMessage>(
  message: D,
  fields: readonly Reader[],
  keyAt: readonly number[],
): RowMap<MessageShape<D>> => {
  const readers = fields.map((reader) => ({ ...reader, name: reader.field.localName, exact: reader.codec.exact }));
  // A literal with implicit-presence defaults: `create` would walk the descriptor for each row.
  const blank = { ...create(message) } as Record<string, unknown>;
  const lists = message.fields.filter(({ fieldKind }) => fieldKind === 'list').map(({ localName }) => localName);
  return (row, notes) => {
    const result: Record<string, unknown> = { ...blank };
    for (const list of lists) result[list] = [];
    for (let index = 0; index < readers.length; index += 1) {
      const cell = row[index] as Cell;
      if (cell === null) continue;
      const reader = readers[index]!;
      const value = reader.exact(cell);
      result[reader.name] = value === undefined ? nearest(reader, cell, keyOf(row, keyAt), notes) : value;
    }
    return result as MessageShape<D>;
  };
};

/** Characters of a key that are told: a UUID, and as much of a longer text. */
const KEY_LENGTH = 40;

/** Cells of a row's key in printable ASCII without commas, as a header can carry them; undefined if the row has none. */
const keyOf = (row: Row, keyAt: readonly number[]): string | undefined =>
  keyAt.length === 0
    ? undefined
    : keyAt.map((at) => encodeURIComponent((row[at] ?? '').slice(0, KEY_LENGTH).toWellFormed())).join('/');

const nearest = ({ origin, codec }: Reader, cell: string, key: string | undefined, notes: Notes): unknown => {
  const place = key === undefined ? origin : `${origin}[${key}]`;
  try {
    return codec.nearest(cell, (how) => notes.add(place, how));
  } catch (error) {
    throw unrepresentable(origin, key, error);
  }
};

/** DATA_LOSS about a stored value that no form comes near; names its place, never the value. */
const unrepresentable = (origin: string, key: string | undefined, cause: unknown): RpcError => {
  const column = origin.slice(origin.lastIndexOf('.') + 1);
  const metadata = {
    table: origin.slice(0, -column.length - 1),
    column,
    ...(key === undefined ? {} : { key }),
  };
  const message = `a stored value cannot be represented: ${(cause as Error).message}`;
  return refuse('UNREPRESENTABLE_VALUE', message, { metadata, cause });
};
