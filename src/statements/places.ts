import { type DescField, type DescMethod, type Message, toBinary } from '@bufbuild/protobuf';
import { type FieldViolation, type RpcError, refuse } from '../contract/errors.ts';
import type { Collected, Session, StreamingSession } from '../database/session.ts';
import type { Cell, Query, Row } from '../database/statement.ts';
import type { Sink } from '../database/step.ts';
import { cellsOf } from '../database/text-rows.ts';
import { textOf } from './cell-text.ts';
import { textField } from './encoder.ts';
import type { PageTokens } from './page-tokens.ts';

/** Where in a list rows begin. */
export interface Place {
  /** Cells that the order of the list is by, of the row before; undefined: at the first row. */
  readonly after: Row | undefined;
  /** Rows to leave out from there. */
  readonly skip: number;
}

/** What a request asks of a list. */
export interface ListQuery<T> extends Query<T> {
  readonly place: Place;
  /** Most rows; undefined: all. */
  readonly limit: number | undefined;
  /** The order, in SQL. */
  readonly order: string;
  /** Where in a row the cells are that it is by. */
  readonly keyAt: readonly number[];
}

/** A call's way through a list: where its token leads to, and the token that leads on. */
export interface Walk {
  /**
   * Where a list of that order begins.
   *
   * @throws INVALID_ARGUMENT `PAGE_TOKEN_INVALID`.
   */
  at(order: string): Place;
  /** The token of a place, as {@link textOfPlace} has it, in a list of that order. */
  token(order: string, place: string): string | undefined;
}

const FIRST: Place = { after: undefined, skip: 0 };

/** Of what takes and gives no token. */
export const WHOLE: Walk = { at: () => FIRST, token: () => undefined };

/** What a token may hold, bytes. */
const LONGEST = 1_024;

const textOfPlace = ({ after, skip }: Place): string => JSON.stringify(after ? [skip, ...after] : [skip]);

/** The place behind a row, if a token can hold it. */
const placeAfter = (row: Row): string | undefined => {
  const text = textOfPlace({ after: row, skip: 0 });
  return Buffer.byteLength(text) <= LONGEST ? text : undefined;
};

const placeOf = (text: string): Place => {
  const [skip, ...after] = JSON.parse(text) as [number, ...Cell[]];
  return { skip, after: after.length === 0 ? undefined : after };
};

/** Fields of a request that say where in the list its answer begins and ends, and no more. */
const PAGING: ReadonlySet<string> = new Set(['page_token', 'resume_token', 'limit', 'offset']);

/** The tokens that an RPC takes and gives, if it does. */
export class Paging {
  readonly #method: DescMethod;
  readonly #tokens: PageTokens;
  readonly #given: DescField | undefined;
  readonly #offset: DescField | undefined;
  readonly #unset: Readonly<Record<string, undefined>>;
  /** The field of a response with the token that leads on; undefined where there is none. */
  readonly #next: DescField | undefined;

  constructor(method: DescMethod, tokens: PageTokens) {
    const { input, output } = method;
    this.#method = method;
    this.#tokens = tokens;
    this.#given = input.fields.find(({ name }) => name === 'page_token' || name === 'resume_token');
    this.#offset = input.fields.find(({ name }) => name === 'offset');
    const fields = input.fields.filter(({ name }) => PAGING.has(name));
    this.#unset = Object.fromEntries(fields.map(({ localName }) => [localName, undefined]));
    this.#next = output.fields.find(({ name }) => name === 'next_page_token' || name === 'resume_token');
  }

