import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { create, type DescMethod, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { anyUnpack } from '@bufbuild/protobuf/wkt';
import { BadRequestSchema, ErrorInfoSchema } from '../../src/gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../../src/gen/google/rpc/status_pb.ts';

/** A message as gRPC and streams of Connect frame it. */
export const envelope = (message: Uint8Array, flags = 0): Buffer => {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
};

export const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`;

/** The framed request of a call. */
export const framed = <M extends DescMethod>(method: M, request: MessageInitShape<M['input']>): Buffer =>
  envelope(toBinary(method.input, create(method.input, request)));

/** A connection with prior knowledge of HTTP/2, without a client library that would mend what is sent. */
export const openH2 = (address: string, options: object = {}): ClientHttp2Session => {
  const session = connect(`http://${address}`, {
    strictFieldWhitespaceValidation: false,
    maxSessionMemory: 1_000,
    ...options,
  } as object);
  session.on('error', () => {});
  return session;
};

/** Sends a gRPC request without ending or reading anything. */
export const openCall = (session: ClientHttp2Session, path: string, headers: OutgoingHttpHeaders = {}) => {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    ...headers,
  });
  stream.on('error', () => {});
  return stream;
};

/** How a gRPC call over a raw connection ended. */
export interface RawAnswer {
  readonly status: number | undefined;
  readonly message: string;
  readonly reason: string | undefined;
  readonly fields: readonly string[];
  readonly bytes: Buffer;
}

/** Reads a call to its end; rejects when the stream ends without a status. */
export const answerOf = (stream: ClientHttp2Stream): Promise<RawAnswer> =>
  new Promise((resolve, reject) => {
    let found: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    stream.on('response', (headers) => {
      found = { ...found, ...headers };
    });
    stream.on('trailers', (headers) => {
      found = { ...found, ...headers };
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('close', () => {
      if (found['grpc-status'] === undefined) {
        reject(new Error(`no status, reset with ${stream.rstCode}`));
        return;
      }
      const details = found['grpc-status-details-bin'];
      const status = typeof details === 'string' ? fromBinary(StatusSchema, Buffer.from(details, 'base64')) : undefined;
      const detail = <T>(schema: typeof ErrorInfoSchema | typeof BadRequestSchema): T | undefined =>
        status?.details.map((any) => anyUnpack(any, schema as never)).find(Boolean) as T | undefined;
      resolve({
        status: Number(found['grpc-status']),
        message: String(found['grpc-message'] ?? ''),
        reason: detail<{ reason: string }>(ErrorInfoSchema)?.reason,
        fields: (detail<{ fieldViolations: { field: string }[] }>(BadRequestSchema)?.fieldViolations ?? []).map(
          ({ field }) => field,
        ),
        bytes: Buffer.concat(chunks),
      });
    });
  });

/** One gRPC call over a connection. */
export const rawCall = <M extends DescMethod>(
  session: ClientHttp2Session,
  method: M,
  request: MessageInitShape<M['input']>,
  headers: OutgoingHttpHeaders = {},
): Promise<RawAnswer> => {
  const stream = openCall(session, pathOf(method), headers);
  const answer = answerOf(stream);
  stream.end(framed(method, request));
  return answer;
};

/** Speaks to a port byte by byte. */
export const openTcp = (address: string): Socket => {
  const at = address.lastIndexOf(':');
  const socket = connectTcp(Number(address.slice(at + 1)), address.slice(0, at));
  socket.on('error', () => {});
  return socket;
};

/** An HTTP/1.1 request as bytes, so that headers are what is written here; the last of its connection, unless it is kept. */
export const http1Request = (path: string, headers: readonly string[], body: Uint8Array, kept = false): Buffer =>
  Buffer.concat([
    Buffer.from(
      [
        `POST ${path} HTTP/1.1`,
        'host: localhost',
        `connection: ${kept ? 'keep-alive' : 'close'}`,
        `content-length: ${body.length}`,
        ...headers,
        '',
        '',
      ].join('\r\n'),
      'latin1',
    ),
    body,
  ]);

/** Sends bytes and reads until the other side closes. */
export const exchange = (address: string, bytes: Uint8Array): Promise<string> =>
  new Promise((resolve) => {
    const socket = openTcp(address);
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('close', () => resolve(Buffer.concat(chunks).toString()));
    socket.write(bytes);
  });
