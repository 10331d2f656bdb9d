import { withoutSequence } from '../../../migrations/canonical.ts';
import { columnsOf, findTable, type LiveColumn, type LiveTable, quote, spellColumns } from './catalog.ts';
import type { Of } from './live-objects.ts';
import type { Tx } from './look.ts';

/** A column that changes its type. */
export interface Retype {
  readonly name: string;
  readonly number: string;
  readonly from: string;
  readonly to: string;
  readonly required: boolean;
  readonly fallback: string | null;
  /** Only the catalog changes: no row and no index is touched. */
  readonly free: boolean;
  /** The rows are converted beside their readers and writers; otherwise the table is held meanwhile. */
  readonly beside: boolean;
}

/** What becomes of a table's columns. */
export interface ColumnPlan {
  readonly table: LiveTable | undefined;
  readonly additions: readonly {
    readonly name: string;
    readonly definition: string;
    readonly fallback: string | null;
  }[];
  readonly retypes: readonly Retype[];
  /** Parts of an `alter table` that only change the catalog. */
  readonly changes: readonly string[];
  /** Columns that become NOT NULL. */
  readonly required: readonly string[];
  /** Columns that cannot be added: they allow no NULL, have no default, and there are rows. */
  readonly impossible: readonly string[];
}

const VARCHAR = /^character varying(?:\((\d+)\))?$/;

/** Longest text of a type; undefined if it is none. */
const textLimit = (type: string): number | undefined => {
  if (type === 'text') return Number.POSITIVE_INFINITY;
  const found = VARCHAR.exec(type);
  return found ? Number(found[1] ?? Number.POSITIVE_INFINITY) : undefined;
};

/** True when a column of the first type holds whatever one of the second can. */
const suffices = (live: string, wanted: string): boolean =>
  live === wanted || (textLimit(live) ?? Number.NEGATIVE_INFINITY) >= (textLimit(wanted) ?? Number.POSITIVE_INFINITY);

/** SQL: a value of the old type in the new one. */
export const converted = ({ from, to }: { from: string; to: string }, value: string): string => {
  if (from === 'timestamp without time zone' && to === 'timestamp with time zone') return `${value} at time zone 'UTC'`;
  // Widening in binary would show digits that nobody wrote.
  if (from === 'real') return `${value}::text::${to}`;
  return `${value}::${to}`;
};

/** Constraints that a new column beside the old one cannot take over. */
const isTied = async ({ rows }: Tx, table: string, number: string): Promise<boolean> => {
  const found = await rows(
    `select from pg_constraint where conrelid = $1::oid and contype <> 'c' and contype <> 'n' and $2::int2 = any(conkey)
     union all select from pg_constraint where confrelid = $1::oid and $2::int2 = any(confkey)`,
    [table, number],
  );
  return found.length > 0;
};

/** True where a large materialized view reads the column: to make it again while the table is held takes too long. */
const isMaterialized = async ({ rows }: Tx, table: string, number: string, smallBytes: number): Promise<boolean> => {
  const found = await rows(
    `select from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class c on c.oid = ev_class
     where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid
       and d.refobjsubid = $2::int and relkind = 'm' and pg_table_size(c.oid) > $3::bigint`,
    [table, number, smallBytes],
  );
  return found.length > 0;
};

export const indexesOn = async ({ rows }: Tx, table: string, number: string): Promise<string[]> => {
  const found = await rows(
    `select distinct i.relname as name from pg_depend d join pg_class i on i.oid = d.objid and d.classid = 'pg_class'::regclass
     where d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid and d.refobjsubid = $2::int and i.relkind = 'i'`,
    [table, number],
  );
  return found.map((row) => row.text('name'));
};

