import type { ServerHttp2Stream } from 'node:http2';
import type { Message } from '@bufbuild/protobuf';
import { type ServerInterceptingCallInterface, status } from '@grpc/grpc-js';
import { type RpcError, refuse } from '../contract/errors.ts';
import { CallNotes } from '../database/notes.ts';
import type { Due } from '../database/overdue.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { CallEnd } from './deadline.ts';
import { decodeBinary, malformed } from './decode.ts';
import { GrpcAnswer } from './grpc-answer.ts';
import { type Frames, turnAway } from './grpc-wire.ts';
import { grpcTimeoutMs, takesTexts } from './headers.ts';
import type { Admitted, Inbound } from './inbound.ts';
import type { Pipeline } from './pipeline.ts';

/** What the library tells of a call. */
type Reader = Parameters<ServerInterceptingCallInterface['start']>[0];

/** How a call ends. */
type Status = Parameters<ServerInterceptingCallInterface['sendStatus']>[0];

/** What the library would end a call with whose request it cannot read: it blames the server for bytes that do not unfold. */
const unreadable = ({ code, details }: Status): RpcError =>
  code === status.RESOURCE_EXHAUSTED
    ? refuse('REQUEST_TOO_LARGE', details ?? '')
    : malformed('a message cannot be decompressed');

/** What of the library's calls is no part of their interface. */
interface LibraryCall extends ServerInterceptingCallInterface {
  readonly listener: unknown;
}

const asked = new WeakSet<object>();

/**
 * What the library says to a call by itself has no metadata, and so no reason, and no line in the log: the call is asked
 * first. All calls of a kind are, since a function that is made for each would grow old with it.
 */
const askedFirst = (call: ServerInterceptingCallInterface): void => {
  const kind: ServerInterceptingCallInterface = Object.getPrototypeOf(call);
  if (asked.has(kind)) return;
  asked.add(kind);
  const { sendStatus } = kind;
  kind.sendStatus = function (this: LibraryCall, status) {
    if (!status.metadata && this.listener instanceof GrpcCall) this.listener.onUnreadable(status);
    else sendStatus.call(this, status);
  };
};

const miscounted = (number: string): RpcError =>
  refuse('UNSUPPORTED_REQUEST', `a call of this method has one request message, and this one has ${number}`);

/** How a call arrives. */
interface Arriving {
  /** By the clock of `performance.now()`. */
  readonly arrivedAt: number;
  /** Those of its body, as far as it has come. */
  readonly frames: Frames;
}

/** A call that was let in: the library reads its request, the pipeline runs it, and {@link GrpcAnswer} answers it. */
export class GrpcCall implements Reader {
  readonly #pipeline: Pipeline;
  readonly #admitted: Admitted;
  readonly #stream: ServerHttp2Stream;
  readonly #arrivedAt: number;
  readonly #frames: Frames;
  /** How long its caller waits, milliseconds, from when it arrived. */
  readonly timeoutMs: number | undefined;
  /** Its request is not to take too long. */
  arriving: Due | undefined;
  /** The call as the library has it; from when that has taken it over. */
  #call!: ServerInterceptingCallInterface;
  #request: Buffer | undefined;
  #problem: RpcError | undefined;
  #end: CallEnd | undefined;
  #answer: GrpcAnswer | undefined;
  /** Waits for the next of several requests; it is undefined when there is none. */
  #take: ((request: Buffer | undefined) => void) | undefined;
  #isDropped = false;

  constructor(pipeline: Pipeline, admitted: Admitted, stream: ServerHttp2Stream, { arrivedAt, frames }: Arriving) {
    this.#arrivedAt = arrivedAt;
    this.#frames = frames;
    this.#pipeline = pipeline;
    this.#admitted = admitted;
    this.#stream = stream;
    this.timeoutMs = grpcTimeoutMs(admitted);
  }

  /** Takes the call over from the library's own handler. */
  start(call: ServerInterceptingCallInterface): void {
    this.#call = call;
    askedFirst(call);
    call.start(this);
  }

  /** Refuses it before it runs. */
  giveUp(error: unknown): void {
    if (this.#isDropped) return;
    this.drop();
    turnAway(this.#stream, this.#pipeline.refuse(this.#admitted, toRpcError(error)));
  }

  /** It has been answered, or its stream has closed: nothing of it is run any more. */
  drop(): void {
    this.#isDropped = true;
    this.arriving?.leave();
    this.#answer?.drop();
  }

  onReceiveMetadata(): void {
    if (this.#admitted.endpoint.method.methodKind === 'bidi_streaming') this.#runMany();
    else this.#call.startRead();
  }

  onReceiveMessage(request: Buffer): void {
    if (this.#take) {
      this.#take(request);
      return;
    }
    if (this.#request) this.#problem = miscounted('several');
    this.#request = request;
    this.#call.startRead();
  }

  onReceiveHalfClose(): void {
    this.arriving?.leave();
    this.#problem ??= this.#frames.problem;
    if (this.#take) this.#take(undefined);
    else if (!this.#isDropped) this.#runOne();
  }

  onCancel(): void {
    this.#end?.leave();
    this.#take?.(undefined);
  }

  /** The library would end it with that. */
  onUnreadable(status: Status): void {
    const problem = unreadable(status);
    if (!this.#end) {
      this.giveUp(problem);
      return;
    }
    this.#problem = problem;
    this.#take?.(undefined);
  }

  #runOne(): void {
    const { inbound, answer } = this.#receive();
    const decode = (): Message => {
      if (this.#problem) throw this.#problem;
      if (!this.#request) throw miscounted('none');
      return decodeBinary(inbound.endpoint.method.input, this.#request);
    };
    if (inbound.endpoint.method.methodKind === 'unary') void answer.one(this.#pipeline.unary(inbound, decode));
    else void answer.many(this.#pipeline.stream(inbound, decode));
  }

  #runMany(): void {
    const { inbound, answer } = this.#receive();
    void answer.many(this.#pipeline.duplex(inbound, this.#requests()));
  }

  /** Read one at a time, as they are asked for. */
  async *#requests(): AsyncGenerator<Message> {
    for (;;) {
      const request = await new Promise<Buffer | undefined>((resolve) => {
        this.#take = resolve;
        if (this.#problem) resolve(undefined);
        else this.#call.startRead();
      });
      if (this.#problem) throw this.#problem;
      if (!request) return;
      yield decodeBinary(this.#admitted.endpoint.method.input, request);
    }
  }

  /** The call as the pipeline sees it, and the way back. */
  #receive(): { inbound: Inbound; answer: GrpcAnswer } {
    const { endpoint } = this.#admitted;
    const elapsedMs = performance.now() - this.#arrivedAt;
    const remainingMs = this.timeoutMs === undefined ? undefined : this.timeoutMs - elapsedMs;
    const signal = new CallEnd(remainingMs, this.#pipeline.longest(endpoint));
    this.#end = signal;
    const inbound: Inbound = {
      ...this.#admitted,
      watched: true,
      signal,
      notes: new CallNotes(takesTexts(this.#admitted)),
      size: this.#pipeline.sizeOf(endpoint),
      encoded: true,
    };
    const answer = new GrpcAnswer(this.#call, this.#stream, inbound, signal);
    this.#answer = answer;
    // Whatever it is that goes on: its caller waits no longer.
    if (remainingMs !== undefined) signal.addEventListener('abort', () => answer.fail(signal.reason));
    return { inbound, answer };
  }
}
