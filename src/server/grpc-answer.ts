import type { ServerHttp2Stream } from 'node:http2';
import { Metadata, type ServerInterceptingCallInterface, status } from '@grpc/grpc-js';
import type { Said } from '../database/notes.ts';
import { toRpcError } from '../database/sqlstate.ts';
import type { CallEnd } from './deadline.ts';
import { framed } from './frames.ts';
import type { Inbound } from './inbound.ts';
import { type Reply, replyBytes, trailersOf } from './reply.ts';
import { statusBytes, wellFormed } from './status.ts';

const metadataOf = (said: Said): Metadata => {
  const metadata = new Metadata();
  for (const [name, value] of said) metadata.add(name, name.endsWith('-bin') ? Buffer.from(value, 'base64') : value);
  return metadata;
};

/** Of an answer beside which nothing is said; the library does not change it. */
const NOTHING = new Metadata();

const metadataOrNothing = (said: Said): Metadata => (said.length === 0 ? NOTHING : metadataOf(said));

/** The way back of a call: the library begins and ends an answer, and what lies in between goes to the stream itself. */
export class GrpcAnswer {
  readonly #call: ServerInterceptingCallInterface;
  readonly #stream: ServerHttp2Stream;
  readonly #inbound: Inbound;
  readonly #end: CallEnd;
  #begun = false;
  #ended = false;

  constructor(call: ServerInterceptingCallInterface, stream: ServerHttp2Stream, inbound: Inbound, end: CallEnd) {
    this.#call = call;
    this.#stream = stream;
    this.#inbound = inbound;
    this.#end = end;
  }

  /** Answers with one response. */
  async one(response: Promise<Reply>): Promise<void> {
    try {
      const bytes = replyBytes(this.#inbound.endpoint.method.output, await response);
      if (!this.#isOpen) return;
      this.#begin();
      const [frame] = framed([bytes]);
      // What is written through the stream has gone out before its end is known, and the end goes after it alone.
      this.#stream._write(frame, 'buffer' as BufferEncoding, () => {});
      this.#succeed();
    } catch (error) {
      this.fail(error);
    } finally {
      this.#end.done();
    }
  }

  /** Answers with many, as fast as the reader reads. */
  async many(responses: AsyncIterable<readonly Reply[]>): Promise<void> {
    const { output } = this.#inbound.endpoint.method;
    const end = this.#end;
    try {
      for await (const batch of responses) {
        if (!this.#isOpen) return;
        this.#begin();
        for (const piece of framed(batch.map((response) => replyBytes(output, response)))) {
          end.throwIfAborted();
          if (!this.#isOpen) return;
          if (!this.#stream.write(piece)) await this.#drained();
        }
        end.throwIfAborted();
      }
      end.throwIfAborted();
      this.#succeed();
    } catch (error) {
      this.fail(end.aborted ? end.reason : error);
    } finally {
      end.done();
    }
  }

  /** Ends a call with an error, unless it has ended. */
  fail(cause: unknown): void {
    if (this.#ended) return;
    this.#ended = true;
    const error = toRpcError(cause);
    const metadata = metadataOf(trailersOf(this.#inbound));
    metadata.set('grpc-status-details-bin', Buffer.from(statusBytes(error)));
    this.#beginAlone();
    this.#call.sendStatus({ code: error.code as number, details: wellFormed(error.message), metadata });
  }

  /** Somebody else has answered. */
  drop(): void {
    this.#ended = true;
  }

  #succeed(): void {
    if (this.#ended) return;
    // What cannot be said is an error, and an answer that has ended could no longer be one.
    const metadata = metadataOrNothing(trailersOf(this.#inbound));
    this.#beginAlone();
    this.#ended = true;
    this.#call.sendStatus({ code: status.OK, details: '', metadata });
  }

  /** Whether it can be written to: its deadline, its caller or the library may have ended it. */
  get #isOpen(): boolean {
    return !(this.#ended || this.#stream.destroyed || this.#stream.writableEnded);
  }

  /** Begins an answer that has a message. */
  #begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    this.#call.sendMetadata(metadataOrNothing(this.#inbound.notes.headers));
  }

  /** What goes before an answer goes before one of nothing but its end, too. */
  #beginAlone(): void {
    if (this.#inbound.notes.headers.length > 0) this.#begin();
  }

  /** Waits until the reader has read; or until the call is over. */
  #drained(): Promise<void> {
    return new Promise((resolve) => {
      const go = (): void => {
        this.#stream.removeListener('drain', go);
        this.#end.removeEventListener('abort', go);
        resolve();
      };
      this.#stream.on('drain', go);
      this.#end.addEventListener('abort', go);
    });
  }
}
