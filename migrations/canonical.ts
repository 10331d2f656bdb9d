import { Migration } from '@mikro-orm/migrations';
import { ADOPTION } from './adoption.ts';

/** A column: `type [not null] [default expression]` as in `create table`. */
type ColumnSpec = string;

const SERIALS: readonly (readonly [RegExp, string])[] = [
  [/^serial\b/i, 'integer not null'],
  [/^bigserial\b/i, 'bigint not null'],
];

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

const list = (texts: readonly string[]): string => `array[${texts.map(literal).join(', ')}]::text[]`;

const isGenerated = (spec: ColumnSpec): boolean => /\bgenerated\s/i.test(spec);

/** What a column of a serial type is, apart from its sequence. */
const withoutSequence = (spec: ColumnSpec): string => {
  const serial = SERIALS.find(([pattern]) => pattern.test(spec));
  return serial ? serial[1] : spec;
};

/** Adds what the first rows of an adopted table can take: NOT NULL follows once no NULL is left. */
const addable = (spec: ColumnSpec): string =>
  isGenerated(spec) || withoutSequence(spec) !== spec ? spec : spec.replace(/ not null\b/i, '');

/**
 * A migration that says what the schema is, not how to get there. On an empty database it creates everything; on one
 * that holds the same tables in an older shape it changes what differs, and keeps every row and every extra column.
 *
 * Each method states one thing; stating it twice does nothing. All names are schema-qualified. Call
 * {@link dropTrigger}, {@link dropForeignKeys} and {@link dropChecks} before {@link table} where they would be in the
 * way of a column's new type, and {@link dropRedundantIndexes} after the last index of a table.
 *
 * Values are moved by `alter table`, never by `update`: triggers of an adopted table neither fire nor refuse.
 */
export abstract class CanonicalMigration extends Migration {
  /** Names of the indexes stated so far, by table. */
  readonly #indexes = new Map<string, string[]>();

  /** A schema. */
  protected schema(name: string): void {
    this.addSql(`create schema if not exists ${name}`);
  }

  /**
   * A table with all its columns.
   *
   * A column that an adopted table lacks is added at the end. A column whose type differs is converted: zone-less
   * timestamps count as UTC, `real` goes by way of its decimal text, text that is too long is an error. A default that
   * differs is replaced; NULLs in a column that becomes NOT NULL take the default. Views on a column that changes are
   * taken down and put back.
   *
   * @param columns names and definitions, in physical order.
   * @param options.primaryKey `<constraint name> (<columns>)`.
   */
  protected table(
    name: string,
    columns: Readonly<Record<string, ColumnSpec>>,
    { primaryKey }: { readonly primaryKey: string },
  ): void {
    this.#prepare();
    const [keyName, keyColumns] = primaryKey.split(/ (?=\()/, 2) as [string, string];
    const define = (write: (spec: ColumnSpec) => string) =>
      Object.entries(columns).map(([column, spec]) => `"${column}" ${write(spec)}`);
    const key = `constraint ${keyName} primary key ${keyColumns}`;
    this.addSql(`create table if not exists ${name} (${[...define((spec) => spec), key].join(', ')})`);
    const additions = define(addable).map((definition) => `add column if not exists ${definition}`);
    this.addSql(`alter table ${name} ${additions.join(', ')}`);
    const definition = literal(define(withoutSequence).join(', '));
    const sequences = Object.keys(columns).filter((column) => withoutSequence(columns[column]!) !== columns[column]);
    this.addSql(`select pg_temp.adopt_columns('${name}', ${definition}, ${list(sequences)})`);
    this.#constraint(name, keyName, `primary key ${keyColumns}`);
  }

  /** A unique constraint over `(columns)`. */
  protected unique(table: string, name: string, columns: string): void {
    this.#constraint(table, name, `unique ${columns}`);
  }

  /** A CHECK; one of the same name with another condition is replaced, one with the same condition renamed. */
  protected check(table: string, name: string, condition: string): void {
    this.#constraint(table, name, `check (${condition})`);
  }

  /** A foreign key: `(columns) references …`; one of the same name that says something else is replaced. */
  protected foreignKey(table: string, name: string, definition: string): void {
    this.#constraint(table, name, `foreign key ${definition}`);
  }

  /** An index; `tail` is all that follows the table: `(column desc) where …`. An equal one is renamed. */
  protected index(table: string, name: string, tail: string, { unique = false } = {}): void {
    this.#prepare();
    this.#indexes.set(table, [...(this.#indexes.get(table) ?? []), name]);
    this.addSql(`select pg_temp.adopt_index('${table}', '${name}', ${literal(tail)}, ${unique})`);
  }

  /** A unique index, for what a constraint cannot say: a condition, an expression, or an upsert's arbiter. */
  protected uniqueIndex(table: string, name: string, tail: string): void {
    this.index(table, name, tail, { unique: true });
  }

  /** Drops a constraint of any kind. The table may be missing. */
  protected dropConstraint(table: string, name: string): void {
    this.addSql(`alter table if exists ${table} drop constraint if exists ${name}`);
  }

  /** Drops an index that belongs to no constraint. */
  protected dropIndex(name: string): void {
    this.addSql(`drop index if exists ${name}`);
  }

  /** Drops every index that repeats another: one stated here, or one that also keeps a unique constraint. */
  protected dropRedundantIndexes(table: string): void {
    this.#prepare();
    this.addSql(`select pg_temp.drop_redundant_indexes('${table}', ${list(this.#indexes.get(table) ?? [])})`);
  }

  /** A row trigger; one of the same name is replaced. */
  protected trigger(table: string, name: string, event: string, call: string): void {
    this.dropTrigger(table, name);
    this.addSql(`create trigger ${name} ${event} on ${table} for each row execute function ${call}`);
  }

  /** Drops a trigger; its function stays. */
  protected dropTrigger(table: string, name: string): void {
    this.addSql(`drop trigger if exists ${name} on ${table}`);
  }

  /** Drops the triggers whose function speaks of `text`, whatever they are called. The table may be missing. */
  protected dropTriggersMentioning(table: string, text: string): void {
    this.#prepare();
    this.addSql(`select pg_temp.drop_triggers('${table}', ${literal(text)})`);
  }

  /** Drops the foreign keys on any of these columns, whatever they are called. The table may be missing. */
  protected dropForeignKeys(table: string, ...columns: string[]): void {
    this.#dropConstraints('f', table, columns);
  }

  /** Drops the CHECKs on any of these columns, whatever they are called. The table may be missing. */
  protected dropChecks(table: string, ...columns: string[]): void {
    this.#dropConstraints('c', table, columns);
  }

  /** Drops the unique constraints on any of these columns, whatever they are called. The table may be missing. */
  protected dropUniques(table: string, ...columns: string[]): void {
    this.#dropConstraints('u', table, columns);
  }

  /** Default rows: an insert that adds nothing the second time. */
  protected seed(sql: string): void {
    this.addSql(sql);
  }

  #constraint(table: string, name: string, definition: string): void {
    this.#prepare();
    this.addSql(`select pg_temp.adopt_constraint('${table}', '${name}', ${literal(definition)})`);
  }

  #dropConstraints(kind: 'c' | 'f' | 'u', table: string, columns: readonly string[]): void {
    this.#prepare();
    this.addSql(`select pg_temp.drop_constraints('${kind}', '${table}', ${list(columns)})`);
  }

  #prepare(): void {
    if (this.getQueries().includes(ADOPTION[0]!)) return;
    for (const definition of ADOPTION) this.addSql(definition);
  }
}
