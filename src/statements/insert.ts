import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import type { FieldName } from '../contract/fields.ts';
import { type Rules, required } from '../contract/rules.ts';
import { type Param, type Query, type Reading, type Row, type RowMap, statement } from '../database/statement.ts';
import { type ColumnOf, column, columnNamed, type Table, table } from '../database/table.ts';
import { parameterOf } from './parameters.ts';
import { type Storing, storedFields } from './stored-fields.ts';

/** What entity and message alone do not tell. Keys are proto field names, except where they are columns. */
interface InsertOptions<E extends Table, D extends DescMessage, G extends ColumnOf<E>> extends Storing<E, D> {
  /** SQL of what is stored where a request leaves the field out. */
  readonly defaults?: { readonly [F in FieldName<D>]?: string };
  /** SQL of what is stored, made of the SQL of the field's value. */
  readonly expressions?: { readonly [F in FieldName<D>]?: (value: string) => string };
  /** Columns that no field fills, and the SQL that does; it may be made of what is stored for fields. */
  readonly constants?: { readonly [C in ColumnOf<E>]?: Constant<FieldName<D>> };
  /** Columns that no field fills, and whose values come beside the message. */
  readonly given?: readonly G[];
}

type Constant<F extends string> = string | ((stored: (field: F) => string) => string);
type Beside<G extends string> = [G] extends [never] ? [] : [beside: Readonly<Record<G, Param>>];

/** Statement and rules of an insert. */
interface Insert<D extends DescMessage, G extends string> {
  /**
   * Declares the insert as a statement.
   *
   * @param tail what becomes of a conflict, and what is returned.
   * @param reading what that becomes; left out where nobody reads it.
   * @returns what a message asks of the database.
   */
  readonly statement: <T = Row>(
    name: string,
    tail?: string,
    reading?: Reading<T> | RowMap<T>,
  ) => (message: MessageShape<D>, ...beside: Beside<G>) => Query<T>;
  /** What the columns take. A field can be left out that has a default or whose column takes NULL. */
  readonly rules: Rules<D>;
}

/** {@link InsertOptions} as they are looked up for the fields of any message. */
interface Lookup {
  readonly defaults?: Readonly<Record<string, string>>;
  readonly expressions?: Readonly<Record<string, (value: string) => string>>;
  readonly constants?: Readonly<Record<string, Constant<string>>>;
}

/**
 * Derives an insert from a message and an entity, the mirror of `projection`: each field fills the column of its own
 * name.
 */
export const insert = <E extends Table, D extends DescMessage, G extends ColumnOf<E> = never>(
  entity: E,
  message: D,
  options: InsertOptions<E, D, G> = {},
): Insert<D, G> => {
  const { defaults = {}, expressions = {}, constants = {} } = options as Lookup;
  const { given = [] } = options;
  const fields = storedFields(entity, message, options).map(({ field, name, nullable, bind, rule }, index) => {
    const parameter = parameterOf(entity, name, index + 1);
    const fallback = defaults[field.name];
    const value = fallback === undefined ? parameter : `coalesce(${parameter}, ${fallback})`;
    const canBeUnset = field.presence !== FeatureSet_FieldPresence.EXPLICIT || fallback !== undefined || nullable;
    return {
      field,
      name,
      stored: expressions[field.name]?.(value) ?? value,
      bind,
      rule: canBeUnset ? rule : required(rule),
    };
  });
  const stored = (wanted: string): string => {
    const found = fields.find(({ field }) => field.name === wanted);
    if (!found) throw new Error(`${message.typeName} has no field ${wanted}`);
    return found.stored;
  };
  const all = [
    ...fields.map(({ name, stored: sql }) => [name, sql] as const),
    ...given.map((name, index) => [name, parameterOf(entity, name, fields.length + index + 1)] as const),
    ...Object.entries(constants).map(([name, sql]) => [name, typeof sql === 'string' ? sql : sql(stored)] as const),
  ];
  const names = all.map(([name]) => columnNamed(entity, name)).join(', ');
  const text = `insert into ${table(entity)} (${names}) values (${all.map(([, sql]) => sql).join(', ')})`;
  return {
    statement: <T>(name: string, tail = '', reading: Reading<T> | RowMap<T> = (row) => row as T) => {
      const declared = statement(name, `${text} ${tail}`, reading);
      return (values, ...[beside]) =>
        declared.with(
          ...fields.map(({ field, bind }) => bind((values as unknown as Record<string, unknown>)[field.localName])),
          ...given.map((each) => beside?.[each]),
        );
    },
    rules: Object.fromEntries(fields.flatMap(({ field, rule }) => (rule ? [[field.name, rule]] : []))) as Rules<D>,
  };
};

/** SQL: assignments of what an insert has brought to the row that was there before it. */
export const overwriting = <E extends Table>(entity: E, names: readonly ColumnOf<E>[]): string =>
  names.map((name) => `${column(entity, name)} = excluded.${column(entity, name)}`).join(', ');
