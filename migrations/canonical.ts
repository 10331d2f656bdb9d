import { Migration } from '@mikro-orm/migrations';

/** A column: `type [not null] [default expression]` as in `create table`. */
export type ColumnSpec = string;

/** One thing that a migration states. What it takes to get there is the runner's business (`src/database/migrate/`). */
export type Step =
  | { readonly kind: 'sql'; readonly sql: string }
  | { readonly kind: 'schema'; readonly name: string }
  | {
      readonly kind: 'table';
      readonly table: string;
      readonly columns: Readonly<Record<string, ColumnSpec>>;
      readonly keyName: string;
      readonly keyColumns: string;
    }
  | {
      readonly kind: 'constraint';
      readonly table: string;
      readonly name: string;
      readonly type: 'c' | 'f' | 'u';
      readonly definition: string;
    }
  | {
      readonly kind: 'index';
      readonly table: string;
      readonly name: string;
      readonly tail: string;
      readonly unique: boolean;
    }
  | {
      readonly kind: 'trigger';
      readonly table: string;
      readonly name: string;
      readonly event: string;
      readonly call: string;
      readonly replaces?: string | undefined;
    }
  | { readonly kind: 'dropIndex'; readonly name: string }
  | { readonly kind: 'dropTrigger'; readonly table: string; readonly name: string }
  | { readonly kind: 'dropChecks'; readonly table: string; readonly columns: readonly string[] };

const SERIALS: readonly (readonly [RegExp, string])[] = [
  [/^serial\b/i, 'integer not null'],
  [/^bigserial\b/i, 'bigint not null'],
];

/** What a column of a serial type is, apart from its sequence. */
export const withoutSequence = (spec: ColumnSpec): string => {
  const serial = SERIALS.find(([pattern]) => pattern.test(spec));
  return serial ? serial[1] : spec;
};

/** `create table` of a step; `keyName` where the stated one is taken. */
export const createTable = (
  { table, columns, keyName, keyColumns }: Extract<Step, { kind: 'table' }>,
  name = keyName,
): string =>
  `create table if not exists ${table} (${[
    ...Object.entries(columns).map(([column, spec]) => `"${column}" ${spec}`),
    `constraint ${name} primary key ${keyColumns}`,
  ].join(', ')})`;

/** What a step is on a database that holds nothing. */
export const plainly = (step: Step): readonly string[] => {
  switch (step.kind) {
    case 'sql':
      return [step.sql];
    case 'schema':
      return [`create schema if not exists ${step.name}`];
    case 'table':
      return [
        createTable(step),
        ...Object.entries(step.columns).map(
          ([column, spec]) => `alter table ${step.table} add column if not exists "${column}" ${spec}`,
        ),
      ];
    case 'constraint':
      return [`alter table ${step.table} add constraint ${step.name} ${step.definition}`];
    case 'index':
      return [`create ${step.unique ? 'unique ' : ''}index if not exists ${step.name} on ${step.table} ${step.tail}`];
    case 'trigger':
      return [`create trigger ${step.name} ${step.event} on ${step.table} for each row execute function ${step.call}`];
    case 'dropIndex':
      return [`drop index if exists ${step.name}`];
    case 'dropTrigger':
      return [];
    case 'dropChecks':
      return [];
  }
};

/**
 * A migration that says what the schema is, not how to get there. On an empty database it creates everything; on one
 * that holds the same tables in an older shape the runner changes what differs, and keeps every row, every extra column
 * and every name.
 *
 * Each method states one thing; stating it twice does nothing. All names are schema-qualified. What is there already
 * under another name is taken as it stands: a platform's own migrations go on finding what they made. A name that
 * something else has gets a number, as PostgreSQL itself would do it.
 */
export abstract class CanonicalMigration extends Migration {
  /** What {@link up} has stated, in order. */
  readonly steps: Step[] = [];

  /** The plain statements, for an empty database: MikroORM's own migrator gets by with these. */
  override getQueries(): string[] {
    return this.steps.flatMap(plainly);
  }

  override reset(): void {
    super.reset();
    this.steps.length = 0;
  }

  /** A schema. */
  protected schema(name: string): void {
    this.steps.push({ kind: 'schema', name });
  }

  /**
   * A table with all its columns, or some columns of a table that is there.
   *
   * A column that an adopted table lacks is added at the end: NULL in the rows that exist, or its default where NULL is
   * not allowed. A column whose type differs is converted: zone-less timestamps count as UTC, `real` goes by way of its
   * decimal text. A text column is widened, never narrowed. A default that differs is replaced. Views on a column that
   * changes are taken down and put back.
   *
   * @param columns names and definitions, in physical order.
   * @param options.primaryKey `<constraint name> (<columns>)`.
   */
  protected table(
    table: string,
    columns: Readonly<Record<string, ColumnSpec>>,
    { primaryKey }: { readonly primaryKey: string },
  ): void {
    const [keyName, keyColumns] = primaryKey.split(/ (?=\()/, 2) as [string, string];
    this.steps.push({ kind: 'table', table, columns, keyName, keyColumns });
  }

  /** A unique constraint over `(columns)`. */
  protected unique(table: string, name: string, columns: string): void {
    this.steps.push({ kind: 'constraint', type: 'u', table, name, definition: `unique ${columns}` });
  }

  /** A CHECK; one of the same name with another condition is replaced. */
  protected check(table: string, name: string, condition: string): void {
    this.steps.push({ kind: 'constraint', type: 'c', table, name, definition: `check (${condition})` });
  }

  /** A foreign key: `(columns) references <table> (columns) [on delete …]`. */
  protected foreignKey(table: string, name: string, definition: string): void {
    this.steps.push({ kind: 'constraint', type: 'f', table, name, definition: `foreign key ${definition}` });
  }

  /** An index; `tail` is all that follows the table: `(column desc) where …`. */
  protected index(table: string, name: string, tail: string, { unique = false } = {}): void {
    this.steps.push({ kind: 'index', table, name, tail, unique });
  }

  /** A unique index, for what a constraint cannot say: a condition, an expression, or an upsert's arbiter. */
  protected uniqueIndex(table: string, name: string, tail: string): void {
    this.index(table, name, tail, { unique: true });
  }

  /** Drops an index that belongs to no constraint. */
  protected dropIndex(name: string): void {
    this.steps.push({ kind: 'dropIndex', name });
  }

  /**
   * A row trigger; one of the same name is replaced.
   *
   * @param options.replaces triggers whose function speaks of this, whatever they are called, go in the same moment.
   */
  protected trigger(
    table: string,
    name: string,
    event: string,
    call: string,
    { replaces }: { readonly replaces?: string } = {},
  ): void {
    this.steps.push({ kind: 'trigger', table, name, event, call, replaces });
  }

  /** Drops a trigger; its function stays. The table may be missing. */
  protected dropTrigger(table: string, name: string): void {
    this.steps.push({ kind: 'dropTrigger', table, name });
  }

  /** Drops the CHECKs on any of these columns, whatever they are called. The table may be missing. */
  protected dropChecks(table: string, ...columns: string[]): void {
    this.steps.push({ kind: 'dropChecks', table, columns });
  }

  /** An idempotent statement over small tables: a function, default rows. */
  protected seed(sql: string): void {
    this.steps.push({ kind: 'sql', sql });
  }

  override addSql(sql: string): void {
    this.seed(sql);
  }
}
