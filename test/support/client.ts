import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import type { DescMethodServerStreaming, DescMethodUnary } from '@bufbuild/protobuf';
import {
  create,
  createRegistry,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf';
import { anyUnpack, durationMs } from '@bufbuild/protobuf/wkt';
import { type CallOptions, Code as ConnectCode, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { Client, type ClientReadableStream, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { codeName } from '../../src/contract/errors.ts';
import {
  type BadRequest,
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  type PreconditionFailure,
  PreconditionFailureSchema,
  type RetryInfo,
  RetryInfoSchema,
} from '../../src/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.ts';

/** Request headers and limits of a call. */
export interface CallInit {
  /** Value of the `transaction` header. */
  readonly transaction?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Told the value of a trailer when the answer or the stream has ended. */
  readonly onTrailer?: (trailer: (name: string) => string | undefined) => void;
}

/** Finds the log line of an error id, where the log of the server is at hand. */
export type LoggedCause = (errorId: string) => string | undefined;

/** A refused call, the same from either listener. */
export class CallError extends Error {
  /** Name of the gRPC code. */
  readonly code: string;
  /** Reason of the ErrorInfo. */
  readonly reason: string | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** Names of the offending fields. */
  readonly fields: readonly string[];
  readonly violations: BadRequest['fieldViolations'];
  readonly preconditions: PreconditionFailure['violations'];
  /** Delay of the RetryInfo, milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(code: number, message: string, details: readonly object[], logged: LoggedCause = () => undefined) {
    super(message);
    const detail = <T>(typeName: string): T | undefined =>
      details.find((each) => (each as { $typeName: string }).$typeName === typeName) as T | undefined;
    const info = detail<ErrorInfo>(ErrorInfoSchema.typeName);
    const retry = detail<RetryInfo>(RetryInfoSchema.typeName);
    this.code = codeName(code);
    this.reason = info?.reason;
    this.metadata = info?.metadata ?? {};
    this.violations = detail<BadRequest>(BadRequestSchema.typeName)?.fieldViolations ?? [];
    this.fields = this.violations.map(({ field }) => field);
    this.preconditions = detail<PreconditionFailure>(PreconditionFailureSchema.typeName)?.violations ?? [];
    this.retryAfterMs = retry?.retryDelay && durationMs(retry.retryDelay);
    const { error_id: id } = this.metadata;
    const line = id === undefined ? undefined : logged(id);
    if (line !== undefined) this.message = `${message}\n${line}`;
  }
}

const DETAILS = [ErrorInfoSchema, RetryInfoSchema, BadRequestSchema, PreconditionFailureSchema];
const registry = createRegistry(...DETAILS);

const fromServiceError = (error: ServiceError, logged?: LoggedCause): CallError => {
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const details = bytes ? fromBinary(StatusSchema, bytes as Buffer).details : [];
  return new CallError(
    error.code,
    error.details,
    details.flatMap((any) => anyUnpack(any, registry) ?? []),
    logged,
  );
};

const fromConnectError = (thrown: unknown, logged?: LoggedCause): CallError => {
  const error = ConnectError.from(thrown);
  return new CallError(
    error.code as number,
    error.rawMessage,
    DETAILS.flatMap((desc) => error.findDetails(desc as typeof ErrorInfoSchema)),
    logged,
  );
};

/** How tests call the server: the same calls over gRPC and over the Connect port. */
export interface Caller {
  readonly name: 'grpc' | 'connect';
  unary<M extends DescMethodUnary>(
    method: M,
    request: MessageInitShape<M['input']>,
    init?: CallInit,
  ): Promise<MessageShape<M['output']>>;
  stream<M extends DescMethodServerStreaming>(
    method: M,
    request: MessageInitShape<M['input']>,
    init?: CallInit,
  ): AsyncIterable<MessageShape<M['output']>>;
  close(): void;
}

const headersOf = ({ transaction, headers = {} }: CallInit): Record<string, string> => ({
  ...headers,
  ...(transaction === undefined ? {} : { transaction }),
});

/** What a caller speaks TLS with, PEM. */
export interface CallerTls {
  readonly ca: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
}

/** Calls through `@grpc/grpc-js`. */
export const grpcCaller = (address: string, logged?: LoggedCause, tls?: CallerTls): Caller => {
  const secured = tls && credentials.createSsl(tls.ca, tls.key, tls.cert);
  const client = new Client(address, secured ?? credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
    'grpc.max_send_message_length': -1,
    'grpc.use_local_subchannel_pool': 1,
    // This library names an address as the host that it wants, which TLS does not allow.
    ...(tls ? { 'grpc.ssl_target_name_override': 'localhost' } : {}),
  });
  const prepare = (init: CallInit) => {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(headersOf(init))) metadata.set(name, value);
    return { metadata, options: init.timeoutMs === undefined ? {} : { deadline: Date.now() + init.timeoutMs } };
  };
  const pathOf = (method: DescMethodUnary | DescMethodServerStreaming): string =>
    `/${method.parent.typeName}/${method.name}`;
  return {
    name: 'grpc',
    unary: (method, request, init = {}) => {
      const { metadata, options } = prepare(init);
      return new Promise((resolve, reject) => {
        const call = client.makeUnaryRequest(
          pathOf(method),
          (message) => Buffer.from(toBinary(method.input, message)),
          (bytes) => fromBinary(method.output, bytes) as MessageShape<typeof method.output>,
          create(method.input, request),
          metadata,
          options,
          (error, response) => (error ? reject(fromServiceError(error, logged)) : resolve(response as never)),
        );
        call.on('status', ({ metadata: trailer }) => init.onTrailer?.((name) => trailer.get(name)[0]?.toString()));
        init.signal?.addEventListener('abort', () => call.cancel(), { once: true });
      });
    },
    async *stream(method, request, init = {}) {
      const { metadata, options } = prepare(init);
      const call: ClientReadableStream<object> = client.makeServerStreamRequest(
        pathOf(method),
        (message) => Buffer.from(toBinary(method.input, message)),
        (bytes) => fromBinary(method.output, bytes),
        create(method.input, request),
        metadata,
        options,
      );
      call.on('status', ({ metadata: trailer }) => init.onTrailer?.((name) => trailer.get(name)[0]?.toString()));
      init.signal?.addEventListener('abort', () => call.cancel(), { once: true });
      try {
        for await (const response of call) yield response as never;
      } catch (error) {
        throw fromServiceError(error as ServiceError, logged);
      } finally {
        call.cancel();
      }
    },
    close: () => client.close(),
  };
};

/** Calls through the Connect protocol, over HTTP/1.1 unless told otherwise. */
export const connectCaller = (
  address: string,
  useBinaryFormat = true,
  logged?: LoggedCause,
  { tls, httpVersion = '1.1' }: { readonly tls?: CallerTls; readonly httpVersion?: '1.1' | '2' } = {},
): Caller => {
  const baseUrl = `${tls ? 'https' : 'http'}://${address}`;
  const agent = new (tls ? HttpsAgent : HttpAgent)({ keepAlive: true, timeout: 5_000, ...tls });
  const sessionManager = new Http2SessionManager(baseUrl, {}, tls);
  const transport: Transport = createConnectTransport({
    baseUrl,
    useBinaryFormat,
    ...(httpVersion === '2' ? { httpVersion, sessionManager } : { httpVersion, nodeOptions: { agent } }),
  });
  const options = (init: CallInit): CallOptions => ({
    headers: headersOf(init),
    ...(init.timeoutMs === undefined ? {} : { timeoutMs: init.timeoutMs }),
    ...(init.signal ? { signal: init.signal } : {}),
    ...(init.onTrailer ? { onTrailer: (trailer) => init.onTrailer?.((name) => trailer.get(name) ?? undefined) } : {}),
  });
  return {
    name: 'connect',
    unary: async (method, request, init = {}) => {
      const client = createClient(method.parent, transport) as Record<string, CallableFunction>;
      try {
        return await client[method.localName]!(request, options(init));
      } catch (error) {
        throw fromConnectError(error, logged);
      }
    },
    async *stream(method, request, init = {}) {
      const client = createClient(method.parent, transport) as Record<string, CallableFunction>;
      try {
        yield* client[method.localName]!(request, options(init)) as AsyncIterable<never>;
      } catch (error) {
        throw fromConnectError(error, logged);
      }
    },
    close: () => {
      agent.destroy();
      sessionManager.abort();
    },
  };
};

/** The error a call is refused with; fails when the call succeeds. */
export const refusal = async (call: Promise<unknown>): Promise<CallError> => {
  try {
    await call;
  } catch (error) {
    if (error instanceof CallError) return error;
    throw error;
  }
  throw new Error('the call succeeded');
};

/** Everything a stream brings. */
export const collect = async <T>(stream: AsyncIterable<T>): Promise<T[]> => {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
};

export { ConnectCode };
