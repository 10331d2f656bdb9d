import { type ColumnOf, columnNamed, type Table } from '../database/table.ts';
import type { Key } from '../entities/columns.ts';
import { columnProperties, typeOf } from './parameters.ts';

/** What no column of the entity is that rows are ordered by, greatest first, NULL last. */
interface Computed {
  readonly sql: string;
  /** SQL type. */
  readonly type: string;
}

/** What rows are ordered by: a column in the words of an index, or what is computed. NULL is the greatest value of a column. */
export type OrderOf<E extends Table> = readonly (Key<ColumnOf<E>> | Computed)[];

/** One of them. */
interface Term {
  /** What is compared, with its collation. */
  readonly sql: string;
  /** What is selected. */
  readonly cell: string;
  readonly type: string;
  readonly descending: boolean;
  readonly nullable: boolean;
  readonly nullsLast: boolean;
}

const KEY = /^(\w+)( collate "C")?( desc)?$/;

const termOf = (entity: Table, key: string | Computed, alias: string | undefined): Term => {
  if (typeof key === 'object') {
    const { sql, type } = key;
    return { sql, cell: sql, type, descending: true, nullable: true, nullsLast: true };
  }
  const [, name = '', collation = '', direction] = KEY.exec(key) ?? [];
  const cell = columnNamed(entity, name, alias);
  return {
    sql: `${cell}${collation}`,
    cell,
    type: typeOf(entity, name),
    descending: direction !== undefined,
    nullable: columnProperties(entity, name).nullable === true,
    nullsLast: direction === undefined,
  };
};

const inWords = ({ sql, descending, nullsLast }: Term): string =>
  `${sql}${descending ? ' desc' : ''}${descending && nullsLast ? ' nulls last' : ''}`;

/** SQL: what comes after a row of which `values` are the parameters. */
const afterOf = (terms: readonly Term[], values: readonly string[]): string => {
  const [first] = terms as [Term];
  const [value] = values as [string];
  const sign = first.descending ? '<' : '>';
  if (terms.every(({ nullable, descending }) => !nullable && descending === first.descending)) {
    return `(${terms.map(({ sql }) => sql).join(', ')}) ${sign} (${values.join(', ')})`;
  }
  const { sql, nullable, nullsLast } = first;
  const beyond = nullsLast ? `${sql} is null and ${value} is not null` : `${sql} is not null and ${value} is null`;
  const alternatives = [`${sql} ${sign} ${value}`, ...(nullable ? [beyond] : [])];
  if (terms.length > 1) {
    const same = nullable ? `${sql} is not distinct from ${value}` : `${sql} = ${value}`;
    alternatives.push(`${same} and ${afterOf(terms.slice(1), values.slice(1))}`);
  }
  return `(${alternatives.join(' or ')})`;
};

/** The order of a list, which tells any two of its rows apart. */
export interface Order {
  /** What stands behind `order by`. */
  readonly text: string;
  /** SQL of the cells that are a row's place, those that are selected anyway aside. */
  readonly beside: readonly string[];
  /** Where in a row all of them are. */
  readonly keyAt: readonly number[];
  /** The condition on rows to come after the row of which they are the parameters from that number on. */
  readonly after: (first: number) => string;
}

/** @param selected SQL of the cells of a row, behind which the others go. */
export const orderBy = <E extends Table>(
  entity: E,
  keys: OrderOf<E>,
  selected: readonly string[],
  alias?: string,
): Order => {
  const terms = keys.map((key) => termOf(entity, key, alias));
  const cells = [...selected];
  const keyAt = terms.map(({ sql, cell }) => {
    const at = cells.findIndex((each) => each === cell || each === sql);
    return at === -1 ? cells.push(cell) - 1 : at;
  });
  return {
    text: terms.map(inWords).join(', '),
    beside: cells.slice(selected.length),
    keyAt,
    after: (first) =>
      afterOf(
        terms,
        terms.map(({ type }, index) => `$${first + index}::${type}`),
      ),
  };
};
