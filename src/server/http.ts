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
import { Code, type RpcError, toRpcError } from '../database/errors.ts';
import { CallEnd } from './deadline.ts';
import type { Endpoint } from './endpoint.ts';
import type { Listener } from './grpc.ts';
import type { Inbound, Pipeline } from './pipeline.ts';
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

/** The call as the pipeline sees it; its end follows the context's, with our own errors for reasons. */
const receive = (endpoint: Endpoint, context: HandlerContext): { inbound: Inbound; end: CallEnd } => {
  const end = new CallEnd();
  const onAbort = (): void => {
    const { reason } = context.signal;
    const late = reason instanceof ConnectError && (reason.code as number) === Code.DEADLINE_EXCEEDED;
    if (late) end.expire();
    else end.leave();
  };
  if (context.signal.aborted) onAbort();
  else context.signal.addEventListener('abort', onAbort, { once: true });
  const inbound: Inbound = {
    endpoint,
    peer: context.values.get(peerKey),
    header: (name) => context.requestHeader.get(name) ?? undefined,
    signal: end.signal,
  };
  return { inbound, end };
};

/** Responses on their way to a reader. What comes back of one, whatever it is, says that the reader has left. */
async function* delivered(responses: AsyncIterable<Message>, end: CallEnd): AsyncGenerator<Message> {
  try {
    for await (const response of responses) {
      let taken = false;
      try {
        yield response;
        taken = true;
      } finally {
        if (!taken) end.leave();
      }
    }
  } catch (error) {
    throw asConnectError(toRpcError(end.signal.aborted ? end.signal.reason : error));
  }
}

const unary =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  async (request: Message, context: HandlerContext): Promise<Message> => {
    try {
      return await pipeline.unary(receive(endpoint, context).inbound, () => request);
    } catch (error) {
      throw asConnectError(toRpcError(error));
    }
  };

const stream =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (request: Message, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end } = receive(endpoint, context);
    return delivered(
      pipeline.stream(inbound, () => request),
      end,
    );
  };

const duplex =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (requests: AsyncIterable<Message>, context: HandlerContext): AsyncIterable<Message> => {
    const { inbound, end } = receive(endpoint, context);
    return delivered(pipeline.duplex(inbound, requests), end);
  };

const handlers = {
  unary,
  server_streaming: stream,
  client_streaming: undefined,
  bidi_streaming: duplex,
} as const;

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
        router.rpc(endpoint.method, handlers[endpoint.method.methodKind]!(pipeline, endpoint) as never);
      }
    },
    readMaxBytes: maxMessageBytes,
    // An unknown field or enum name is refused: dropped in silence, it would become the default.
    jsonOptions: { ignoreUnknownFields: false },
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
