import type { DescEnum } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import type { Param, Query, Reading, RowMap } from '../database/statement.ts';
import { count, statement } from '../database/statement.ts';
import { timestampToText } from '../database/values.ts';
import { enumText } from './codecs.ts';

/** A condition on a value of a request. */
interface Filter<V> {
  /** With one `?` where the value stands. */
  readonly sql: string;
  /** What stands there; undefined for a value that does not filter. */
  readonly bind: (value: V) => Param;
}

const as = <V extends Param>(sql: string): Filter<V> => ({ sql, bind: (value) => value });

/** Conditions, each with one `?` where the value stands. */
export const where = {
  /** An empty text does not filter. */
  text: (sql: string): Filter<string> => ({ sql, bind: nonEmpty }),
  /** Any text filters, an empty one too. */
  exactText: (sql: string): Filter<string> => as(sql),
  /** An empty list does not filter. */
  texts: (sql: string): Filter<readonly string[]> => ({ sql, bind: (list) => (list.length === 0 ? undefined : list) }),
  number: (sql: string): Filter<number> => as(sql),
  flag: (sql: string): Filter<boolean> => as(sql),
  instant: (sql: string): Filter<Timestamp> => ({ sql, bind: timestampToText }),
  /** The stored text of an enum value. */
  member: (desc: DescEnum, sql: string): Filter<number> => ({ sql, bind: (number) => enumText(desc, number) }),
};

/** A text filter: an empty text does not filter. */
export const nonEmpty = (text: string | undefined): string | undefined => text || undefined;

/** Filters by the names of their values. */
type Filters = Readonly<Record<string, Filter<never>>>;
type None = Readonly<Record<never, never>>;
type ValueOf<F> = F extends Filter<infer V> ? V : never;

type Optional<F extends Filters> = { readonly [K in keyof F]?: ValueOf<F[K]> | undefined };

/** Values of filters by name; one that a request may leave out is undefined there. */
type Values<B extends Filters, F extends Filters> = [keyof B] extends [never]
  ? Optional<F>
  : { readonly [K in keyof B]: ValueOf<B[K]> } & Optional<F>;

interface Filtered<B extends Filters, F extends Filters, T> {
  /** `select … from …`. */
  readonly select: string;
  /** Conditions that always hold, and have no value. */
  readonly always?: readonly string[];
  /** Conditions whose values every request has. */
  readonly base?: B;
  /** Conditions that a request may leave out. */
  readonly filters: F;
  readonly reading: Reading<T> | RowMap<T>;
}

interface FilteredList<B extends Filters, F extends Filters, T> extends Filtered<B, F, T> {
  readonly order: string;
}

/** Which of the rows that are found; all of them where nothing is said. */
interface Page {
  readonly limit?: number;
  readonly offset?: number | undefined;
}

const isChosen = (chosen: number, index: number): boolean => (chosen & (1 << index)) !== 0;

const isGiven = (value: Param): boolean => value !== undefined;

/**
 * Declares one statement per set of given filters: a condition that a request leaves out is not in its statement, so
 * PostgreSQL can choose the index that fits and keep the plan.
 *
 * @param tail what follows the conditions; it is told the number of its first parameter.
 */
const filtered = <T, B extends Filters = None, F extends Filters = None>(
  name: string,
  { select, always = [], base, filters, reading }: Filtered<B, F, T>,
  tail: (first: number) => string,
): ((values: Values<B, F>, tailValues: readonly Param[]) => Query<T>) => {
  const needed = Object.entries(base ?? {});
  const optional = Object.entries(filters);
  const variants = Array.from({ length: 2 ** optional.length }, (_, chosen) => {
    let first = 1;
    const conditions = [...needed, ...optional.filter((_filter, index) => isChosen(chosen, index))].map(([, { sql }]) =>
      sql.replace('?', () => `$${first++}`),
    );
    const all = [...always, ...conditions];
    const condition = all.length === 0 ? '' : `where ${all.join(' and ')}`;
    return statement(`${name}.${chosen}`, `${select} ${condition} ${tail(first)}`, reading);
  });
  return (values, tailValues) => {
    const bound = ([key, { bind }]: [string, Filter<never>]): Param => {
      const value = (values as Readonly<Record<string, unknown>>)[key];
      return value === undefined ? undefined : bind(value as never);
    };
    const given = optional.map(bound);
    const chosen = given.reduce<number>((bits, value, index) => (isGiven(value) ? bits | (1 << index) : bits), 0);
    return variants[chosen]!.with(...needed.map(bound), ...given.filter(isGiven), ...tailValues);
  };
};

/**
 * Declares a list with optional filters.
 *
 * @returns the query for the values of its filters by name (a request that has fields of these names will do) and the
 *   page of the rows.
 */
export const filteredList = <T, B extends Filters = None, F extends Filters = None>(
  name: string,
  list: FilteredList<B, F, T>,
): ((values: Values<B, F>, page?: Page) => Query<T>) => {
  const query = filtered(
    name,
    list,
    (first) => `order by ${list.order} limit $${first}::bigint offset $${first + 1}::bigint`,
  );
  return (values, { limit, offset = 0 } = {}) => query(values, [limit, offset]);
};

/** Declares a count with optional filters; see {@link filteredList}. */
export const filteredCount = <B extends Filters = None, F extends Filters = None>(
  name: string,
  counted: Omit<Filtered<B, F, bigint>, 'reading'>,
): ((values: Values<B, F>) => Query<bigint>) => {
  const query = filtered(name, { ...counted, reading: count }, () => '');
  return (values) => query(values, []);
};
