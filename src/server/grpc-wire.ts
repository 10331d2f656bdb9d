import { constants, type IncomingHttpHeaders, type OutgoingHttpHeaders, type ServerHttp2Stream } from 'node:http2';
import { type RpcError, refuse } from '../contract/errors.ts';
import { PREFIX } from '../statements/grpc-frame.ts';
import { malformed } from './decode.ts';
import { statusBytes, wellFormed } from './status.ts';

/** What stands at the end of base64 that is padded; gRPC's has none. */
const PADDING = /=+$/;

/** Said by the library with every answer, and meant where nothing is said. */
const UNSAID: ReadonlySet<string> = new Set(['grpc-encoding', 'grpc-accept-encoding']);

const unpadded = (value: unknown): string | string[] =>
  Array.isArray(value) ? value.map((each) => String(each).replace(PADDING, '')) : String(value).replace(PADDING, '');

/** What the library says, as the specification has it: without padding, and without a text where all went well. */
const specified = (headers: OutgoingHttpHeaders): OutgoingHttpHeaders => {
  const settled: OutgoingHttpHeaders = {};
  for (const name in headers) {
    if (UNSAID.has(name) || (name === 'grpc-message' && headers['grpc-status'] === 0)) continue;
    settled[name] = name.endsWith('-bin') ? unpadded(headers[name]) : headers[name];
  }
  return settled;
};

type Prototype = Pick<ServerHttp2Stream, 'respond' | 'sendTrailers'>;

const respond: Prototype['respond'] = function (this: ServerHttp2Stream, headers, options) {
  const { respond: asNode } = Object.getPrototypeOf(this) as Prototype;
  asNode.call(this, headers && specified(headers as OutgoingHttpHeaders), options);
};

/** What is to be done in the next turn, as Node keeps it. */
type PutOff = NodeJS.Immediate & { readonly _idlePrev?: PutOff | null; readonly _argv?: readonly unknown[] };

const nothing = (): void => {};

/** What Node calls that which sends trailers. */
const SENDS_TRAILERS = 'finishSendTrailers';

/**
 * Node puts trailers off to the next turn, where they take another turn and a write of their own: for whoever reads them, too.
 * Sent at once, the end of an answer goes out with its message. What has been put off last stands before whatever is put off
 * now; a Node that keeps it in another way sends it as late as it did.
 */
const sendNow = (stream: ServerHttp2Stream): void => {
  const next = setImmediate(nothing) as PutOff;
  const last = next._idlePrev;
  clearImmediate(next);
  if (!last?._argv) return;
  const { _onImmediate: send, _argv: args } = last;
  if (send?.name !== SENDS_TRAILERS || args[0] !== stream) return;
  clearImmediate(last);
  send(...args);
};

const sendTrailers: Prototype['sendTrailers'] = function (this: ServerHttp2Stream, headers) {
  const { sendTrailers: asNode } = Object.getPrototypeOf(this) as Prototype;
  asNode.call(this, specified(headers));
  sendNow(this);
};

/** Makes a stream send what the library hands to it as gRPC's specification has it. */
export const settleAnswer = (stream: ServerHttp2Stream): void => {
  stream.respond = respond;
  stream.sendTrailers = sendTrailers;
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

/** Follows the body of a request from frame to frame. */
export class Frames {
  readonly #isCompressible: boolean;
  /** Bytes of the frame's prefix that have come, and of its message that have not. */
  #prefix = 0;
  #left = 0;

  /** @param encoding how the headers say that messages are compressed. */
  constructor(encoding: string | undefined) {
    this.#isCompressible = encoding !== undefined && encoding !== 'identity';
  }

  /**
   * Takes the next piece.
   *
   * @throws INVALID_ARGUMENT when a message is compressed, and the headers have not said how.
   */
  take(piece: Buffer): void {
    for (let at = 0; at < piece.length; ) {
      if (this.#prefix === PREFIX) {
        const taken = Math.min(this.#left, piece.length - at);
        this.#left -= taken;
        at += taken;
      } else {
        const byte = piece[at]!;
        if (this.#prefix > 0) this.#left = this.#left * 256 + byte;
        else if (byte === 1 && !this.#isCompressible) {
          throw malformed('a message is compressed, and `grpc-encoding` does not say how');
        }
        this.#prefix += 1;
        at += 1;
      }
      if (this.#prefix === PREFIX && this.#left === 0) this.#prefix = 0;
    }
  }

  /** Why a body that ends here cannot be read; undefined where it ends with a message. */
  get problem(): RpcError | undefined {
    return this.#prefix > 0 ? malformed('the request ends in the middle of a message') : undefined;
  }
}

/** Answers a call whose body is not wanted. */
export const turnAway = (stream: ServerHttp2Stream, error: RpcError): void => {
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
      'grpc-accept-encoding': 'identity,deflate,gzip',
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