const retype = async (
  tx: Tx,
  table: LiveTable,
  live: LiveColumn,
  wanted: LiveColumn,
  smallBytes: number,
): Promise<Retype> => {
  const { name, number, type: from } = live;
  const { type: to, required, fallback } = wanted;
  const free =
    (textLimit(from) !== undefined && textLimit(to) !== undefined) ||
    (from === 'timestamp without time zone' &&
      to === 'timestamp with time zone' &&
      (await indexesOn(tx, table.oid, number)).length === 0);
  const large = !free && table.bytes > smallBytes;
  const beside =
    (large || (await isMaterialized(tx, table.oid, number, smallBytes))) && !(await isTied(tx, table.oid, number));
  return { name, number, from, to, required, fallback, free, beside };
};

/** Compares the columns of a table with what is stated. */
export const planColumns = async (tx: Tx, step: Of<'table'>, smallBytes: number): Promise<ColumnPlan> => {
  const table = await findTable(tx, step.table);
  const plan = {
    table,
    additions: [] as ColumnPlan['additions'][number][],
    retypes: [] as Retype[],
    changes: [] as string[],
    required: [] as string[],
    impossible: [] as string[],
  };
  if (!table) return plan;
  const definitions = Object.entries(step.columns).map(([name, spec]) => `"${name}" ${withoutSequence(spec)}`);
  const live = new Map((await columnsOf(tx, table.oid)).map((column) => [column.name, column]));
  for (const wanted of await spellColumns(tx, definitions.join(', '))) {
    const { name, type, required, fallback } = wanted;
    const spec = step.columns[name]!;
    const serial = withoutSequence(spec) !== spec;
    const there = live.get(name);
    if (!there) {
      // A default would give the rows that exist a meaning for other readers that nobody has given them.
      const definition =
        serial || wanted.generated
          ? spec
          : required
            ? `${type} not null${fallback ? ` default ${fallback}` : ''}`
            : type;
      if (required && !fallback && !serial && table.bytes > 0) plan.impossible.push(name);
      plan.additions.push({ name, definition, fallback: serial || required ? null : fallback });
      continue;
    }
    if (wanted.generated || there.generated) continue;
    const column = `alter column ${quote(name)}`;
    if (!suffices(there.type, type)) {
      plan.retypes.push(
        await retype(tx, table, there, { ...wanted, required: required || there.required }, smallBytes),
      );
    } else if (fallback !== there.fallback && !serial) {
      plan.changes.push(fallback === null ? `${column} drop default` : `${column} set default ${fallback}`);
    }
    if (required && !there.required) plan.required.push(name);
    if (!required && there.required && !there.key) plan.changes.push(`${column} drop not null`);
  }
  return plan;
};

/** What hangs on a retyped column and can neither be kept nor be made again. */
export const obstaclesOf = async ({ rows }: Tx, table: LiveTable, { number }: Retype): Promise<string[]> => {
  const found = await rows(
    `select distinct pg_describe_object(d.classid, d.objid, d.objsubid) as text from pg_depend d
     where d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid and d.refobjsubid = $2::int
       and not (d.classid = 'pg_rewrite'::regclass and exists (
         select from pg_rewrite r join pg_class c on c.oid = ev_class where r.oid = d.objid and relkind in ('v', 'm')))
       and not (d.classid = 'pg_class'::regclass and exists (select from pg_class c where c.oid = d.objid and relkind in ('i', 'I', 'S')))
       and d.classid <> 'pg_constraint'::regclass
       and not (d.classid = 'pg_attrdef'::regclass and exists (
         select from pg_attrdef f where f.oid = d.objid and adrelid = $1::oid and adnum = $2::int))
       and not (d.classid = 'pg_class'::regclass and d.objid = $1::oid and d.objsubid = $2::int)
     order by 1`,
    [table.oid, number],
  );
  return found.map((row) => row.text('text'));
};

/** A count of the rows for which a condition holds. */
export const countRows = async ({ row }: Tx, table: LiveTable, condition: string): Promise<number> =>
  (await row(`select count(*) as count from ${table.name} where ${condition}`)).number('count');
