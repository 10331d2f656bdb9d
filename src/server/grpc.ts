import type { EventEmitter } from 'node:events';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import {
  type Responder,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  type ServerInterceptor,
} from '@grpc/grpc-js';
import { type RpcError, refuse } from '../contract/errors.ts';
import { Overdue } from '../database/overdue.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { Arrivals } from './arrivals.ts';
import { bind } from './bind.ts';
import { Connections } from './connections.ts';
import { deadlineExceeded } from './deadline.ts';
import type { Endpoint } from './endpoint.ts';
import { GrpcCall } from './grpc-call.ts';
import { compressionProblem, Frames, refusedBefore, settleAnswer, turnAway } from './grpc-wire.ts';
import { readHeaders } from './headers.ts';
import type { Arrival } from './inbound.ts';
import type { Listener, ListenerOptions } from './listener.ts';
import { otherSide } from './other-side.ts';
import type { Pipeline } from './pipeline.ts';
import { securing } from './tls.ts';

const identity = (bytes: Buffer): Buffer => bytes;

/** The library's own way to answer a call, which none takes. */
const unused = (): void => {};
const NEVER_STARTED: Responder = { start: () => {} };

/** The server inside the library, which has no other way to be handed a stream instead of an address. */
const streamHandlerOf = (server: Server): EventEmitter => {
  server.createConnectionInjector(ServerCredentials.createInsecure());
  const [inner] = (server as unknown as { http2Servers: Map<EventEmitter, unknown> }).http2Servers.keys();
  if (!inner) throw new Error('this version of @grpc/grpc-js keeps its HTTP/2 server elsewhere');
  return inner;
};

/** How often requests are looked at that take too long to arrive, milliseconds. */
const LOOK_MS = 100;

const requestTimeout = (ms: number): RpcError =>
  refuse('REQUEST_TIMEOUT', `the request was not complete after ${ms} ms`);

/** Of a call's headers, those that the library is to look at: it makes metadata of whatever it is given. */
const handedOver = (headers: IncomingHttpHeaders): IncomingHttpHeaders => {
  const handed: IncomingHttpHeaders = { ':path': headers[':path'], 'content-type': headers['content-type'] };
  const encoding = headers['grpc-encoding'];
  if (encoding !== undefined) handed['grpc-encoding'] = encoding;
  return handed;
};

/** A stream that a caller has opened, as Node tells of it. */
interface Opened {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  readonly flags: number;
  /** Names and values of the headers in turn. */
  readonly raw: readonly string[];
  /** By the clock of `performance.now()`. */
  readonly arrivedAt: number;
}

/** Serves the endpoints over gRPC. */
export const listenGrpc = async (
  pipeline: Pipeline,
  endpoints: readonly Endpoint[],
  { listen, socketMode, maxMessageBytes, budget, certificates, streams, limits }: ListenerOptions,
): Promise<Listener> => {
  /** The call that the library is about to be handed. */
  let arriving: GrpcCall | undefined;
  const takeOver: ServerInterceptor = (_method, call) => {
    arriving!.start(call);
    return new ServerInterceptingCall(call, NEVER_STARTED);
  };
  const server = new Server({
    interceptors: [takeOver],
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.enable_channelz': 0,
  });
  const byPath = new Map<string | undefined, Endpoint>(endpoints.map((endpoint) => [endpoint.path, endpoint]));
  // How many messages a call may have is seen to where they are read and written.
  for (const { path } of endpoints) server.register(path, unused, identity, identity, 'bidi');
  const inner = streamHandlerOf(server);
  /** Calls whose request is still on its way. */
  const incomplete = new Overdue(LOOK_MS);
  const connections = new Connections(limits, streams);

  const arrive = (endpoint: Endpoint, { stream, headers, raw, arrivedAt }: Opened): GrpcCall => {
    const read = readHeaders(raw);
    const arrival: Arrival = { ...read, endpoint, system: 'grpc', ...otherSide(stream.session) };
    const admitted = pipeline.admit(arrival);
    const encoding = headers['grpc-encoding'] as string | undefined;
    const problem = compressionProblem(encoding);
    if (problem) throw pipeline.refuse(admitted, problem);
    const frames = new Frames(encoding);
    const call = new GrpcCall(pipeline, admitted, stream, { arrivedAt, frames });
    if (call.timeoutMs === 0) throw pipeline.refuse(admitted, deadlineExceeded());
    const reservation = budget.open(encoding);
    // The library does so, too, but only after it would have begun to flow.
    stream.pause();
    stream.on('data', (chunk: Buffer) => {
      try {
        frames.take(chunk);
        reservation.add(chunk.length);
      } catch (error) {
        reservation.release();
        call.giveUp(error);
      }
    });
    const { timeoutMs = Number.POSITIVE_INFINITY } = call;
    const onLate = (): void =>
      call.giveUp(timeoutMs < limits.requestMs ? deadlineExceeded() : requestTimeout(limits.requestMs));
    if (endpoint.method.methodKind !== 'bidi_streaming') {
      call.arriving = incomplete.watch(onLate, arrivedAt + Math.min(timeoutMs, limits.requestMs));
    }
    stream.once('close', () => {
      call.drop();
      reservation.release();
    });
    return call;
  };

  const begin = (opened: Opened): void => {
    const { stream, headers, flags } = opened;
    if (stream.destroyed || refusedBefore(stream, headers)) return;
    const endpoint = byPath.get(headers[':path']);
    if (endpoint) {
      try {
        arriving = arrive(endpoint, opened);
      } catch (error) {
        turnAway(stream, toRpcError(error));
        return;
      }
    }
    settleAnswer(stream);
    // Before this returns, the library has made its call of it.
    inner.emit('stream', stream, handedOver(headers), flags);
  };

  const arrivals = new Arrivals();
  connections.http2.on('stream', (stream: ServerHttp2Stream, headers, flags, raw: unknown) => {
    stream.on('error', () => {});
    const opened = { stream, headers, flags, raw: raw as string[], arrivedAt: performance.now() };
    if (arrivals.mayBegin()) begin(opened);
    else arrivals.wait(() => begin(opened));
  });
  const secure = securing(certificates, listen, ['h2'], limits);
  const bound = await bind({ listen, socketMode, keepAliveMs: limits.pingMs }, (socket) => {
    connections.add(socket);
    secure(socket, (channel) => {
      connections.handOver(socket);
      connections.http2.emit('connection', channel);
    });
  });
  return {
    address: bound.address,
    get open() {
      return connections.open;
    },
    close: async (timeoutMs) => {
      await connections.close(timeoutMs, bound.close());
      server.forceShutdown();
      incomplete.end();
    },
  };
};
