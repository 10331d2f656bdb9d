import type { EventEmitter } from 'node:events';
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import type { Message } from '@bufbuild/protobuf';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type ServiceDefinition,
} from '@grpc/grpc-js';
import { type RpcError, refuse } from '../contract/errors.ts';
import { CallNotes } from '../database/notes.ts';
import { Overdue } from '../database/overdue.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { Arrivals, otherSide } from './arrivals.ts';
import { bind } from './bind.ts';
import { CONNECTION_LIMITS, Connections } from './connections.ts';
import { CallEnd } from './deadline.ts';
import { decodeBinary } from './decode.ts';
import type { Endpoint } from './endpoint.ts';
import { answer, pump } from './grpc-answers.ts';
import { compressionProblem, PADDING, refusedBefore, settleAnswer, unannounced } from './grpc-wire.ts';
import { readHeaders, settleHeaders, takesTexts } from './headers.ts';
import type { Listener, ListenerOptions } from './listener.ts';
import type { Admitted, Arrival, Inbound, Pipeline, Reply } from './pipeline.ts';
import { statusBytes, wellFormed } from './status.ts';
import { securing } from './tls.ts';

type AnyCall = ServerWritableStream<Buffer, Reply> | ServerDuplexStream<Buffer, Reply>;

const remainingMs = (deadline: Date | number): number =>
  (typeof deadline === 'number' ? deadline : deadline.getTime()) - Date.now();

/** The call as the pipeline sees it; `end` stops listening to its deadline. */
const receive = (pipeline: Pipeline, admitted: Admitted, call: AnyCall): { inbound: Inbound; end: CallEnd } => {
  const end = new CallEnd(remainingMs(call.getDeadline()), pipeline.longest(admitted.endpoint));
  (call as EventEmitter).on('cancelled', () => end.leave());
  const size = pipeline.sizeOf(admitted.endpoint);
  return {
    inbound: {
      ...admitted,
      watched: true,
      signal: end,
      notes: new CallNotes(takesTexts(admitted)),
      size,
      encoded: true,
    },
    end,
  };
};

const unaryHandler =
  (pipeline: Pipeline, arrivals: Arrivals) =>
  (call: ServerWritableStream<Buffer, Reply>): void => {
    const arrived = arrivals.of(call);
    if (!arrived) return;
    const { admitted, stream } = arrived;
    const { inbound, end } = receive(pipeline, admitted, call);
    const response = pipeline.unary(inbound, () => decodeBinary(admitted.endpoint.method.input, call.request));
    void answer(response, call, stream, inbound, end);
  };

const streamHandler =
  (pipeline: Pipeline, arrivals: Arrivals) =>
  (call: ServerWritableStream<Buffer, Reply>): void => {
    const arrived = arrivals.of(call);
    if (!arrived) return;
    const { admitted, stream } = arrived;
    const { inbound, end } = receive(pipeline, admitted, call);
    const responses = pipeline.stream(inbound, () => decodeBinary(admitted.endpoint.method.input, call.request));
    void pump(responses, call, stream, inbound, end);
  };

const duplexHandler =
  (pipeline: Pipeline, arrivals: Arrivals) =>
  (call: ServerDuplexStream<Buffer, Reply>): void => {
    const arrived = arrivals.of(call);
    if (!arrived) return;
    const { admitted, stream } = arrived;
    const { inbound, end } = receive(pipeline, admitted, call);
    const requests = (async function* (): AsyncGenerator<Message> {
      // The default would destroy the call, and with it the answers, as soon as the caller has sent everything.
      const received = call.iterator({ destroyOnReturn: false });
      for await (const bytes of received) yield decodeBinary(admitted.endpoint.method.input, bytes as Buffer);
    })();
    void pump(pipeline.duplex(inbound, requests), call, stream, inbound, end);
  };

const handlers = {
  unary: unaryHandler,
  server_streaming: streamHandler,
  client_streaming: undefined,
  bidi_streaming: duplexHandler,
} as const;

const identityBuffer = (bytes: Buffer): Buffer => bytes;

