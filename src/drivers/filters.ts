import type { Param, Row, Statement } from '../database/statement.ts';
import { statement } from '../database/statement.ts';

/** A list whose request may leave conditions out. */
interface FilteredList<T> {
  /** `select … from …`. */
  readonly select: string;
  /** Optional conditions, each with one `?` where its value stands. */
  readonly filters: readonly string[];
  readonly order: string;
  readonly map: (row: Row) => T;
}

/** A statement and its parameters. */
export interface Query<T> {
  readonly statement: Statement<T>;
  readonly params: readonly Param[];
}

/**
 * Declares a list in one statement per set of given filters: a condition that a request leaves out is not in its
 * statement, so PostgreSQL can choose the index that fits and keep the plan.
 *
 * @returns the query for the filters' values (undefined or null leaves a filter out) and the most rows, null for all.
 */
export const filteredList = <T>(
  name: string,
  { select, filters, order, map }: FilteredList<T>,
): ((values: readonly Param[], limit: number | null) => Query<T>) => {
  const variants = Array.from({ length: 2 ** filters.length }, (_, chosen) => {
    const conditions = filters
      .filter((_filter, index) => isChosen(chosen, index))
      .map((filter, index) => filter.replace('?', `$${index + 1}`));
    const where = conditions.length === 0 ? '' : `where ${conditions.join(' and ')}`;
    return statement(
      `${name}.${chosen}`,
      `${select} ${where} order by ${order} limit $${conditions.length + 1}::bigint`,
      map,
    );
  });
  return (values, limit) => {
    const params = values.filter((value) => value !== undefined && value !== null);
    const chosen = values.reduce<number>(
      (bits, value, index) => (value === undefined || value === null ? bits : bits | (1 << index)),
      0,
    );
    return { statement: variants[chosen]!, params: [...params, limit] };
  };
};

const isChosen = (chosen: number, index: number): boolean => (chosen & (1 << index)) !== 0;

/** A text filter: an empty text does not filter. */
export const nonEmpty = (text: string | undefined): string | undefined => text || undefined;
