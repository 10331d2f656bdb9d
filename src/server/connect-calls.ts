import { create, createFileRegistry, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import { type Code as ConnectCode, ConnectError, createContextKey, type HandlerContext } from '@connectrpc/connect';
import { Code, RpcError, refuse } from '../contract/errors.ts';
import { CallNotes } from '../database/notes.ts';
import { toRpcError } from '../database/sqlstate.ts';
import type { ClientCertificate } from './certificate.ts';
import { CallEnd, cancelled, deadlineExceeded } from './deadline.ts';
import { decodeBinary, decodeJson, malformed } from './decode.ts';
import type { Endpoint } from './endpoint.ts';
import { type ReadHeaders, takesTexts } from './headers.ts';
import type { Admitted, Arrival, Inbound } from './inbound.ts';
import type { Pipeline } from './pipeline.ts';
import { type Reply, trailersOf } from './reply.ts';
import { errorDetails, wellFormed } from './status.ts';

/** A request as this file and the library pass it to each other. */
export interface Call extends ReadHeaders {
  readonly peer: string;
  readonly system: Arrival['system'];
  /** HTTP/2 asks whether the other side is there; HTTP/1.1 cannot. */
  readonly watched: boolean;
  /** Whether its request is JSON; else it is protobuf. */
  readonly json: boolean;
  readonly certificate: ClientCertificate | undefined;
  admitted?: Admitted;
  /** Its body has been read and is the pipeline's. */
  received?: boolean;
}

export const callKey = createContextKey<Call | undefined>(undefined, { description: 'the request' });

/** The request of a context, which each has that a handler is given. */
const callOf = (context: HandlerContext): Call => context.values.get(callKey)!;

export const asConnectError = (error: RpcError): ConnectError =>
  new ConnectError(wellFormed(error.message), error.code as number as ConnectCode, undefined, [...errorDetails(error)]);

/** The call as the pipeline sees it, and what its listener does with it. */
interface Received {
  readonly inbound: Inbound;
  readonly end: CallEnd;
  /** Writes the headers of the answer. */
  readonly begin: () => void;
  /** Writes its trailers, and stops listening to the call's deadline. */
  readonly done: () => void;
}

const receive = (pipeline: Pipeline, context: HandlerContext): Received => {
  const call = callOf(context);
  call.received = true;
  const admitted = call.admitted!;
  const end = new CallEnd(context.timeoutMs(), pipeline.longest(admitted.endpoint));
  if (context.signal.aborted) end.leave();
  else context.signal.addEventListener('abort', () => end.leave(), { once: true });
  const inbound = {
    ...admitted,
    watched: call.watched,
    signal: end,
    notes: new CallNotes(takesTexts(admitted)),
    size: pipeline.sizeOf(admitted.endpoint),
    encoded: false,
  };
  const begin = (): void => {
    for (const [name, value] of inbound.notes.headers) context.responseHeader.append(name, value);
  };
  const done = (): void => {
    for (const [name, value] of trailersOf(inbound)) context.responseTrailer.append(name, value);
    end.done();
  };
  return { inbound, end, begin, done };
};

/** What a request that the library cannot read is refused with. */
const unreadable = ({ code, rawMessage, cause }: ConnectError): RpcError => {
  if (cause instanceof RpcError) return cause;
  switch (code as number) {
    case Code.CANCELLED:
    case Code.ABORTED:
      return cancelled();
    case Code.DEADLINE_EXCEEDED:
      return deadlineExceeded();
    case Code.RESOURCE_EXHAUSTED:
      return refuse('REQUEST_TOO_LARGE', rawMessage);
    case Code.UNIMPLEMENTED:
      return refuse('UNSUPPORTED_REQUEST', rawMessage);
    default:
      return malformed(rawMessage);
  }
};

/**
 * Lets a call in before its body is read, and makes the pipeline note what the library cannot read of it. The library
 * aborts the context of a call with the very error that it is about to send, in every protocol: there it becomes ours.
 */
export const admit = (pipeline: Pipeline, endpoint: Endpoint, context: HandlerContext): void => {
  const call = callOf(context);
  let admitted: Admitted;
  try {
    admitted = pipeline.admit({ ...call, endpoint });
  } catch (error) {
    throw asConnectError(toRpcError(error));
  }
  call.admitted = admitted;
  if ((context.timeoutMs() ?? Number.POSITIVE_INFINITY) <= 0) {
    throw asConnectError(pipeline.refuse(admitted, deadlineExceeded()));
  }
  const onAbort = (): void => {
    const { reason } = context.signal;
    if (call.received || !(reason instanceof ConnectError)) return;
    Object.assign(reason, asConnectError(pipeline.refuse(admitted, unreadable(reason))));
  };
  context.signal.addEventListener('abort', onAbort, { once: true });
};

/**
 * Responses on their way to a reader. An error that comes back from one is of the reader's connection, so it must not
 * reach the pipeline, which would take it for the database's: `yield*` would hand it on.
 */
async function* delivered(
  responses: AsyncGenerator<readonly Reply[]>,
  { end, begin, done }: Received,
): AsyncGenerator<Message> {
  let begun = false;
  // The write to a reader that stalls and then leaves never settles: nobody would ask for more, or give this back.
  const giveBack = (): void => void responses.return(undefined).catch(() => {});
  end.addEventListener('abort', giveBack);
  try {
    for await (const batch of responses) {
      if (!begun) begin();
      begun = true;
      for (const response of batch) yield response as Message;
    }
    end.throwIfAborted();
  } catch (error) {
    throw asConnectError(toRpcError(end.aborted ? end.reason : error));
  } finally {
    end.removeEventListener('abort', giveBack);
    if (!begun) begin();
    done();
  }
}

/**
 * What the library reads every request as: text for JSON, and otherwise nothing but fields that it does not know and
 * keeps as they are. So a request is read in one place, the pipeline, whichever port it came by.
 */
const JSON_FIELD = 'json';
export const RawSchema: DescMessage = createFileRegistry(
  create(FileDescriptorProtoSchema, {
    name: 'raw.proto',
    syntax: 'proto3',
    package: 'sidecar',
    messageType: [
      {
        name: 'Raw',
        field: [
          {
            name: JSON_FIELD,
            // The last number there is: no request has it.
            number: 536_870_911,
            label: FieldDescriptorProto_Label.OPTIONAL,
            type: FieldDescriptorProto_Type.STRING,
          },
        ],
      },
    ],
  }),
  () => undefined,
).getMessage('sidecar.Raw')!;

const decode = ({ method }: Endpoint, raw: Message, context: HandlerContext): Message =>
  callOf(context).json
    ? decodeJson(method.input, (raw as unknown as Record<string, string>)[JSON_FIELD]!)
    : decodeBinary(method.input, toBinary(RawSchema, raw));

/** Text that is no UTF-8 would be stored with U+FFFD in its place. */
const utf8 = new TextDecoder('utf-8', { fatal: true });

export const JSON_OPTIONS = {
  textDecoder: { decode: (bytes: Uint8Array): string => JSON.stringify({ [JSON_FIELD]: utf8.decode(bytes) }) },
} as object;

const unary =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  async (raw: Message, context: HandlerContext): Promise<Message> => {
    const { inbound, begin, done } = receive(pipeline, context);
    try {
      // Nothing is encoded for this listener, whose library does that itself.
      return (await pipeline.unary(inbound, () => decode(endpoint, raw, context))) as Message;
    } catch (error) {
      throw asConnectError(toRpcError(error));
    } finally {
      begin();
      done();
    }
  };

export const stream =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (raw: Message, context: HandlerContext): AsyncIterable<Message> => {
    const received = receive(pipeline, context);
    return delivered(
      pipeline.stream(received.inbound, () => decode(endpoint, raw, context)),
      received,
    );
  };

const duplex =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (raws: AsyncIterable<Message>, context: HandlerContext): AsyncIterable<Message> => {
    const received = receive(pipeline, context);
    const requests = (async function* (): AsyncGenerator<Message> {
      try {
        for await (const raw of raws) yield decode(endpoint, raw, context);
      } catch (error) {
        throw error instanceof ConnectError ? unreadable(error) : error;
      }
    })();
    return delivered(pipeline.duplex(received.inbound, requests), received);
  };

export const handlers = {
  unary,
  server_streaming: stream,
  client_streaming: undefined,
  bidi_streaming: duplex,
} as const;
