import { createServer as createHttp1, type IncomingMessage, type ServerResponse } from 'node:http';
import { constants, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';
import { create, createFileRegistry, type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
} from '@bufbuild/protobuf/wkt';
import {
  type Code as ConnectCode,
  ConnectError,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from '@connectrpc/connect';
import { errorToJson } from '@connectrpc/connect/protocol-connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { Code, RpcError, refuse } from '../contract/errors.ts';
import { CallNotes } from '../database/notes.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { bind } from './bind.ts';
import { type ClientCertificate, certificateOf } from './certificate.ts';
import { aboutMs, CONNECTION_LIMITS, Connections, HEADER_BYTES_READ } from './connections.ts';
import { CallEnd, cancelled, deadlineExceeded } from './deadline.ts';
import { decodeBinary, decodeJson, malformed } from './decode.ts';
import type { Endpoint } from './endpoint.ts';
import { type ReadHeaders, readHeaders, settleHeaders } from './headers.ts';
import type { Listener, ListenerOptions } from './listener.ts';
import { WebGuard, type WebRules } from './origins.ts';
import { type Admitted, type Arrival, INEXACT, type Inbound, type Pipeline, type Reply } from './pipeline.ts';
import { answerRoute, type Routes } from './probes.ts';
import { errorDetails, wellFormed } from './status.ts';
import { securing } from './tls.ts';

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;

/** A request as this file and the library pass it to each other. */
interface Call extends ReadHeaders {
  readonly peer: string;
  readonly system: Arrival['system'];
  /** HTTP/2 asks whether the other side is there; HTTP/1.1 cannot. */
  readonly watched: boolean;
  readonly certificate: ClientCertificate | undefined;
  admitted?: Admitted;
  /** Its body has been read and is the pipeline's. */
  received?: boolean;
}

const callKey = createContextKey<Call | undefined>(undefined, { description: 'the request' });

const asConnectError = (error: RpcError): ConnectError =>
  new ConnectError(wellFormed(error.message), error.code as number as ConnectCode, undefined, [...errorDetails(error)]);

/** The call as the pipeline sees it; `done` writes the trailer and stops listening to its deadline. */
const receive = (pipeline: Pipeline, context: HandlerContext): { inbound: Inbound; end: CallEnd; done: () => void } => {
  const call = context.values.get(callKey)!;
  call.received = true;
  const end = new CallEnd(context.timeoutMs(), pipeline.longest(call.admitted!.endpoint));
  if (context.signal.aborted) end.leave();
  else context.signal.addEventListener('abort', () => end.leave(), { once: true });
  const notes = new CallNotes();
  const done = (): void => {
    if (notes.text !== undefined) context.responseTrailer.set(INEXACT, notes.text);
    end.done();
  };
  return { inbound: { ...call.admitted!, watched: call.watched, signal: end, notes, encoded: false }, end, done };
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
const admit = (pipeline: Pipeline, endpoint: Endpoint, context: HandlerContext): void => {
  const call = context.values.get(callKey)!;
  try {
    call.admitted = pipeline.admit({ ...call, endpoint });
  } catch (error) {
    throw asConnectError(toRpcError(error));
  }
  const onAbort = (): void => {
    const { reason } = context.signal;
    if (call.received || !(reason instanceof ConnectError)) return;
    Object.assign(reason, asConnectError(pipeline.refuse(call.admitted!, unreadable(reason))));
  };
  context.signal.addEventListener('abort', onAbort, { once: true });
};

/**
 * Responses on their way to a reader. An error that comes back from one is of the reader's connection, so it must not
 * reach the pipeline, which would take it for the database's: `yield*` would hand it on.
 */
async function* delivered(
  responses: AsyncGenerator<readonly Reply[]>,
  end: CallEnd,
  done: () => void,
): AsyncGenerator<Message> {
  // The write to a reader that stalls and then leaves never settles: nobody would ask for more, or give this back.
  const giveBack = (): void => void responses.return(undefined).catch(() => {});
  end.addEventListener('abort', giveBack);
  try {
    for await (const batch of responses) for (const response of batch) yield response as Message;
    end.throwIfAborted();
  } catch (error) {
    throw asConnectError(toRpcError(end.aborted ? end.reason : error));
  } finally {
    end.removeEventListener('abort', giveBack);
    done();
  }
}

/**
 * What the library reads every request as: text for JSON, and otherwise nothing but fields that it does not know and
 * keeps as they are. So a request is read in one place, the pipeline, whichever port it came by.
 */
const JSON_FIELD = 'json';
const RawSchema: DescMessage = createFileRegistry(
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

const decode = ({ method }: Endpoint, raw: Message, { requestHeader }: HandlerContext): Message =>
  /json/i.test(requestHeader.get('content-type') ?? '')
    ? decodeJson(method.input, (raw as unknown as Record<string, string>)[JSON_FIELD]!)
    : decodeBinary(method.input, toBinary(RawSchema, raw));

/** Text that is no UTF-8 would be stored with U+FFFD in its place. */
const utf8 = new TextDecoder('utf-8', { fatal: true });

const JSON_OPTIONS = {
  textDecoder: { decode: (bytes: Uint8Array): string => JSON.stringify({ [JSON_FIELD]: utf8.decode(bytes) }) },
} as object;

const unary =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  async (raw: Message, context: HandlerContext): Promise<Message> => {
    const { inbound, done } = receive(pipeline, context);
    try {
      // Nothing is encoded for this listener, whose library does that itself.
      return (await pipeline.unary(inbound, () => decode(endpoint, raw, context))) as Message;
    } catch (error) {
      throw asConnectError(toRpcError(error));
    } finally {
      done();
    }
  };

const stream =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (raw: Message, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end, done } = receive(pipeline, context);
    return delivered(
      pipeline.stream(inbound, () => decode(endpoint, raw, context)),
      end,
      done,
    );
  };

const duplex =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (raws: AsyncIterable<Message>, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end, done } = receive(pipeline, context);
    const requests = (async function* (): AsyncGenerator<Message> {
      try {
        for await (const raw of raws) yield decode(endpoint, raw, context);
      } catch (error) {
        throw error instanceof ConnectError ? unreadable(error) : error;
      }
    })();
    return delivered(pipeline.duplex(inbound, requests), end, done);
  };

const handlers = {
  unary,
  server_streaming: stream,
  client_streaming: undefined,
  bidi_streaming: duplex,
} as const;

/** How HTTP/2 with prior knowledge announces itself. */
const HTTP2_PREFACE = Buffer.from('PRI');

/** Waits until a connection has said enough to tell which protocol it speaks; nothing of that is lost. */
const sniff = (socket: Socket, hand: (speaksHttp2: boolean) => void): void => {
  let said = Buffer.alloc(0);
  // Looked at and put back: HTTP/2 takes what is buffered, HTTP/1.1 what flows, so nothing may flow before.
  const look = (): void => {
    const more: Buffer | null = socket.read();
    if (more) said = Buffer.concat([said, more]);
    const preface = HTTP2_PREFACE.subarray(0, said.length);
    if (said.subarray(0, preface.length).equals(preface) && preface.length < HTTP2_PREFACE.length) {
      socket.once('readable', look);
      return;
    }
    socket.unshift(said);
    hand(preface.length === HTTP2_PREFACE.length && said.subarray(0, preface.length).equals(preface));
  };
  socket.once('readable', look);
};

const encodingOf = ({ headers }: Request): string | undefined =>
  (headers['content-encoding'] ?? headers['connect-content-encoding'] ?? headers['grpc-encoding']) as
    | string
    | undefined;

/** Refuses what is no call. */
const turnAway = (response: Response, problem: RpcError): void => {
  response.statusCode = 403;
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(errorToJson(asConnectError(problem), undefined)));
};

/** Serves the endpoints as Connect, gRPC-Web and JSON over HTTP/1.1, and over HTTP/2 on the same port; and some pages. */
export const listenHttp = async (
  pipeline: Pipeline,
  endpoints: readonly Endpoint[],
  routes: Routes,
  {
    listen,
    socketMode,
    maxMessageBytes,
    budget,
    certificates,
    streams,
    limits = CONNECTION_LIMITS,
    web,
  }: ListenerOptions & { readonly web: Omit<WebRules, 'listen'> },
): Promise<Listener> => {
  const guard = new WebGuard({ ...web, listen });
  const paths = new Set<string | undefined>(endpoints.map(({ path }) => path));
  const calls = new WeakMap<object, Call>();
  /** When connections of HTTP/1.1 are old, by the clock of `performance.now()`. */
  const oldAt = new WeakMap<object, number>();
  let closing = false;
  const adapter = connectNodeAdapter({
    routes: (router) => {
      for (const endpoint of endpoints) {
        const handler = handlers[endpoint.method.methodKind]!(pipeline, endpoint);
        const method = { ...endpoint.method, input: RawSchema } as Endpoint['method'];
        router.rpc(method, handler as never, { requestGate: (context) => admit(pipeline, endpoint, context) });
      }
    },
    readMaxBytes: maxMessageBytes,
    jsonOptions: JSON_OPTIONS,
    contextValues: (request: Request) => createContextValues().set(callKey, calls.get(request)),
  });

  /** Counts the bytes of a body as the library reads them. */
  const counted = (request: Request, response: Response): void => {
    const reservation = budget.open(encodingOf(request));
    response.once('close', () => reservation.release());
    const original = request[Symbol.asyncIterator].bind(request) as () => AsyncIterableIterator<Buffer>;
    Object.defineProperty(request, Symbol.asyncIterator, {
      value: async function* () {
        for await (const chunk of { [Symbol.asyncIterator]: original }) {
          try {
            reservation.add(chunk.length);
          } catch (error) {
            throw new ConnectError('', undefined, undefined, undefined, error);
          }
          yield chunk;
        }
      },
    });
  };

  const serve = (request: Request, response: Response): void => {
    // HTTP/1.1 ends a connection with an answer. A client that was not told would send the next request into its end.
    if (
      !('stream' in request) &&
      (closing || performance.now() > (oldAt.get(request.socket) ?? Number.POSITIVE_INFINITY))
    ) {
      response.setHeader('connection', 'close');
    }
    if (answerRoute(routes, request, response as ServerResponse)) return;
    const { socket } = request;
    const problem = guard.problemOf(request);
    if (guard.welcome(request, response, problem)) return;
    // A call is refused in the form of its own protocol, with its line in the log.
    if (problem && (request.method === 'OPTIONS' || !paths.has(request.url?.split('?')[0]))) {
      turnAway(response, problem);
      return;
    }
    const read = readHeaders(request.rawHeaders);
    settleHeaders(request.headers, read);
    calls.set(request, {
      ...read,
      peer: socket?.remoteAddress ? `${socket.remoteAddress}:${socket.remotePort}` : 'unknown',
      system: request.headers['content-type']?.startsWith('application/grpc') ? 'grpc' : 'connectrpc',
      watched: 'stream' in request,
      problem: problem ?? read.problem,
      certificate: certificateOf(socket),
    });
    counted(request, response);
    if ('stream' in request) {
      const { stream } = request;
      const late = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), limits.requestMs);
      stream.once('end', () => clearTimeout(late)).once('close', () => clearTimeout(late));
      // What is left of a body that has been answered would keep the stream open; nobody else takes it any more.
      stream.once('finish', () => stream.removeAllListeners('data').resume());
    }
    try {
      adapter(request as never, response as never);
    } catch {
      // The library takes the address of a request for one that can be read.
      response.statusCode = 400;
      response.end();
    }
  };

  const http1 = createHttp1(
    {
      headersTimeout: limits.requestMs,
      requestTimeout: limits.requestMs,
      keepAliveTimeout: limits.idleMs,
      maxHeaderSize: HEADER_BYTES_READ,
      connectionsCheckingInterval: limits.checkMs,
    },
    serve,
  );
  // Fields beyond a number would be left out in silence.
  http1.maxHeadersCount = 0;
  // It looks for late requests from when it listens, and it never does: it is handed its connections.
  http1.emit('listening');
  const connections = new Connections(limits, streams);
  connections.http2.on('request', serve);
  const secure = securing(certificates, listen, ['h2', 'http/1.1'], limits);
  const bound = await bind({ listen, socketMode, keepAliveMs: limits.pingMs }, (socket) => {
    connections.add(socket);
    secure(socket, (channel) =>
      sniff(channel, (speaksHttp2) => {
        connections.handOver(socket);
        if (!speaksHttp2) oldAt.set(channel, performance.now() + aboutMs(limits.ageMs));
        (speaksHttp2 ? connections.http2 : http1).emit('connection', channel);
      }),
    );
  });
  return {
    address: bound.address,
    get open() {
      return connections.open;
    },
    close: async (timeoutMs) => {
      closing = true;
      http1.closeIdleConnections();
      // Idle keep-alive connections end as soon as they have nothing under way.
      const sweep = setInterval(() => http1.closeIdleConnections(), 50);
      await connections.close(timeoutMs, bound.close());
      clearInterval(sweep);
      http1.close();
    },
  };
};
