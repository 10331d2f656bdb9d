import { create, type DescMethod, type Message, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import type { ResponseSize } from '../contract/response-size.ts';
import { expected, type Session, type StreamingSession } from '../database/session.ts';
import type { Query } from '../database/statement.ts';
import type { TextRows } from '../database/text-rows.ts';
import { bytesOf, ElementRows } from './element-rows.ts';
import { EncodedRows } from './encoded-rows.ts';
import { DELIMITED, tagOf } from './encoder.ts';
import { batchPages, collectPage, type Paging, type Walk } from './places.ts';

type Request<M extends DescMethod> = MessageShape<M['input']>;
type Response<M extends DescMethod> = MessageShape<M['output']>;
type Init<M extends DescMethod> = MessageInitShape<M['output']>;
type FieldOf<M extends DescMethod> = Exclude<keyof Response<M>, '$typeName' | '$unknown'> & string;
type Present<M extends DescMethod, K extends FieldOf<M>> = NonNullable<Response<M>[K]>;
type ElementOf<T> = T extends readonly (infer E)[] ? E : never;

/** What a request asks of the database; undefined: nothing, as if it had brought no row. A list begins where the walk leads. */
type Ask<M extends DescMethod, T> = (request: Request<M>, walk: Walk) => Query<T> | undefined;

/** An RPC that is one statement: which, and how its rows are the response. How it is run is for the server to choose. */
export interface Answer<M extends DescMethod = DescMethod> {
  readonly ask: Ask<M, unknown>;
  /** Where rows of messages go: each a message of that field, or the first row the response itself. */
  readonly into: { readonly field: string; readonly all: boolean } | 'response' | undefined;
  /** True where no row is an error of this program. */
  readonly always?: boolean;
  /** The response of rows and of their number, or of those that were changed. */
  readonly reply: (rows: readonly unknown[], count: bigint, request: Request<M>) => Init<M>;
}

const only = <M extends DescMethod>(field: FieldOf<M>, value: unknown): Init<M> => ({ [field]: value }) as Init<M>;

/** The first row, in a field that is left out when there is none. */
export const row = <M extends DescMethod, K extends FieldOf<M>>(
  field: K,
  ask: Ask<M, Present<M, K> | undefined>,
): Answer<M> => ({
  ask,
  into: { field, all: false },
  reply: ([first]) => only<M>(field, first),
});

/** A response of a stream for each row, in that field. */
export const each = row;

/** The row that always comes, in a field; `rest` fills others. */
export const one = <M extends DescMethod, K extends FieldOf<M>>(
  field: K,
  ask: Ask<M, Present<M, K> | undefined>,
  rest?: Init<M>,
): Answer<M> => ({
  ask,
  // What fills other fields besides is no row.
  into: rest ? undefined : { field, all: false },
  always: true,
  reply: ([first]) => ({ ...only<M>(field, first), ...rest }) as Init<M>,
});

/** All rows, in a repeated field. */
export const rows = <M extends DescMethod, K extends FieldOf<M>>(
  field: K,
  ask: Ask<M, ElementOf<Response<M>[K]>>,
): Answer<M> => ({
  ask,
  into: { field, all: true },
  reply: (found) => only<M>(field, found),
});

/** The row that always comes, as the response. */
export const response = <M extends DescMethod>(ask: Ask<M, Response<M>>): Answer<M> => ({
  ask,
  into: 'response',
  always: true,
  reply: ([first]) => first as Init<M>,
});

/** How many rows a write has changed, in `rows_affected`. */
export const affected = <M extends DescMethod>(ask: Ask<M, unknown>): Answer<M> => ({
  ask,
  into: undefined,
  reply: (_rows, count) => ({ rowsAffected: count }) as unknown as Init<M>,
});

/** Anything else that rows and their number are made into. */
export const reply = <M extends DescMethod, T>(
  ask: Ask<M, T>,
  made: (rows: readonly T[], count: bigint, request: Request<M>) => Init<M>,
): Answer<M> => ({ ask, into: undefined, reply: made as Answer<M>['reply'] });

/** A response, and how many rows came or were changed for it. */
export interface Answered<R> {
  readonly response: R;
  readonly count: bigint;
}

/** The ways in which a server can run what an RPC declares. One response is refused as soon as it turns out too large. */
export interface Answering {
  message(db: Session, request: Message, size: ResponseSize): Promise<Answered<Message>>;
  /** The response as bytes; made of the rows directly where they are messages. */
  bytes(db: Session, request: Message, size: ResponseSize): Promise<Answered<Message | Buffer>>;
  /** A response a row, in batches as they are read. */
  messages(db: StreamingSession, request: Message): AsyncIterable<readonly Message[]>;
  /** As {@link Answering.messages}, as bytes. */
  encoded(db: StreamingSession, request: Message): AsyncIterable<readonly (Message | Buffer)[]>;
}

/** Makes the ways to run an answer of a method. */
export const answering = (
  { output }: DescMethod,
  { ask, into, always, reply: made }: Answer,
  paging: Paging,
): Answering => {
  const field = typeof into === 'object' ? output.fields.find(({ localName }) => localName === into.field) : undefined;
  const tag = field && tagOf(field, DELIMITED);
  const elementBytes = field && bytesOf(field);
  /** By way of what the text of the rows becomes. */
  const textual = async (
    db: Session,
    request: Message,
    walk: Walk,
    query: Query<unknown> | undefined,
    size: ResponseSize,
  ): Promise<Answered<Message>> => {
    if (!query) return { response: create(output, made([], 0n, request)), count: 0n };
    const { statement } = query;
    const taking = (): TextRows<unknown> =>
      elementBytes ? new ElementRows(elementBytes, (row) => statement.map(row, db.notes), size) : db.texts(statement);
    const { sink, count, token } = await collectPage(db, query, walk, taking);
    if (always) expected(statement, sink.rows);
    const response = create(output, made(sink.rows, count, request));
    if (token !== undefined) paging.put(response, token);
    return { response, count };
  };
  const messages: Answering['messages'] = async function* (db, request) {
    const walk = paging.walk(request);
    const query = ask(request, walk)!;
    for await (const { sink, token } of batchPages(db, query, walk, () => db.texts(query.statement))) {
      const batch = sink.rows.map((value) => create(output, { [field!.localName]: value } as Init<DescMethod>));
      const last = batch.at(-1);
      if (last && token !== undefined) paging.put(last, token);
      yield batch;
    }
  };
  return {
    message: async (db, request, size) => {
      const walk = paging.walk(request);
      return textual(db, request, walk, ask(request, walk), size);
    },
    messages,
    bytes: async (db, request, size) => {
      const walk = paging.walk(request);
      const query = ask(request, walk);
      const encoder = query?.statement.encoder;
      if (!query || !encoder || !into) return textual(db, request, walk, query, size);
      const taking = (): EncodedRows => new EncodedRows(encoder, tag, db.notes, size);
      const { sink, count, token } = await collectPage(db, query, walk, taking);
      if (always && sink.count === 0) expected(query.statement, []);
      if (token !== undefined) sink.add(paging.bytes(token));
      return { response: into !== 'response' && into.all ? sink.bytes() : sink.first(), count };
    },
    encoded: async function* (db, request) {
      const walk = paging.walk(request);
      const query = ask(request, walk)!;
      const { encoder } = query.statement;
      if (!encoder) {
        yield* messages(db, request);
        return;
      }
      const taking = (): EncodedRows => new EncodedRows(encoder, tag, db.notes);
      for await (const { sink, token } of batchPages(db, query, walk, taking)) {
        if (token !== undefined) sink.add(paging.bytes(token));
        yield sink.each();
      }
    },
  };
};
