import type { DescMethodUnary, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { Timestamp } from '@bufbuild/protobuf/wkt';
import fc, { type Arbitrary } from 'fast-check';

/** A stored row: column -> value, instants as {@link instants} writes them. */
// biome-ignore lint/suspicious/noExplicitAny: rows are data of many shapes, and each model knows its own
export type StoredRow = Record<string, any>;

/** Table -> its rows. */
export type World = Readonly<Record<string, readonly StoredRow[]>>;

/** How two rows are ordered: negative, if the left one comes first. */
export type Order = (left: StoredRow, right: StoredRow) => number;

/** A list operation as a plain reading of its contract: which rows, in which order, how many. */
export interface ListModel<M extends DescMethodUnary = DescMethodUnary> {
  readonly method: M;
  /** Table the listed rows are stored in. */
  readonly table: string;
  /** All tables the operation reads -> their rows. */
  readonly world: Arbitrary<World>;
  readonly request: Arbitrary<MessageInitShape<M['input']>>;
  readonly chosen: (row: StoredRow, request: Request<M>, world: World) => boolean;
  readonly order: (world: World) => Order;
  /** Most rows without a limit in the request; undefined for an operation that brings all. */
  readonly limit: number | undefined;
  /** What tells a stored row from all others, and where an item of the answer has it. */
  readonly keyOfRow: (row: StoredRow) => unknown;
  readonly keyOfItem: (item: StoredRow) => unknown;
  /** What an answer says besides its items. */
  readonly beside: Beside<M> | undefined;
}

type Request<M extends DescMethodUnary> = MessageInitShape<M['input']> & Paging;

interface Paging {
  readonly limit?: number;
  readonly offset?: number;
}

interface Beside<M extends DescMethodUnary> {
  readonly answered: (response: MessageShape<M['output']>) => unknown;
  readonly expected: (
    chosen: readonly StoredRow[],
    page: readonly StoredRow[],
    world: World,
    request: Request<M>,
  ) => unknown;
}

const byId = (row: StoredRow): unknown => row['id'];

/** Declares a model; what is left out lists rows by their `id`. */
export const list = <M extends DescMethodUnary>(
  method: M,
  model: Pick<ListModel<M>, 'table' | 'world' | 'request' | 'chosen'> & {
    readonly order: Order | ((world: World) => Order);
  } & Partial<Pick<ListModel<M>, 'limit' | 'keyOfRow' | 'keyOfItem' | 'beside'>>,
): ListModel =>
  ({
    limit: undefined,
    keyOfRow: byId,
    keyOfItem: byId,
    beside: undefined,
    method,
    ...model,
    order: model.order.length === 2 ? () => model.order as Order : model.order,
  }) as unknown as ListModel;

/** Instants that lie close together, as texts whose order is that of time. */
export const instants = fc.constantFrom(
  '2025-01-01T00:00:00.000000Z',
  '2025-01-01T00:00:00.000001Z',
  '2025-01-01T00:00:00.999999Z',
  '2025-01-01T00:00:01.000000Z',
  '2025-06-30T23:59:59.999999Z',
);

/** An instant as a request has it. */
export const asTimestamp = (text: string): Pick<Timestamp, 'seconds' | 'nanos'> => ({
  seconds: BigInt(Date.parse(`${text.slice(0, 19)}Z`) / 1000),
  nanos: Number(text.slice(20, 26)) * 1000,
});

/** The instant of a request as text; later than every stored one, earlier, or among them. */
export const asText = ({ seconds, nanos }: Pick<Timestamp, 'seconds' | 'nanos'>): string =>
  `${new Date(Number(seconds) * 1000).toISOString().slice(0, 19)}.${String(nanos / 1000).padStart(6, '0')}Z`;

export const bounds = fc
  .oneof(
    { weight: 5, arbitrary: instants },
    { weight: 1, arbitrary: fc.constantFrom('2024-12-31T23:59:59.999999Z', '2026-01-01T00:00:00.000000Z') },
  )
  .map(asTimestamp);

/** Names that differ little; none of them is empty. */
export const names = fc.constantFrom('a', 'A', 'ä', 'a ', 'a%', 'b');
/** As filters have them: some are stored, one is not, and the empty text. */
export const wanted = fc.constantFrom('a', 'A', 'ä', 'a ', 'a%', 'b', '_', '');

/** Pages: none, few, more than there are rows. */
export const limits = fc.constantFrom(0, 1, 2, 7, 1_000_000);
export const offsets = fc.constantFrom(0, 1, 3, 1_000);

/** A request in which each field may be left out: one field alone as often as any set of them. */
export const optional = <T>(fields: { [K in keyof T]: Arbitrary<T[K]> }): Arbitrary<Partial<T>> =>
  fc.oneof(
    fc.record(fields, { requiredKeys: [] }) as Arbitrary<Partial<T>>,
    fc
      .constantFrom(...Object.entries<Arbitrary<unknown>>(fields))
      .chain(([name, value]) => value.map((each) => ({ [name]: each }) as Partial<T>)),
  );

/** Rows of a table that differ in their key. */
export const rowsOf = (
  row: Record<string, Arbitrary<unknown>>,
  key: string | ((row: StoredRow) => unknown) = 'id',
): Arbitrary<StoredRow[]> =>
  fc.uniqueArray(fc.record(row), {
    maxLength: 40,
    size: 'max',
    selector: typeof key === 'string' ? (each) => each[key] : key,
  });

/** One table alone. */
export const only = (table: string, rows: Arbitrary<StoredRow[]>): Arbitrary<World> => fc.record({ [table]: rows });

/** A text filter that an empty text switches off. */
export const matches = (stored: unknown, filter: string | undefined): boolean => !filter || stored === filter;

/** A number or instant that must not lie below the bound; a row without one does. */
export const reaches = (stored: unknown, bound: number | string | undefined): boolean =>
  bound === undefined || (stored !== null && (stored as never) >= (bound as never));

const compare = (left: unknown, right: unknown): number =>
  typeof left === 'string' && typeof right === 'string'
    ? Buffer.compare(Buffer.from(left), Buffer.from(right))
    : Number(left) - Number(right);

/** Smallest first: texts by their bytes. */
export const ascending =
  (column: string): Order =>
  (left, right) =>
    compare(left[column], right[column]);

/** Greatest first. */
export const descending =
  (column: string): Order =>
  (left, right) =>
    compare(right[column], left[column]);

/** By the first order that tells two rows apart. */
export const inOrder =
  (...orders: Order[]): Order =>
  (left, right) => {
    for (const order of orders) {
      const result = order(left, right);
      if (result !== 0) return result;
    }
    return 0;
  };
