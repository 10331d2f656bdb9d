import { type Table, table } from '../database/table.ts';
import { type Filtered, type Filters, filtered, type None, type Values } from './filters.ts';
import { type OrderOf, orderBy } from './order.ts';
import { type ListQuery, type Walk, WHOLE } from './places.ts';
import type { Selected } from './projection.ts';

interface List<E extends Table, B extends Filters, F extends Filters, T> extends Filtered<B, F> {
  /** Whose columns rows are ordered by. */
  readonly entity: E;
  /** Alias of its table in the statement. */
  readonly alias?: string;
  /** What stands behind `from`; the entity's table unless said otherwise. */
  readonly from?: string;
  readonly reading: Selected<T>;
  /** True where rows that are the same in all cells are one. */
  readonly distinct?: true;
  /** Must tell any two rows apart. */
  readonly order: OrderOf<E>;
  /** True where a request may ask for some of the rows. */
  readonly paged?: true;
}

/** Which of the rows that are found; all of them where nothing is said. */
interface Part {
  readonly limit?: number;
  readonly offset?: number | undefined;
}

/**
 * Declares a list of rows in an order, with filters that a request may leave out.
 *
 * @returns the query for the values of its filters by name (a request that has fields of these names will do), from where
 *   the call's way through the list leads to.
 */
export const list = <E extends Table, T, B extends Filters = None, F extends Filters = None>(
  name: string,
  { entity, alias, from, reading, distinct, order, paged, ...conditions }: List<E, B, F, T>,
): ((values: Values<B, F>, walk?: Walk, part?: Part) => ListQuery<T>) => {
  const { text, beside, keyAt, after } = orderBy(entity, order, reading.expressions, alias);
  const select = `select ${distinct ? 'distinct ' : ''}${[...reading.expressions, ...beside].join(', ')}`;
  const source = from ?? `${table(entity)}${alias === undefined ? '' : ` ${alias}`}`;
  const query = filtered(
    name,
    { ...conditions, select: `${select} from ${source}`, reading },
    (first) => `order by ${text}${paged ? ` limit $${first}::bigint offset $${first + 1}::bigint` : ''}`,
    { count: keyAt.length, after },
  );
  return (values, walk = WHOLE, { limit, offset = 0 } = {}) => {
    const begin = walk.at(text);
    const place = begin.after || begin.skip ? begin : { after: undefined, skip: offset };
    const params = paged ? [limit, place.skip] : [];
    return { ...query(values, params, place.after), place, limit, order: text, keyAt };
  };
};
