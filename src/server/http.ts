import { createServer as createHttp1, type IncomingMessage } from 'node:http';
import { createServer as createHttp2, type Http2ServerRequest, type ServerHttp2Session } from 'node:http2';
import { type AddressInfo, createServer as createTcp, type Socket } from 'node:net';
import type { Message } from '@bufbuild/protobuf';
import {
  type Code as ConnectCode,
  ConnectError,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { Code, RpcError, toRpcError } from '../database/errors.ts';
import { CallNotes } from '../database/notes.ts';
import { CallEnd, cancelled, deadlineExceeded } from './deadline.ts';
import type { Endpoint } from './endpoint.ts';
import type { Listener } from './grpc.ts';
import { INEXACT, type Inbound, type Pipeline } from './pipeline.ts';
import { errorDetails } from './status.ts';

const peerKey = createContextKey('', { description: 'address of the caller' });

/** Options of the HTTP listener. */
export interface HttpOptions {
  /** `host:port`. */
  readonly listen: string;
  readonly maxMessageBytes: number;
}

const asConnectError = (error: RpcError): ConnectError =>
  new ConnectError(error.message, error.code as number as ConnectCode, undefined, [...errorDetails(error)]);

/** Signals of the calls that have been read and are the pipeline's; the library copies a context, not its signal. */
const received = new WeakSet<AbortSignal>();

const inboundOf = (endpoint: Endpoint, context: HandlerContext, signal: AbortSignal): Inbound => ({
  endpoint,
  peer: context.values.get(peerKey),
  header: (name) => context.requestHeader.get(name) ?? undefined,
  signal,
  notes: new CallNotes(),
});

/** The call as the pipeline sees it; `done` writes the trailer and stops listening to its deadline. */
const receive = (endpoint: Endpoint, context: HandlerContext): { inbound: Inbound; end: CallEnd; done: () => void } => {
  received.add(context.signal);
  const end = new CallEnd(context.timeoutMs());
  if (context.signal.aborted) end.leave();
  else context.signal.addEventListener('abort', () => end.leave(), { once: true });
  const inbound = inboundOf(endpoint, context, end.signal);
  const done = (): void => {
    if (inbound.notes.text !== undefined) context.responseTrailer.set(INEXACT, inbound.notes.text);
    end.done();
  };
  return { inbound, end, done };
};

/** What a request that the library cannot read is refused with. */
const unreadable = ({ code, rawMessage }: ConnectError): RpcError => {
  switch (code as number) {
    case Code.CANCELLED:
    case Code.ABORTED:
      return cancelled();
    case Code.DEADLINE_EXCEEDED:
      return deadlineExceeded();
    case Code.RESOURCE_EXHAUSTED:
      return new RpcError(Code.RESOURCE_EXHAUSTED, 'REQUEST_TOO_LARGE', rawMessage);
    case Code.UNIMPLEMENTED:
      return new RpcError(Code.UNIMPLEMENTED, 'UNSUPPORTED_REQUEST', rawMessage);
    default:
      return new RpcError(Code.INVALID_ARGUMENT, 'MALFORMED_REQUEST', rawMessage);
  }
};

/**
 * Makes the pipeline refuse and note what the library cannot read. The library aborts the context of a call with the
 * very error that it is about to send, in every protocol: there it becomes ours.
 */
const watch = (pipeline: Pipeline, endpoint: Endpoint, context: HandlerContext): void => {
  const onAbort = (): void => {
    const { reason } = context.signal;
    if (received.has(context.signal) || !(reason instanceof ConnectError)) return;
    const inbound = inboundOf(endpoint, context, context.signal);
    Object.assign(reason, asConnectError(pipeline.refuse(inbound, unreadable(reason))));
  };
  context.signal.addEventListener('abort', onAbort, { once: true });
};

/**
 * Responses on their way to a reader. An error that comes back from one is of the reader's connection, so it must not
 * reach the pipeline, which would take it for the database's: `yield*` would hand it on.
 */
async function* delivered(responses: AsyncIterable<Message>, end: CallEnd, done: () => void): AsyncGenerator<Message> {
  try {
    for await (const response of responses) yield response;
  } catch (error) {
    throw asConnectError(toRpcError(end.signal.aborted ? end.signal.reason : error));
  } finally {
    done();
  }
}

const unary =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  async (request: Message, context: HandlerContext): Promise<Message> => {
    const { inbound, done } = receive(endpoint, context);
    try {
      return await pipeline.unary(inbound, () => request);
    } catch (error) {
      throw asConnectError(toRpcError(error));
    } finally {
      done();
    }
  };

const stream =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (request: Message, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end, done } = receive(endpoint, context);
    return delivered(
      pipeline.stream(inbound, () => request),
      end,
      done,
    );
  };

