import { createServer as createHttp1, type IncomingMessage, type ServerResponse } from 'node:http';
import { constants, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';
import { createRegistry } from '@bufbuild/protobuf';
import { ConnectError, createContextValues } from '@connectrpc/connect';
import { errorToJson } from '@connectrpc/connect/protocol-connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import type { RpcError } from '../contract/errors.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { bind } from './bind.ts';
import type { Reservation } from './budget.ts';
import { certificateOf } from './certificate.ts';
import { admit, asConnectError, type Call, callKey, handlers, JSON_OPTIONS, RawSchema } from './connect-calls.ts';
import { aboutMs, Connections, HEADER_BYTES_READ } from './connections.ts';
import { answerDocs, wantsDocs } from './docs.ts';
import type { Endpoint } from './endpoint.ts';
import { type Query, readQuery } from './get-request.ts';
import { readHeaders, settleHeaders } from './headers.ts';
import type { Listener, ListenerOptions } from './listener.ts';
import { WebGuard, type WebRules } from './origins.ts';
import type { Pipeline } from './pipeline.ts';
import { answerRoute, type Routes } from './probes.ts';
import { securing } from './tls.ts';

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;

type Adapter = ReturnType<typeof connectNodeAdapter>;

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

const pathOf = ({ url }: Request): string | undefined => url?.split('?')[0];

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
    limits,
    web,
    docs,
  }: ListenerOptions & { readonly web: Omit<WebRules, 'listen'>; readonly docs: boolean },
): Promise<Listener> => {
  const guard = new WebGuard({ ...web, listen });
  const byPath = new Map<string | undefined, Endpoint>(endpoints.map((endpoint) => [endpoint.path, endpoint]));
  const calls = new WeakMap<object, Call>();
  /** When connections of HTTP/1.1 are old, by the clock of `performance.now()`. */
  const oldAt = new WeakMap<object, number>();
  const files = new Set(endpoints.map(({ method }) => method.parent.file));
  let closing = false;
  const jsonOptions = { ...JSON_OPTIONS, registry: createRegistry(...files) };
  const adapterFor = (endpoint: Endpoint | undefined): Adapter =>
    connectNodeAdapter({
      routes: (router) => {
        if (!endpoint) return;
        const handler = handlers[endpoint.method.methodKind]!(pipeline, endpoint);
        const method = { ...endpoint.method, input: RawSchema } as Endpoint['method'];
        router.rpc(method, handler as never, { requestGate: (context) => admit(pipeline, endpoint, context) });
      },
      readMaxBytes: maxMessageBytes,
      jsonOptions,
      contextValues: (request: Request) => createContextValues().set(callKey, calls.get(request)),
    });
  /** What the library makes of an RPC, made when it is first called: most are never called here. */
  const adapters = new Map<Endpoint | undefined, Adapter>();
  const adapterOf = (endpoint: Endpoint | undefined): Adapter => {
    const known = adapters.get(endpoint);
    if (known) return known;
    const made = adapterFor(endpoint);
    adapters.set(endpoint, made);
    return made;
  };

  /** Counts the bytes of a body as the library reads them. */
  const counted = (request: Request, reservation: Reservation): void => {
    Object.defineProperty(request, Symbol.asyncIterator, {
      value: async function* () {
        // A request that was destroyed would keep its connection from what comes next.
        for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
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

  /** Counts the bytes of a request, wherever it stands; what is wrong with one in an address. */
  const accept = (request: Request, response: Response, query: Query | undefined): RpcError | undefined => {
    const reservation = budget.open(query ? query.encoding : encodingOf(request));
    response.once('close', () => reservation.release());
    if (!query) {
      counted(request, reservation);
      return undefined;
    }
    // An answer is of its moment, its caller and its transaction, which no address tells.
    response.setHeader('cache-control', 'no-store');
    try {
      reservation.add(query.bytes);
    } catch (error) {
      return toRpcError(error);
    }
    return query.problem;
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
    if (docs && wantsDocs(request)) {
      const stranger = guard.strangerOf(request);
      guard.welcome(request, response, stranger);
      if (stranger) turnAway(response, stranger);
      else void answerDocs(request, response as ServerResponse);
      return;
    }
    const { socket } = request;
    const problem = guard.problemOf(request);
    if (guard.welcome(request, response, problem)) return;
    // A call is refused in the form of its own protocol, with its line in the log.
    const endpoint = byPath.get(pathOf(request));
    if (problem && (request.method === 'OPTIONS' || !endpoint)) {
      turnAway(response, problem);
      return;
    }
    const read = readHeaders(request.rawHeaders);
    settleHeaders(request.headers, read);
    const query = request.method === 'GET' ? readQuery(request.url ?? '') : undefined;
    const unfit = accept(request, response, query);
    const contentType = request.headers['content-type'] ?? '';
    calls.set(request, {
      ...read,
      peer: socket?.remoteAddress ? `${socket.remoteAddress}:${socket.remotePort}` : 'unknown',
      system: contentType.startsWith('application/grpc') ? 'grpc' : 'connectrpc',
      watched: 'stream' in request,
      json: query ? query.json : /json/i.test(contentType),
      problem: problem ?? read.problem ?? unfit,
      certificate: certificateOf(socket),
    });
    if ('stream' in request) {
      const { stream } = request;
      // A request without a body is complete, and nobody reads its end; one of several messages takes as long as its caller likes.
      if (!stream.endAfterHeaders && endpoint?.method.methodKind !== 'bidi_streaming') {
        const late = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), limits.requestMs);
        stream.once('end', () => clearTimeout(late)).once('close', () => clearTimeout(late));
      }
      // What is left of a body that has been answered would keep the stream open; nobody else takes it any more.
      stream.once('finish', () => stream.removeAllListeners('data').resume());
    } else {
      // What is left of a body would stand before the next request of the connection.
      response.once('finish', () => request.removeAllListeners('readable').resume());
    }
    try {
      adapterOf(endpoint)(request as never, response as never);
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
