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

/** {@link column} of one entity; `usual` is the alias where none is given. */
export const columnsOf =
  <E extends Table>(entity: E, usual?: string): ((name: ColumnOf<E>, alias?: string) => string) =>
  (name, alias = usual) =>
    column(entity, name, alias);

/** Several columns of an entity, with commas between them. */
export const columnList = <E extends Table>(entity: E, names: readonly ColumnOf<E>[], alias?: string): string =>
  names.map((name) => column(entity, name, alias)).join(', ');