  /** What is wrong with a request that says twice where it begins. */
  check(request: Message): FieldViolation[] {
    if (!this.#offset || !this.#given || !tokenIn(request, this.#given)) return [];
    const { [this.#offset.localName]: offset } = request as Message & Record<string, unknown>;
    return offset ? [{ field: 'offset', description: `must be 0 beside \`${this.#given.name}\`` }] : [];
  }

  /** The way of a call. */
  walk(request: Message): Walk {
    const given = this.#given;
    if (!given) return WHOLE;
    let bound: Buffer | undefined;
    const boundBy = (order: string): Buffer => {
      bound ??= this.#boundBy(request, order);
      return bound;
    };
    return {
      at: (order) => {
        const token = tokenIn(request, given);
        if (!token) return FIRST;
        const text = this.#tokens.read(token, boundBy(order));
        if (text === undefined) throw refusalOf(given);
        return placeOf(text);
      },
      token: (order, place) => this.#tokens.make(place, boundBy(order)),
    };
  }

  /** What a token is for: a later release may order the same list otherwise. */
  #boundBy(request: Message, order: string): Buffer {
    const { parent, name, input } = this.#method;
    const fields = toBinary(input, { ...request, ...this.#unset }, { writeUnknownFields: false });
    return Buffer.concat([Buffer.from(`${parent.typeName}/${name}\0${order}\0`), fields]);
  }

  /** Puts the token that leads on into a response. */
  put(response: Message, token: string): void {
    if (this.#next) Object.assign(response, { [this.#next.localName]: token });
  }

  /** The token that leads on, as the bytes of a response have it. */
  bytes(token: string): Uint8Array {
    return this.#next ? textField(this.#next, token) : NO_BYTES;
  }
}

const NO_BYTES = new Uint8Array();

const tokenIn = (request: Message, { localName }: DescField): string | undefined =>
  (request as Message & Record<string, string | undefined>)[localName];

const refusalOf = ({ name: field }: DescField): RpcError => {
  const description = 'must be one that this list has given for a request with the same other fields';
  return refuse('PAGE_TOKEN_INVALID', `\`${field}\` ${description}`, { fields: [{ field, description }] });
};

const formats = new WeakMap<Buffer, readonly number[]>();

/** What Bind has asked for; encoders keep what they ask for. */
const formatsOf = (codes: Buffer): readonly number[] => {
  const known = formats.get(codes);
  if (known) return known;
  const made = Array.from({ length: codes.readUInt16BE(0) }, (_code, index) => codes.readUInt16BE(2 + 2 * index));
  formats.set(codes, made);
  return made;
};

/** Hands rows on, and keeps of one of them the cells that the order is by. */
class KeyCells<S extends Sink> implements Sink {
  readonly sink: S;
  readonly #keyAt: readonly number[];
  readonly #last: number;
  #rows = 0;
  #types: readonly number[] = [];
  #formats: readonly number[] | undefined;
  /** Of that row; undefined as long as it has not come. */
  cells: Row | undefined;

  /** @param last the row, counted from 1. */
  constructor(sink: S, keyAt: readonly number[], last: number) {
    this.sink = sink;
    this.#keyAt = keyAt;
    this.#last = last;
  }

  wanted(types: readonly number[]): Buffer {
    return this.sink.wanted(types);
  }

  expect(types: readonly number[], formats?: readonly number[]): void {
    this.#types = types;
    this.#formats = formats;
    this.sink.expect(types, formats);
  }

  row(bytes: Buffer, at: number): void {
    this.#rows += 1;
    if (this.#rows === this.#last) this.#keep(bytes, at);
    this.sink.row(bytes, at);
  }

  #keep(bytes: Buffer, start: number): void {
    const types = this.#types;
    const formats = this.#formats ?? formatsOf(this.sink.wanted(types));
    const keys = new Set(this.#keyAt);
    const cells = cellsOf(bytes, start, (index, at, length) =>
      keys.has(index) ? textOf(types[index]!, formats[index] === 1, bytes, at, length) : '',
    );
    this.cells = this.#keyAt.map((at) => cells[at]!);
  }
}

/** What took rows, and the token that goes on after the last of them. */
interface Page<S> {
  readonly sink: S;
  readonly token?: string | undefined;
}

const isList = <T>(query: Query<T>): query is ListQuery<T> => 'place' in query;

/** Runs a statement; if it is a list's and brought as many rows as were asked for, with the token that goes on. */
export const collectPage = <S extends Sink>(
  db: Session,
  query: Query<unknown>,
  walk: Walk,
  taking: () => S,
): Promise<Page<S> & Collected<S>> =>
  walk === WHOLE || !isList(query) || !query.limit
    ? db.collect(query.statement, query.params, taking)
    : collectLimited(db, query, query.limit, walk, taking);

const collectLimited = async <S extends Sink>(
  db: Session,
  { statement, params, order, keyAt, place }: ListQuery<unknown>,
  limit: number,
  walk: Walk,
  taking: () => S,
): Promise<Page<S> & Collected<S>> => {
  const { sink: kept, count } = await db.collect(statement, params, () => new KeyCells(taking(), keyAt, limit));
  const { sink, cells } = kept;
  if (!cells) return { sink, count };
  const next = placeAfter(cells) ?? textOfPlace({ ...place, skip: place.skip + limit });
  return { sink, count, token: walk.token(order, next) };
};

/** Streams the rows of a list in batches, each but the last with the token that goes on after it. */
export async function* batchPages<S extends Sink>(
  db: StreamingSession,
  query: Query<unknown>,
  walk: Walk,
  taking: () => S,
): AsyncGenerator<Page<S>> {
  const { statement, params } = query;
  if (!isList(query)) throw new Error(`statement ${statement.name} is streamed, and is no list`);
  const { order, keyAt } = query;
  for await (const { sink, cells } of db.batches(statement, params, (left) => new KeyCells(taking(), keyAt, left))) {
    const next = cells && placeAfter(cells);
    yield { sink, token: next && walk.token(order, next) };
  }
}
