import type { DescField, DescMessage, MessageShape } from '@bufbuild/protobuf';
import { create } from '@bufbuild/protobuf';
import type { Cell, Reading, RowMap } from '../database/statement.ts';
import { columnNamed, type Table, tableName } from '../database/table.ts';
import { type Codec, codecOf } from './codecs.ts';
import { MessageEncoder } from './encoder.ts';
import { keyText, nearest, type Reader } from './inexact.ts';

/** What is selected, and how its rows become messages. */
export interface Selected<T> extends Reading<T> {
  /** SQL of each cell. */
  readonly expressions: readonly string[];
}

/** What is selected, an expression a field, in field order. */
export interface Projection<T> extends Selected<T> {
  /** Select list of the expressions. */
  readonly columns: string;
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
  const selected = readers.map(({ field }) => expressionOf(field.name));
  return { expressions: selected, columns: selected.join(', '), ...readingOf(message, readers, keyAt) };
};

/** How rows are read whose cells are the given fields of a message, in that order (default: all of them). */
export const rowsOf = <D extends DescMessage>(
  message: D,
  fields: readonly DescField[] = message.fields,
): Reading<MessageShape<D>> =>
  readingOf(
    message,
    fields.map((field) => ({ field, origin: `${message.name}.${field.name}`, codec: codecOf(field) })),
    [],
  );

/** NULL leaves a field as it is in an empty message. */
const readingOf = <D extends DescMessage>(
  message: D,
  fields: readonly Reader[],
  keyAt: readonly number[],
): Reading<MessageShape<D>> => ({
  map: mapper(message, fields, keyAt),
  encoder: new MessageEncoder(message, fields, keyAt),
});

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
      const { withText } = reader.codec;
      const value = notes.documentTexts && withText ? withText(cell) : reader.exact(cell);
      result[reader.name] = value === undefined ? nearest(reader, cell, keyText(row, keyAt), notes) : value;
    }
    return result as MessageShape<D>;
  };
};