const duplex =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (requests: AsyncIterable<Message>, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end, done } = receive(endpoint, context);
    return delivered(pipeline.duplex(inbound, requests), end, done);
  };

const handlers = {
  unary,
  server_streaming: stream,
  client_streaming: undefined,
  bidi_streaming: duplex,
} as const;

/**
 * What JSON must be. An unknown field or enum name, dropped in silence, would become the default; text that is no UTF-8
 * would be stored with U+FFFD in its place. Both are refused.
 */
const JSON_OPTIONS = { ignoreUnknownFields: false, textDecoder: new TextDecoder('utf-8', { fatal: true }) };

/** How HTTP/2 with prior knowledge announces itself. */
const HTTP2_PREFACE = Buffer.from('PRI');

/** Serves the endpoints as Connect, gRPC-Web and JSON over HTTP/1.1, and over HTTP/2 without TLS on the same port. */
export const listenHttp = async (
  pipeline: Pipeline,
  endpoints: readonly Endpoint[],
  { listen, maxMessageBytes }: HttpOptions,
): Promise<Listener> => {
  const adapter = connectNodeAdapter({
    routes: (router) => {
      for (const endpoint of endpoints) {
        const handler = handlers[endpoint.method.methodKind]!(pipeline, endpoint);
        router.rpc(endpoint.method, handler as never, { requestGate: (context) => watch(pipeline, endpoint, context) });
      }
    },
    readMaxBytes: maxMessageBytes,
    jsonOptions: JSON_OPTIONS,
    contextValues: (request: IncomingMessage | Http2ServerRequest) =>
      createContextValues().set(peerKey, `${request.socket?.remoteAddress}:${request.socket?.remotePort}`),
  });
  const http1 = createHttp1(adapter);
  const http2 = createHttp2(adapter);
  const sockets = new Set<Socket>();
  const sessions = new Set<ServerHttp2Session>();
  http2.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  const tcp = createTcp((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    // Looked at and put back: HTTP/2 takes what is buffered, HTTP/1.1 what flows, so nothing may flow before.
    socket.once('readable', () => {
      const first: Buffer | null = socket.read();
      if (first === null) return;
      socket.unshift(first);
      const server = first.subarray(0, 3).equals(HTTP2_PREFACE.subarray(0, first.length)) ? http2 : http1;
      server.emit('connection', socket);
    });
  });
  const separator = listen.lastIndexOf(':');
  const host = listen.slice(0, separator).replace(/^\[|\]$/g, '');
  await new Promise<void>((resolve, reject) => {
    tcp.once('error', reject);
    tcp.listen(Number(listen.slice(separator + 1)), host, resolve);
  });
  return {
    address: `${listen.slice(0, separator)}:${(tcp.address() as AddressInfo).port}`,
    close: async (timeoutMs) => {
      const closed = new Promise<void>((resolve) => tcp.close(() => resolve()));
      for (const session of sessions) session.close();
      http1.closeIdleConnections();
      const force = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, timeoutMs);
      // Idle keep-alive connections end as soon as they have nothing under way.
      const sweep = setInterval(() => http1.closeIdleConnections(), 50);
      await closed;
      clearTimeout(force);
      clearInterval(sweep);
    },
  };
};
