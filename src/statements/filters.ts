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
export type Filters = Readonly<Record<string, Filter<never>>>;
export type None = Readonly<Record<never, never>>;
type ValueOf<F> = F extends Filter<infer V> ? V : never;

type Optional<F extends Filters> = { readonly [K in keyof F]?: ValueOf<F[K]> | undefined };

/** Values of filters by name; one that a request may leave out is undefined there. */
export type Values<B extends Filters, F extends Filters> = [keyof B] extends [never]
  ? Optional<F>
  : { readonly [K in keyof B]: ValueOf<B[K]> } & Optional<F>;

/** Conditions on rows. */
export interface Filtered<B extends Filters, F extends Filters> {
  /** Conditions that always hold, and have no value. */
  readonly always?: readonly string[];
  /** Conditions whose values every request has. */
  readonly base?: B;
  /** Conditions that a request may leave out. */
  readonly filters?: F;
}

interface Statements<B extends Filters, F extends Filters, T> extends Filtered<B, F> {
  /** `select … from …`. */
  readonly select: string;
  readonly reading: Reading<T> | RowMap<T>;
}

/** The condition on rows to come after another. */
interface After {
  /** How many cells of the other it compares with. */
  readonly count: number;
  /** @param first number of the parameter that is the first of them. */
  readonly after: (first: number) => string;
}

const isChosen = (chosen: number, index: number): boolean => (chosen & (1 << index)) !== 0;

const isGiven = (value: Param): boolean => value !== undefined;

/**
 * Declares one statement per set of given filters: a condition that a request leaves out is not in its statement, so
 * PostgreSQL can choose the index that fits and keep the plan.
 *
 * @param tail what follows the conditions; it is told the number of its first parameter.
 * @param after one more condition that a request may leave out.
 */
export const filtered = <T, B extends Filters, F extends Filters>(
  name: string,
  { select, always = [], base, filters, reading }: Statements<B, F, T>,
  tail: (first: number) => string,
  after?: After,
): ((values: Values<B, F>, tailValues: readonly Param[], afterValues?: readonly Param[]) => Query<T>) => {
  const needed = Object.entries(base ?? {});
  const optional = Object.entries(filters ?? {});
  const variants = Array.from({ length: 2 ** (optional.length + (after ? 1 : 0)) }, (_, chosen) => {
    let first = 1;
    const all = [...always];
    for (const [, { sql }] of [...needed, ...optional.filter((_filter, index) => isChosen(chosen, index))]) {
      all.push(sql.replace('?', () => `$${first++}`));
    }
    if (after && isChosen(chosen, optional.length)) {
      all.push(after.after(first));
      first += after.count;
    }
    const condition = all.length === 0 ? '' : `where ${all.join(' and ')}`;
    const numbered = optional.length === 0 && chosen === 0 ? name : `${name}.${chosen}`;
    return statement(numbered, `${select} ${condition} ${tail(first)}`, reading);
  });
  return (values, tailValues, afterValues) => {
    const bound = ([key, { bind }]: [string, Filter<never>]): Param => {
      const value = (values as Readonly<Record<string, unknown>>)[key];
      return value === undefined ? undefined : bind(value as never);
    };
    const given = optional.map(bound);
    const chosen = given.reduce<number>(
      (bits, value, index) => (isGiven(value) ? bits | (1 << index) : bits),
      afterValues ? 1 << optional.length : 0,
    );
    const conditions = [...needed.map(bound), ...given.filter(isGiven), ...(afterValues ?? [])];
    return variants[chosen]!.with(...conditions, ...tailValues);
  };
};

/** Declares a count with optional filters, as lists have them. */
export const filteredCount = <B extends Filters = None, F extends Filters = None>(
  name: string,
  counted: Omit<Statements<B, F, bigint>, 'reading'>,
): ((values: Values<B, F>) => Query<bigint>) => {
  const query = filtered(name, { ...counted, reading: count }, () => '');
  return (values) => query(values, []);
};
