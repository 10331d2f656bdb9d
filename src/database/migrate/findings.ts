import type { Step } from '../../../migrations/canonical.ts';
import { columnsOf, type LiveTable } from './catalog.ts';
import type { Retype } from './column-plan.ts';
import type { Of } from './live-objects.ts';
import type { Tx } from './look.ts';

/** One thing that a migration would stop at, or would change. */
export interface Finding {
  readonly level: 'stop' | 'change';
  /** A table or a column. */
  readonly where: string;
  readonly rows?: number;
  readonly what: string;
  /** What the operator can do about it. */
  readonly remedy?: string;
}

/** One line for a person. */
export const findingText = ({ level, where, rows, what, remedy }: Finding): string =>
  `${level.padEnd(6)}  ${where}${rows === undefined ? '' : `  ${rows} row(s)`}: ${what}${remedy ? `; ${remedy}` : ''}`;

/** Something in the database that a migration would stop at; no value is lost. The message has a line for each. */
export class ObstacleError extends Error {
  constructor(findings: readonly Finding[]) {
    super(['the database cannot be migrated as it is', ...findings.map(findingText)].join('\n'));
  }
}

export type Look = <T>(task: (tx: Tx) => Promise<T>) => Promise<T>;

export const of = <K extends Step['kind']>(steps: readonly Step[], kind: K): readonly Of<K>[] =>
  steps.filter((step): step is Of<K> => step.kind === kind);

/** Documents that jsonb refuses; most that look like one are asked one by one. */
export const SUSPECT = String.raw`'\\u0000|\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9][eE][+]?[0-9]{4}'`;

/** So many rows whose value has no form in the column's new type. */
export const unconvertible = (table: LiveTable, { name, from, to }: Retype, rows: number): Finding => ({
  level: 'stop',
  where: `${table.name}.${name}`,
  rows,
  ...(from === 'json' && to === 'jsonb'
    ? {
        what: 'hold a document that jsonb cannot: \\u0000, half a surrogate pair, or a number beyond every limit',
        remedy: `find them with: select * from ${table.name} where ${name}::text ~ ${SUSPECT}; write the escape out of them`,
      }
    : { what: `hold a value that no ${to} can`, remedy: 'give them one that it can' }),
});

export const CASTABLE = `create or replace function pg_temp.castable(document json) returns boolean language plpgsql as $$
begin
  perform document::jsonb;
  return true;
exception when others then
  return false;
end $$`;

/** True for a document in which an object, at any depth, names a key twice. */
export const REPEATS = `create or replace function pg_temp.repeats(document json) returns boolean language plpgsql as $$
declare
  part json;
begin
  if json_typeof(document) = 'object' then
    if (select count(*) > count(distinct key) from json_each(document)) then return true; end if;
    for part in select value from json_each(document) where json_typeof(value) in ('object', 'array') loop
      if pg_temp.repeats(part) then return true; end if;
    end loop;
  elsif json_typeof(document) = 'array' then
    for part in select value from json_array_elements(document) where json_typeof(value) in ('object', 'array') loop
      if pg_temp.repeats(part) then return true; end if;
    end loop;
  end if;
  return false;
end $$`;

/** Columns of a table that SQL names; false when one is not there yet. */
export const hasColumns = async (tx: Tx, table: LiveTable, sql: string): Promise<boolean> => {
  const live = new Set((await columnsOf(tx, table.oid)).map(({ name }) => name));
  return sql
    .replace(/'(?:[^']|'')*'/g, '')
    .split(/[^\w]+/)
    .filter((word) => /_|^(id|version|scope|status|source|decision|severity|name|slug|plan)$/.test(word))
    .every((word) => live.has(word));
};

export const unique = (findings: readonly Finding[]): Finding[] => [
  ...new Map(findings.map((finding) => [findingText(finding), finding])).values(),
];
