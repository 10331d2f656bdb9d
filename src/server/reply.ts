import { type DescMessage, type Message, toBinary } from '@bufbuild/protobuf';
import { tellDocuments } from '../contract/document-texts.ts';
import type { Said } from '../database/notes.ts';
import type { Inbound } from './inbound.ts';

/** A response: a message, or the bytes of one. */
export type Reply = Message | Buffer;

/** The bytes of a response. */
export const replyBytes = (output: DescMessage, response: Reply): Uint8Array =>
  Buffer.isBuffer(response) ? response : toBinary(output, response);

/** A response that is not too large; as bytes, which the measuring has made, where the listener takes them. */
export const measured = ({ endpoint, size, encoded }: Inbound, response: Reply): Reply => {
  if (size.limit === Number.POSITIVE_INFINITY) return response;
  const bytes = replyBytes(endpoint.method.output, response);
  size.hold(bytes.byteLength);
  if (!encoded || Buffer.isBuffer(bytes)) return response;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
};

/** A response as its caller takes documents; bytes that rows have become say them so already. */
export const told = ({ endpoint, notes }: Inbound, response: Reply): Reply =>
  notes.documentTexts && !Buffer.isBuffer(response) ? tellDocuments(endpoint.method.output, response) : response;

/** Responses as their caller takes documents. */
export async function* toldEach(
  inbound: Inbound,
  batches: AsyncIterable<readonly Reply[]>,
): AsyncGenerator<readonly Reply[]> {
  for await (const batch of batches) yield batch.map((response) => told(inbound, response));
}

/** Trailer that names the values of an answer that no field holds exactly. */
export const INEXACT = 'inexact-values';

/** Trailer of what has been committed: the `consistency` of reads that must see it. */
export const CONSISTENCY_TOKEN = 'consistency-token';

/** What an answer or a stream ends with beside its status. */
export const trailersOf = ({ notes: { text, mark, trailers } }: Inbound): Said =>
  text === undefined && mark === undefined
    ? trailers
    : [
        ...(text === undefined ? [] : [[INEXACT, text] as const]),
        ...(mark === undefined ? [] : [[CONSISTENCY_TOKEN, mark] as const]),
        ...trailers,
      ];
