import { readFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import {
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Message,
  toJson,
} from '@bufbuild/protobuf';
import { durationMs } from '@bufbuild/protobuf/wkt';
import { ConnectError, type Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { isSocketOrPort } from '../address.ts';
import { codeName } from '../contract/reasons.ts';
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from '../gen/google/rpc/error_details_pb.ts';
import { ConfigError } from '../setting-forms.ts';
import type { Refusal, Reply } from './compare.ts';

/** Longest that one call may take, milliseconds. */
const CALL_MS = 30_000;

/** A sidecar, reached in one way. */
export interface Channel {
  /** How it is reached, for the report. */
  readonly name: string;
  readonly transport: Transport;
  close(): void;
}

/** Files of TLS, PEM. */
export interface TlsFiles {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

const read = (file: string): Buffer => {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new ConfigError((error as Error).message);
  }
};

const tlsOf = (files: TlsFiles): Readonly<Record<string, Buffer>> => {
  if ((files.cert === undefined) !== (files.key === undefined)) throw new ConfigError('--cert and --key go together');
  return Object.fromEntries(Object.entries(files).flatMap(([name, file]) => (file ? [[name, read(file)]] : [])));
};

/** gRPC at `host:port` or `unix:/path`; with an authority, over TLS. */
export const grpcChannel = (target: string, files: TlsFiles): Channel => {
  if (!isSocketOrPort(target)) throw new ConfigError(`--target ${target} must be host:port or unix:/path`);
  const path = target.startsWith('unix:') ? target.slice('unix:'.length) : undefined;
  const baseUrl = `http${files.ca ? 's' : ''}://${path === undefined ? target : 'localhost'}`;
  const options = path === undefined ? tlsOf(files) : { createConnection: () => connectSocket(path) };
  const sessionManager = new Http2SessionManager(baseUrl, {}, options);
  return {
    name: `gRPC ${target}`,
    transport: createGrpcTransport({ baseUrl, sessionManager }),
    close: () => sessionManager.abort(),
  };
};

/** Connect with JSON over HTTP/1.1. */
export const httpChannel = (url: string, files: TlsFiles): Channel => {
  if (!URL.canParse(url) || !/^https?:/.test(url)) throw new ConfigError(`--http ${url} must be an http or https URL`);
  const nodeOptions = url.startsWith('https:') ? tlsOf(files) : {};
  const transport = createConnectTransport({
    baseUrl: url.replace(/\/$/, ''),
    httpVersion: '1.1',
    useBinaryFormat: false,
    nodeOptions,
  });
  return { name: `HTTP ${url}`, transport, close: () => {} };
};

const refusalOf = (thrown: unknown): Refusal => {
  const error = ConnectError.from(thrown);
  const [info] = error.findDetails(ErrorInfoSchema);
  const [retry] = error.findDetails(RetryInfoSchema);
  return {
    code: codeName(error.code),
    message: error.rawMessage,
    reason: info?.reason,
    metadata: info?.metadata ?? {},
    fields: error.findDetails(BadRequestSchema).flatMap(({ fieldViolations }) => fieldViolations.map((f) => f.field)),
    retryAfterMs: retry?.retryDelay && durationMs(retry.retryDelay),
    preconditions: error.findDetails(PreconditionFailureSchema).flatMap(({ violations }) => violations).length,
  };
};

const jsonOf = (method: DescMethod, message: Message): JsonValue =>
  toJson(method.output, message, { alwaysEmitImplicit: true });

/** One call as it goes out. */
export interface Outgoing {
  readonly request: JsonObject;
  readonly headers: Readonly<Record<string, string>>;
  /** Of a stream: the messages after which it is left. */
  readonly take?: number | undefined;
  /** True to leave it open after that: it is ended by what {@link callRpc} returns. */
  readonly keep?: boolean;
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

/** Makes a call; a refusal is a reply. */
export const callRpc = async (
  { transport }: Channel,
  method: DescMethod,
  { request, headers, take, keep = false }: Outgoing,
): Promise<{ readonly reply: Reply; readonly leave: () => void }> => {
  const input = fromJson(method.input, request) as never;
  const stream = method.methodKind === 'server_streaming';
  const left = new AbortController();
  const leave = (): void => left.abort();
  const messages: JsonValue[] = [];
  try {
    if (stream) {
      const streaming = method as DescMethodServerStreaming;
      const timeoutMs = keep ? undefined : CALL_MS;
      const answer = await transport.stream(streaming, left.signal, timeoutMs, { ...headers }, once(input));
      const iterator = answer.message[Symbol.asyncIterator]();
      for (;;) {
        const { value, done } = await iterator.next();
        if (done) break;
        messages.push(jsonOf(method, value));
        if (messages.length === take) break;
      }
    } else {
      const { message } = await transport.unary(method as DescMethodUnary, left.signal, CALL_MS, { ...headers }, input);
      messages.push(jsonOf(method, message));
    }
  } catch (error) {
    return { reply: { messages, stream, refusal: refusalOf(error) }, leave };
  }
  if (!keep) leave();
  return { reply: { messages, stream }, leave };
};
