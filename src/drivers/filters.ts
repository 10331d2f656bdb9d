import type { Param, RowMap, Statement } from '../database/statement.ts';
import { statement } from '../database/statement.ts';

/** A statement and its parameters. */
export interface Query<T> {
  readonly statement: Statement<T>;
  readonly params: readonly Param[];
}

interface Filtered<T> {
  /** `select … from …`. */
  readonly select: string;
  /** Conditions that always hold, each with a `?` where its value stands, if it has one. */
  readonly base?: readonly string[];
  /** Conditions that a request may leave out, each with one `?` where its value stands. */
  readonly filters: readonly string[];
  readonly map: RowMap<T>;
}

interface FilteredList<T> extends Filtered<T> {
  readonly order: string;
}

const isChosen = (chosen: number, index: number): boolean => (chosen & (1 << index)) !== 0;

const isGiven = (value: Param): boolean => value !== undefined && value !== null;

/**
 * Declares one statement per set of given filters: a condition that a request leaves out is not in its statement, so
 * PostgreSQL can choose the index that fits and keep the plan.
 *
 * @param tail what follows the conditions; it is told the number of its first parameter.
 */
const filtered = <T>(
  name: string,
  { select, base = [], filters, map }: Filtered<T>,
  tail: (first: number) => string,
): ((baseValues: readonly Param[], values: readonly Param[], tailValues: readonly Param[]) => Query<T>) => {
  const variants = Array.from({ length: 2 ** filters.length }, (_, chosen) => {
    let first = 1;
    const conditions = [...base, ...filters.filter((_filter, index) => isChosen(chosen, index))].map((condition) =>
      condition.replace('?', () => `$${first++}`),
    );
    const where = conditions.length === 0 ? '' : `where ${conditions.join(' and ')}`;
    return statement(`${name}.${chosen}`, `${select} ${where} ${tail(first)}`, map);
  });
  return (baseValues, values, tailValues) => {
    const chosen = values.reduce<number>((bits, value, index) => (isGiven(value) ? bits | (1 << index) : bits), 0);
    return { statement: variants[chosen]!, params: [...baseValues, ...values.filter(isGiven), ...tailValues] };
  };
};

/**
 * Declares a list with optional filters.
 *
 * @returns the query for the filters' values (undefined or null leaves a filter out), the most rows (null for all), the
 *   rows to skip, and the values of the conditions that always hold.
 */
export const filteredList = <T>(
  name: string,
  list: FilteredList<T>,
): ((values: readonly Param[], limit: number | null, offset?: number, baseValues?: readonly Param[]) => Query<T>) => {
  const query = filtered(
    name,
    list,
    (first) => `order by ${list.order} limit $${first}::bigint offset $${first + 1}::bigint`,
  );
  return (values, limit, offset = 0, baseValues = []) => query(baseValues, values, [limit, offset]);
};

/** Declares a count with optional filters; see {@link filteredList}. */
export const filteredCount = (
  name: string,
  counted: Omit<Filtered<bigint>, 'map'>,
): ((values: readonly Param[], baseValues?: readonly Param[]) => Query<bigint>) => {
  const query = filtered(name, { ...counted, map: (row) => BigInt(row[0]!) }, () => '');
  return (values, baseValues = []) => query(baseValues, values, []);
};

/** A text filter: an empty text does not filter. */
export const nonEmpty = (text: string | undefined): string | undefined => text || undefined;
