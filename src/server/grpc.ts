import { type EventEmitter, once } from 'node:events';
import { fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { Code, RpcError, toRpcError } from '../database/errors.ts';
import { CallNotes } from '../database/notes.ts';
import { CallEnd } from './deadline.ts';
import type { Endpoint } from './endpoint.ts';
import { INEXACT, type Inbound, type Pipeline } from './pipeline.ts';
import { statusBytes } from './status.ts';

type AnyCall =
  | ServerUnaryCall<Buffer, Message>
  | ServerWritableStream<Buffer, Message>
  | ServerDuplexStream<Buffer, Message>;

/** Options of the gRPC listener. */
export interface GrpcOptions {
  /** `host:port` or `unix:/path`. */
  readonly listen: string;
  readonly maxMessageBytes: number;
}

/** A listener that is up. */
export interface Listener {
  /** Where it can be reached. */
  readonly address: string;
  /** Stops accepting; waits for the calls under way at most that long, then cuts them off. */
  close(timeoutMs: number): Promise<void>;
}

/** What an answer or a stream ends with. */
const trailerOf = ({ notes }: Inbound): Metadata | undefined => {
  if (notes.text === undefined) return undefined;
  const metadata = new Metadata();
  metadata.set(INEXACT, notes.text);
  return metadata;
};

const asStatus = (error: RpcError, metadata = new Metadata()): Partial<StatusObject> => {
  metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(error)));
  return { code: error.code as number, details: error.message, metadata };
};

const remainingMs = (deadline: Date | number): number =>
  (typeof deadline === 'number' ? deadline : deadline.getTime()) - Date.now();

/** The call as the pipeline sees it; `end` stops listening to its deadline. */
const receive = (endpoint: Endpoint, call: AnyCall): { inbound: Inbound; end: CallEnd } => {
  const end = new CallEnd(remainingMs(call.getDeadline()));
  (call as EventEmitter).on('cancelled', () => end.leave());
  const inbound: Inbound = {
    endpoint,
    peer: call.getPeer(),
    header: (name) => {
      const [value] = call.metadata.get(name);
      return value === undefined ? undefined : value.toString();
    },
    signal: end.signal,
    notes: new CallNotes(),
  };
  return { inbound, end };
};

const decodeRequest = (endpoint: Endpoint, bytes: Buffer): Message => {
  try {
    return fromBinary(endpoint.method.input, bytes);
  } catch (error) {
    throw new RpcError(Code.INVALID_ARGUMENT, 'MALFORMED_REQUEST', 'the request is not a valid message', {
      cause: error,
    });
  }
};

const unaryHandler =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (call: ServerUnaryCall<Buffer, Message>, callback: sendUnaryData<Message>): void => {
    const { inbound, end } = receive(endpoint, call);
    pipeline
      .unary(inbound, () => decodeRequest(endpoint, call.request))
      .then(
        (response) => callback(null, response, trailerOf(inbound)),
        (error: unknown) => callback(asStatus(toRpcError(error))),
      )
      .finally(() => end.done());
  };

/** Writes as fast as the reader reads. */
const pump = async (
  responses: AsyncIterable<Message>,
  call: ServerWritableStream<Buffer, Message> | ServerDuplexStream<Buffer, Message>,
  inbound: Inbound,
  end: CallEnd,
): Promise<void> => {
  try {
    for await (const response of responses) {
      if (end.signal.aborted) break;
      if (!call.write(response)) await once(call, 'drain', { signal: end.signal });
    }
    if (end.signal.aborted) throw end.signal.reason;
    call.end(trailerOf(inbound));
  } catch (error) {
    // `once` wraps the signal's reason in an AbortError.
    const cause = end.signal.aborted ? end.signal.reason : error;
    call.emit('error', asStatus(toRpcError(cause), trailerOf(inbound)));
  } finally {
    end.done();
  }
};

const streamHandler =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (call: ServerWritableStream<Buffer, Message>): void => {
    const { inbound, end } = receive(endpoint, call);
    void pump(
      pipeline.stream(inbound, () => decodeRequest(endpoint, call.request)),
      call,
      inbound,
      end,
    );
  };

const duplexHandler =
  (pipeline: Pipeline, endpoint: Endpoint) =>
  (call: ServerDuplexStream<Buffer, Message>): void => {
    const { inbound, end } = receive(endpoint, call);
    const requests = (async function* (): AsyncGenerator<Message> {
      // The default would destroy the call, and with it the answers, as soon as the caller has sent everything.
      const received = call.iterator({ destroyOnReturn: false });
      for await (const bytes of received) yield decodeRequest(endpoint, bytes as Buffer);
    })();
    void pump(pipeline.duplex(inbound, requests), call, inbound, end);
  };

const handlers = {
  unary: unaryHandler,
  server_streaming: streamHandler,
  client_streaming: undefined,
  bidi_streaming: duplexHandler,
} as const;

const identityBuffer = (bytes: Buffer): Buffer => bytes;

/** Serves the endpoints over gRPC. */
export const listenGrpc = async (
  pipeline: Pipeline,
  endpoints: readonly Endpoint[],
  { listen, maxMessageBytes }: GrpcOptions,
): Promise<Listener> => {
  const server = new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': -1,
    // Probes that open a connection a second must not pile up.
    'grpc.max_connection_idle_ms': 300_000,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
  });
  for (const endpoint of endpoints) {
    const { method } = endpoint;
    const definition: ServiceDefinition = {
      [method.localName]: {
        path: endpoint.path,
        requestStream: method.methodKind === 'bidi_streaming',
        responseStream: method.methodKind !== 'unary',
        // Decoded in the pipeline, where a malformed request becomes INVALID_ARGUMENT.
        requestSerialize: identityBuffer,
        requestDeserialize: identityBuffer,
        responseSerialize: (message: Message) => {
          const { buffer, byteOffset, byteLength } = toBinary(method.output, message);
          return Buffer.from(buffer, byteOffset, byteLength);
        },
        responseDeserialize: identityBuffer,
      },
    };
    server.addService(definition, { [method.localName]: handlers[method.methodKind]!(pipeline, endpoint) as never });
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(listen, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    address: listen.startsWith('unix:') ? listen : `${listen.slice(0, listen.lastIndexOf(':'))}:${port}`,
    close: (timeoutMs) =>
      new Promise((resolve) => {
        const force = setTimeout(() => {
          server.forceShutdown();
          resolve();
        }, timeoutMs);
        server.tryShutdown(() => {
          clearTimeout(force);
          resolve();
        });
      }),
  };
};