/** Answers a call whose body is not wanted. */
const turnAway = (stream: ServerHttp2Stream, error: RpcError): void => {
  if (stream.destroyed || stream.closed) return;
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_CANCEL);
    return;
  }
  stream.respond(
    {
      ':status': 200,
      'content-type': 'application/grpc+proto',
      'grpc-status': error.code,
      // As the library does it, and undoes it: it leaves `%2F` as it is.
      'grpc-message': encodeURI(wellFormed(error.message)),
      'grpc-status-details-bin': Buffer.from(statusBytes(error)).toString('base64').replace(PADDING, ''),
    },
    { endStream: true },
  );
  // The rest of the body would only be thrown away; a reset that went out with the answer would take its place.
  stream.resume();
  stream.once('finish', () => setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR)));
};

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

/** Of a call's headers, those that the library itself looks at: it makes metadata of whatever it is given. */
const HANDED = ['content-type', 'grpc-timeout', 'grpc-encoding'] as const;

const handedOver = ({ path }: Endpoint, headers: IncomingHttpHeaders): IncomingHttpHeaders => {
  const handed: Record<string, string | string[]> = { ':path': path };
  for (const name of HANDED) {
    const value = headers[name];
    if (value !== undefined) handed[name] = value;
  }
  return handed;
};

/** Serves the endpoints over gRPC. */
export const listenGrpc = async (
  pipeline: Pipeline,
  endpoints: readonly Endpoint[],
  { listen, socketMode, maxMessageBytes, budget, certificates, streams, limits = CONNECTION_LIMITS }: ListenerOptions,
): Promise<Listener> => {
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': -1,
    'grpc.enable_channelz': 0,
  });
  const arrivals = new Arrivals();
  const byPath = new Map<string | undefined, Endpoint>();
  for (const endpoint of endpoints) {
    const { method } = endpoint;
    byPath.set(endpoint.path, endpoint);
    const definition: ServiceDefinition = {
      [method.localName]: {
        path: endpoint.path,
        requestStream: method.methodKind === 'bidi_streaming',
        // One answer is written as many are: the library would wait for it to have gone before it sends the status.
        responseStream: true,
        // Decoded in the pipeline, where a malformed request becomes INVALID_ARGUMENT.
        requestSerialize: identityBuffer,
        requestDeserialize: identityBuffer,
        responseSerialize: identityBuffer,
        responseDeserialize: identityBuffer,
      },
    };
    server.addService(definition, { [method.localName]: handlers[method.methodKind]!(pipeline, arrivals) as never });
  }
  const inner = streamHandlerOf(server);
  /** Calls whose request is still on its way. */
  const incomplete = new Overdue(LOOK_MS);
  const connections = new Connections(limits, streams);

  const arrive = (
    endpoint: Endpoint,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    raw: readonly string[],
  ): IncomingHttpHeaders => {
    const read = readHeaders(raw);
    const arrival: Arrival = { ...read, endpoint, system: 'grpc', ...otherSide(stream.session) };
    const admitted = pipeline.admit(arrival);
    const encoding = headers['grpc-encoding'] as string | undefined;
    const problem = compressionProblem(encoding);
    if (problem) throw pipeline.refuse(admitted, problem);
    const handed = handedOver(endpoint, headers);
    settleHeaders(handed, read);
    const forget = arrivals.add(admitted, handed, stream);
    const giveUp = (error: unknown): void => {
      forget();
      turnAway(stream, pipeline.refuse(admitted, toRpcError(error)));
    };
    const reservation = budget.open(encoding);
    let isFirst = true;
    stream.on('data', (chunk: Buffer) => {
      const begins = isFirst;
      isFirst = false;
      try {
        if (begins) unannounced(chunk, encoding);
        reservation.add(chunk.length);
      } catch (error) {
        reservation.release();
        giveUp(error);
      }
    });
    const onLate = (): void => giveUp(requestTimeout(limits.requestMs));
    if (endpoint.method.methodKind !== 'bidi_streaming') {
      incomplete.set(onLate, performance.now() + limits.requestMs);
      stream.once('end', () => incomplete.delete(onLate));
    }
    stream.once('close', () => {
      forget();
      reservation.release();
      incomplete.delete(onLate);
    });
    return handed;
  };

  connections.http2.on('stream', (stream: ServerHttp2Stream, headers, flags, raw: unknown) => {
    stream.on('error', () => {});
    if (refusedBefore(stream, headers)) return;
    const endpoint = byPath.get(headers[':path']);
    let handed = headers;
    if (endpoint) {
      try {
        handed = arrive(endpoint, stream, headers, raw as string[]);
      } catch (error) {
        turnAway(stream, toRpcError(error));
        return;
      }
    }
    settleAnswer(stream);
    inner.emit('stream', stream, handed, flags);
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
