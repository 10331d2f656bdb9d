import type { ServerHttp2Stream } from 'node:http2';
import { Metadata, type ServerDuplexStream, type ServerWritableStream, type StatusObject } from '@grpc/grpc-js';
import type { RpcError } from '../contract/errors.ts';
import type { Said } from '../database/notes.ts';
import { toRpcError } from '../database/sqlstate.ts';
import type { CallEnd } from './deadline.ts';
import { framed } from './frames.ts';
import { type Inbound, type Reply, replyBytes, trailersOf } from './pipeline.ts';
import { statusBytes, wellFormed } from './status.ts';

const metadataOf = (said: Said): Metadata => {
  const metadata = new Metadata();
  for (const [name, value] of said) metadata.add(name, name.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  return metadata;
};

/** What an answer begins with. */
const headerOf = ({ notes }: Inbound): Metadata | undefined =>
  notes.headers.length === 0 ? undefined : metadataOf(notes.headers);

/** What an answer or a stream ends with. */
const trailerOf = (inbound: Inbound): Metadata | undefined => {
  const trailers = trailersOf(inbound);
  return trailers.length === 0 ? undefined : metadataOf(trailers);
};

/** An error as the library sends it. */
const asStatus = (error: RpcError, metadata = new Metadata()): Partial<StatusObject> => {
  metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(error)));
  return { code: error.code as number, details: wellFormed(error.message), metadata };
};

/** Waits until the reader has read; or until the call is over. */
const drained = (stream: ServerHttp2Stream, end: CallEnd): Promise<void> =>
  new Promise((resolve) => {
    const go = (): void => {
      stream.removeListener('drain', go);
      end.removeEventListener('abort', go);
      resolve();
    };
    stream.on('drain', go);
    end.addEventListener('abort', go);
  });

type Call = ServerWritableStream<Buffer, Reply> | ServerDuplexStream<Buffer, Reply>;

/** Of an answer before which nothing is said. */
const NOTHING = new Metadata();

/** Begins an answer that has a message. */
const begin = (call: Call, inbound: Inbound): void => call.sendMetadata(headerOf(inbound) ?? NOTHING);

/** What goes before an answer goes before one of nothing but its end, too; the library says it once. */
const beginAlone = (call: Call, inbound: Inbound): void => {
  const header = headerOf(inbound);
  if (header) call.sendMetadata(header);
};

/** Ends a call with an error. */
const fail = (call: Call, error: unknown, inbound: Inbound): void => {
  beginAlone(call, inbound);
  call.emit('error', asStatus(toRpcError(error), trailerOf(inbound)));
};

/** Answers with one response. The library begins and ends the answer; what lies in between goes to the stream itself. */
export const answer = async (
  response: Promise<Reply>,
  call: Call,
  stream: ServerHttp2Stream,
  inbound: Inbound,
  end: CallEnd,
): Promise<void> => {
  try {
    const bytes = replyBytes(inbound.endpoint.method.output, await response);
    // The library has ended it, at its deadline.
    if (stream.destroyed || stream.writableEnded) return;
    begin(call, inbound);
    for (const piece of framed([bytes])) stream.write(piece);
    call.end(trailerOf(inbound));
  } catch (error) {
    fail(call, error, inbound);
  } finally {
    end.done();
  }
};

/** Answers with many as {@link answer} does with one, as fast as the reader reads. */
export const pump = async (
  responses: AsyncIterable<readonly Reply[]>,
  call: Call,
  stream: ServerHttp2Stream,
  inbound: Inbound,
  end: CallEnd,
): Promise<void> => {
  const { output } = inbound.endpoint.method;
  let begun = false;
  try {
    for await (const batch of responses) {
      if (!begun) begin(call, inbound);
      begun = true;
      for (const piece of framed(batch.map((response) => replyBytes(output, response)))) {
        end.throwIfAborted();
        if (!stream.write(piece)) await drained(stream, end);
      }
      end.throwIfAborted();
    }
    end.throwIfAborted();
    beginAlone(call, inbound);
    call.end(trailerOf(inbound));
  } catch (error) {
    fail(call, end.aborted ? end.reason : error, inbound);
  } finally {
    end.done();
  }
};
