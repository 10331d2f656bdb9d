import { type DescMessage, fromBinary, fromJsonString, type Message } from '@bufbuild/protobuf';
import { type RpcError, refuse } from '../contract/errors.ts';
import { countElements } from './elements.ts';
import { strictJson } from './json.ts';

/** A body that is no message of its type. */
export const malformed = (message: string, cause?: unknown): RpcError =>
  refuse('MALFORMED_REQUEST', message, { cause });

/**
 * Reads a request in the binary form.
 *
 * @throws INVALID_ARGUMENT when it is none, RESOURCE_EXHAUSTED when it would cost too much to read.
 */
export const decodeBinary = (desc: DescMessage, bytes: Uint8Array): Message => {
  countElements(desc, bytes);
  try {
    return fromBinary(desc, bytes);
  } catch (error) {
    throw malformed('the request is not a valid message', error);
  }
};

/**
 * Reads a request in JSON. An unknown field or enum name, dropped in silence, would become the default: both are refused.
 *
 * @throws INVALID_ARGUMENT when it is none or a value would not be taken as it is written, RESOURCE_EXHAUSTED when it
 * would cost too much to read.
 */
export const decodeJson = (desc: DescMessage, text: string): Message => {
  const strict = strictJson(desc, text);
  try {
    return fromJsonString(desc, strict, { ignoreUnknownFields: false });
  } catch (error) {
    // The log has no cause: the message may quote what was sent.
    throw malformed((error as Error).message);
  }
};
