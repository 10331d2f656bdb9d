import { type DescMethod, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import {
  Client as Channel,
  type ChannelCredentials,
  type ClientOptions as ChannelOptions,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import type { ClientOptions } from './calls.ts';
import { type Client, Connection } from './client.ts';
import { cancelled, errorOfStatus, type SidecarError } from './errors.ts';
import { StatusSchema } from './gen/google/rpc/status_pb.ts';
import type { Outgoing, Transport } from './transport.ts';

export * from './core.ts';

const ADDRESS = '127.0.0.1:50051';
const MESSAGE_BYTES = 64 * 1024 * 1024;
const KEEPALIVE_MS = 20_000;

/** PEM texts of TLS. */
export interface TlsOptions {
  /** Authorities of the sidecar's certificate; default: those of the machine. */
  readonly ca?: Uint8Array | string;
  /** The caller's own certificate and key. */
  readonly cert?: Uint8Array | string;
  readonly key?: Uint8Array | string;
  /** Name that the sidecar's certificate must have; default: the host of the address. */
  readonly serverName?: string;
}

/** How a sidecar is reached. */
export interface GrpcOptions extends ClientOptions {
  /** `true`, or files of one's own, to speak TLS. */
  readonly tls?: boolean | TlsOptions;
  /** Largest message that is received, bytes; default 64 MiB. */
  readonly maxReceiveBytes?: number;
  /** Time between two looks whether a connection lives, milliseconds; default 20 s. */
  readonly keepaliveMs?: number;
}

const bufferOf = (pem: Uint8Array | string | undefined): Buffer | null =>
  pem === undefined ? null : Buffer.from(pem as Uint8Array);

const credentialsOf = (tls: boolean | TlsOptions | undefined): ChannelCredentials => {
  if (!tls) return credentials.createInsecure();
  const { ca, key, cert } = tls === true ? {} : tls;
  return credentials.createSsl(bufferOf(ca), bufferOf(key), bufferOf(cert));
};

const headersOf = (metadata: Metadata): Headers => {
  const text = Object.entries(metadata.getMap()).filter(([, value]) => typeof value === 'string');
  return new Headers(text as [string, string][]);
};

const sidecarError = (error: ServiceError, { signal }: Outgoing): SidecarError => {
  if (signal?.aborted) return cancelled(signal);
  const [bytes] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const details = bytes instanceof Uint8Array ? fromBinary(StatusSchema, bytes).details : [];
  const packed = details.map(({ typeUrl, value }) => ({ type: typeUrl.split('/').at(-1)!, value }));
  return errorOfStatus(error.code, error.details, packed, error);
};

const pathOf = ({ parent, name }: DescMethod): string => `/${parent.typeName}/${name}`;

const given = (bytes: Buffer): Buffer => bytes;

/** Ends a call with its caller's signal; undone by what is returned. */
const follow = (signal: AbortSignal | undefined, call: { cancel(): void }): (() => void) => {
  const stop = (): void => call.cancel();
  signal?.addEventListener('abort', stop, { once: true });
  return () => signal?.removeEventListener('abort', stop);
};

const grpcTransport = (address: string, options: GrpcOptions, own: ChannelOptions = {}): Transport => {
  const { tls, maxReceiveBytes = MESSAGE_BYTES, keepaliveMs = KEEPALIVE_MS } = options;
  const serverName = typeof tls === 'object' ? tls.serverName : undefined;
  const channel = new Channel(address, credentialsOf(tls), {
    'grpc.max_receive_message_length': maxReceiveBytes,
    'grpc.max_send_message_length': -1,
    'grpc.keepalive_time_ms': keepaliveMs,
    ...(serverName === undefined ? {} : { 'grpc.ssl_target_name_override': serverName }),
    ...own,
  });
  const prepare = ({ headers, timeoutMs, waits, signal }: Outgoing) => {
    if (signal?.aborted) throw cancelled(signal);
    const metadata = new Metadata({ waitForReady: waits });
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    return [metadata, timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs }] as const;
  };
  return {
    unary: async (method, request, outgoing) => {
      const bytes = Buffer.from(toBinary(method.input, request));
      const [metadata, callOptions] = prepare(outgoing);
      const read = (answer: Buffer): MessageShape<typeof method.output> => fromBinary(method.output, answer);
      return new Promise((resolve, reject) => {
        const call = channel.makeUnaryRequest(
          pathOf(method),
          given,
          read,
          bytes,
          metadata,
          callOptions,
          (error, answer) => {
            unfollow();
            if (error) reject(sidecarError(error, outgoing));
            else resolve(answer!);
          },
        );
        const unfollow = follow(outgoing.signal, call);
        call.on('status', ({ metadata: trailer }) => outgoing.onTrailer?.(headersOf(trailer)));
      });
    },
    async *stream(method, request, outgoing) {
      const bytes = Buffer.from(toBinary(method.input, request));
      const [metadata, callOptions] = prepare(outgoing);
      const read = (answer: Buffer): MessageShape<typeof method.output> => fromBinary(method.output, answer);
      const call = channel.makeServerStreamRequest(pathOf(method), given, read, bytes, metadata, callOptions);
      const unfollow = follow(outgoing.signal, call);
      // One that was left early ends with an error that nobody waits for.
      call.on('error', () => {});
      call.on('status', ({ metadata: trailer }) => outgoing.onTrailer?.(headersOf(trailer)));
      try {
        for await (const answer of call) yield answer;
      } catch (error) {
        throw sidecarError(error as ServiceError, outgoing);
      } finally {
        unfollow();
        call.cancel();
      }
    },
    fresh: () => grpcTransport(address, options, { 'grpc.use_local_subchannel_pool': 1 }),
    close: () => channel.close(),
  };
};

/**
 * A client over gRPC. It connects at its first call, and again by itself.
 *
 * @param address `host:port` or `unix:/path`; default: `POLICY_SIDECAR` of the environment, or 127.0.0.1:50051.
 */
export const connect = (
  address: string = process.env['POLICY_SIDECAR'] || ADDRESS,
  options: GrpcOptions = {},
): Client => Connection.over(grpcTransport(address, options), options);
