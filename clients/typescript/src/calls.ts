import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  getOption,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import { cancelled, SidecarError, TransactionEndedError } from './errors.ts';
import { access, MethodAccess } from './gen/hoc/cus/policies/v1/access_pb.ts';
import { beginning } from './opening.ts';
import { isUnanswered } from './outcome.ts';
import { goingOn, tokenOf } from './resume.ts';
import { Deadline, retrying } from './retry.ts';
import type { Caller, CallOptions, Documents } from './stubs.ts';
import type { Outgoing, Transport } from './transport.ts';

/** Deadline of a call that names none, milliseconds. */
const TIMEOUT_MS = 30_000;
/** How often a call is made that may be made again. */
const ATTEMPTS = 5;

/** What all calls of a client have in common. */
export interface ClientOptions {
  /** Bearer token of the caller. */
  readonly token?: string;
  /** Deadline of every call that sets none, milliseconds; default 30 s. Of a stream it is that of the first message. */
  readonly timeoutMs?: number;
  /** How documents, fields of the type Value, are told by every call that does not say; default: `values`. */
  readonly documents?: Documents;
  /** False to let a stream that is cut end with its error, where no call says otherwise; default: true, outside transactions. */
  readonly resume?: boolean;
}

/** How a call goes out, beside what its caller asks for. */
export interface Manner {
  readonly headers?: Readonly<Record<string, string>>;
  /** UUID among the headers by which one can ask whether the call took effect. */
  readonly idempotencyKey?: string;
  /** True where the call takes effect once however often it is made. */
  readonly repeatable?: boolean;
  /** False inside a transaction, which does not outlive its connection: no call waits for one, no stream goes on. Default: true. */
  readonly waits?: boolean;
}

/**
 * What may be repeated outside transactions: a key makes a write take effect once, whatever became of it before; a transaction
 * that has ended is none of the call's.
 */
const repeats = (error: SidecarError): boolean =>
  error.reason === 'COMMIT_OUTCOME_UNKNOWN' || (error.retriable && !(error instanceof TransactionEndedError));

const accessOf = (method: DescMethod): MethodAccess => getOption(method, access);

/** Makes the calls of one client: headers, deadlines, and another attempt where that is safe. */
export class Calls {
  readonly timeoutMs: number;
  readonly #closing = new AbortController();
  readonly #transport: Transport;
  readonly #options: ClientOptions;

  constructor(transport: Transport, options: ClientOptions) {
    this.#transport = transport;
    this.#options = options;
    this.timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  }

  /** The same by a connection of its own. */
  fresh(): Calls {
    return new Calls(this.#transport.fresh(), this.#options);
  }

  /** Ends what must not outlive the client. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  close(): void {
    this.#closing.abort(new Error('the client was closed'));
    this.#transport.close();
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
    manner: Manner = {},
  ): Promise<MessageShape<O>> {
    const { signal } = options;
    const deadline = new Deadline(options.timeoutMs ?? this.timeoutMs);
    const attempts = manner.repeatable ? ATTEMPTS : 1;
    const message = create(method.input, request);
    let unanswered = false;
    const attempt = async (): Promise<MessageShape<O>> => {
      try {
        return await this.#transport.unary(method, message, this.#outgoing(options, manner, deadline.leftMs));
      } catch (error) {
        unanswered ||= isUnanswered(error);
        throw error;
      }
    };
    try {
      return await retrying({ attempts, deadline, signal, promising: repeats }, attempt);
    } catch (error) {
      const { idempotencyKey } = manner;
      // A later attempt that was refused says nothing of an earlier one.
      throw unanswered && error instanceof SidecarError ? Object.assign(error, { idempotencyKey }) : error;
    }
  }

  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
    manner: Manner = {},
  ): AsyncIterable<MessageShape<O>> {
    const { resume = this.#options.resume ?? true, signal, timeoutMs } = options;
    const deadline = new Deadline(timeoutMs);
    const open = (message: MessageShape<I>): AsyncIterable<MessageShape<O>> =>
      beginning(timeoutMs ?? this.timeoutMs, signal, (ending) => {
        const outgoing = this.#outgoing({ ...options, signal: ending }, manner, deadline.leftMs);
        return this.#transport.stream(method, message, outgoing);
      });
    const message = create(method.input, request);
    return resume && manner.waits !== false && tokenOf(method.input)
      ? goingOn(method, message, open, { attempts: ATTEMPTS, deadline, signal })
      : open(message);
  }

  #outgoing(
    { signal, onTrailer, documents = this.#options.documents }: CallOptions,
    manner: Manner,
    timeoutMs: number | undefined,
  ): Outgoing {
    if (this.closing.aborted) throw cancelled(this.closing);
    const { token } = this.#options;
    const headers = {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(documents === undefined ? {} : { documents }),
      ...manner.headers,
    };
    return { headers, timeoutMs, signal, onTrailer, waits: manner.waits ?? true };
  }
}

/** Calls that belong to no transaction: reads, each on its own. */
export const outsideTransactions = (calls: Calls): Caller => {
  const mannerOf = (method: DescMethod, { consistency }: CallOptions): Manner => ({
    headers: consistency === undefined ? {} : { consistency },
    repeatable: accessOf(method) === MethodAccess.READ,
  });
  return {
    unary: async (method, request, options) => calls.unary(method, request, options, mannerOf(method, options)),
    stream: (method, request, options) => calls.stream(method, request, options, mannerOf(method, options)),
  };
};

/** How a call goes out that is its own transaction and takes effect once. */
export const singleUseManner = ({ idempotencyKey = crypto.randomUUID() }: CallOptions) => ({
  headers: { transaction: 'single-use', 'idempotency-key': idempotencyKey },
  idempotencyKey,
});

/** Calls of which each is its own transaction, committed with its answer. */
export const singleUse = (calls: Calls): Caller => {
  const mannerOf = (method: DescMethod, options: CallOptions): Manner => {
    const { headers, idempotencyKey } = singleUseManner(options);
    const { consistency } = options;
    const writes = accessOf(method) === MethodAccess.WRITE;
    return {
      headers: { ...headers, ...(consistency === undefined ? {} : { consistency }) },
      ...(writes ? { idempotencyKey } : {}),
      repeatable: writes || accessOf(method) === MethodAccess.READ,
    };
  };
  return {
    unary: async (method, request, options) => calls.unary(method, request, options, mannerOf(method, options)),
    stream: (method, request, options) => calls.stream(method, request, options, mannerOf(method, options)),
  };
};
