/** Other ways for scenarios to reach a sidecar than those of the command `contract`: grpc-js, and grpcurl. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import {
  createRegistry,
  type DescMessage,
  type DescMethod,
  fromBinary,
  fromJsonString,
  type JsonObject,
  type JsonValue,
  type Message,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { type Any, FieldMaskSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, type Transport } from '@connectrpc/connect';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { file_google_rpc_error_details } from '../../src/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.ts';
import type { Channel } from '../../src/scenarios/channel.ts';

/** Makes a call; one with one answer is a stream of one. */
type Call = (
  method: DescMethod,
  request: Message,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
) => AsyncIterable<Message>;

const channelOf = (name: string, call: Call, close: () => void): Channel => {
  const around = (method: DescMethod) => ({
    header: new Headers(),
    trailer: new Headers(),
    service: method.parent,
    method,
  });
  const transport = {
    unary: async (
      method: DescMethod,
      signal: AbortSignal,
      _ms: number,
      headers: Record<string, string>,
      input: Message,
    ) => {
      for await (const message of call(method, input, headers, signal)) {
        return { ...around(method), stream: false, message };
      }
      throw new ConnectError('there was no answer', Code.Internal);
    },
    stream: async (
      method: DescMethod,
      signal: AbortSignal,
      _ms: number,
      headers: Record<string, string>,
      input: AsyncIterable<Message>,
    ) => {
      for await (const request of input) {
        return { ...around(method), stream: true, message: call(method, request, headers, signal) };
      }
      throw new ConnectError('there was no request', Code.Internal);
    },
  };
  return { name, transport: transport as unknown as Transport, close };
};

const refused = (code: number, message: string, details: readonly Any[]): ConnectError => {
  const error = new ConnectError(message, code as Code);
  error.details = details.map(({ typeUrl, value }) => ({ type: typeUrl.split('/').at(-1)!, value }));
  return error;
};

const pathOf = ({ parent, name }: DescMethod): string => `${parent.typeName}/${name}`;

/** gRPC by grpc-js. */
export const grpcJsChannel = (address: string): Channel => {
  const client = new Client(address, credentials.createInsecure());
  const call: Call = async function* (method, request, headers, signal) {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
    const write = (message: Message): Buffer => Buffer.from(toBinary(method.input, message));
    const read = (bytes: Buffer): Message => fromBinary(method.output as DescMessage, bytes);
    const answers = client.makeServerStreamRequest(`/${pathOf(method)}`, write, read, request, metadata);
    // One that was left ends with an error that nobody waits for.
    answers.on('error', () => {});
    signal?.addEventListener('abort', () => answers.cancel(), { once: true });
    try {
      yield* answers;
    } catch (thrown) {
      const { code, details, metadata: trailer } = thrown as ServiceError;
      const [bytes] = trailer?.get('grpc-status-details-bin') ?? [];
      throw refused(code, details, bytes === undefined ? [] : fromBinary(StatusSchema, bytes as Buffer).details);
    }
  };
  return channelOf(`grpc-js ${address}`, call, () => client.close());
};

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const registry = createRegistry(file_google_rpc_error_details);

/** JSON that grpcurl takes, to which a mask is a message like any other. */
const grpcurlJson = (schema: DescMessage, message: Message): JsonValue => {
  const json = toJson(schema, message) as JsonObject;
  for (const { message: type, jsonName } of schema.fields) {
    const mask = type?.typeName === FieldMaskSchema.typeName ? json[jsonName] : undefined;
    if (typeof mask === 'string') json[jsonName] = { paths: mask.split(',').map(snakeCase) };
  }
  return json;
};

/** gRPC by the program grpcurl, which knows the contract by reflection alone. */
export const grpcurlChannel = (program: string, address: string): Channel => {
  const call: Call = async function* (method, request, headers, signal) {
    const named = Object.entries(headers).flatMap(([name, value]) => ['-rpc-header', `${name}: ${value}`]);
    const json = JSON.stringify(grpcurlJson(method.input, request));
    const child = spawn(program, ['-plaintext', '-format-error', ...named, '-d', json, address, pathOf(method)], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const [ended, said] = [once(child, 'close'), text(child.stderr)];
    signal?.addEventListener('abort', () => child.kill(), { once: true });
    let message = '';
    for await (const line of createInterface(child.stdout)) {
      message += line;
      // A message ends where its outermost brace does, alone or at once.
      if (line !== '}' && line !== '{}') continue;
      yield fromJsonString(method.output as DescMessage, message);
      message = '';
    }
    const [code] = await ended;
    if (code === 0 || signal?.aborted) return;
    const status = fromJsonString(StatusSchema, await said, { registry });
    throw refused(status.code, status.message, status.details);
  };
  return channelOf(`grpcurl ${address}`, call, () => {});
};
