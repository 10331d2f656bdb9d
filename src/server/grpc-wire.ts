import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { type RpcError, refuse } from '../contract/errors.ts';
import { malformed } from './decode.ts';

/** What stands at the end of base64 that is padded; gRPC's has none. */
export const PADDING = /=+$/;

/** What the library says and the specification does not: padding, and a text where all went well. */
const specified = (headers: OutgoingHttpHeaders): OutgoingHttpHeaders => {
  if (headers['grpc-status'] === 0) delete headers['grpc-message'];
  for (const name in headers) {
    if (!name.endsWith('-bin')) continue;
    const value = headers[name];
    headers[name] = Array.isArray(value)
      ? value.map((each) => each.replace(PADDING, ''))
      : String(value).replace(PADDING, '');
  }
  return headers;
};

/** Makes a stream send what the library hands to it as gRPC's specification has it. */
export const settleAnswer = (stream: ServerHttp2Stream): void => {
  const { respond, sendTrailers } = stream;
  stream.respond = (headers, options) =>
    respond.call(stream, headers && specified(headers as OutgoingHttpHeaders), options);
  stream.sendTrailers = (headers) => sendTrailers.call(stream, specified(headers));
};

/** Messages in protobuf; what else there may be is not read on this port. */
const CONTENT_TYPE = /^application\/grpc(?:\+proto)?(?:;|$)/;

/** Answers, as HTTP does, what is no call of gRPC. */
export const refusedBefore = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders): boolean => {
  const status = headers[':method'] !== 'POST' ? 405 : CONTENT_TYPE.test(headers['content-type'] ?? '') ? 200 : 415;
  if (status === 200) return false;
  stream.respond({ ':status': status }, { endStream: true });
  stream.resume();
  return true;
};

const ENCODINGS: ReadonlySet<string | undefined> = new Set([undefined, 'identity', 'gzip', 'deflate']);

/** Why a request that is compressed so cannot be read. */
export const compressionProblem = (encoding: string | undefined): RpcError | undefined =>
  ENCODINGS.has(encoding)
    ? undefined
    : refuse('UNSUPPORTED_REQUEST', 'grpc-encoding must be `identity`, `gzip` or `deflate`');

/**
 * Looks at the flag of a message, its first byte.
 *
 * @throws INVALID_ARGUMENT when it says that the message is compressed, and the headers have not said how.
 */
export const unannounced = (start: Buffer, encoding: string | undefined): void => {
  if (start[0] === 1 && (encoding === undefined || encoding === 'identity')) {
    throw malformed('a message is compressed, and `grpc-encoding` does not say how');
  }
};
