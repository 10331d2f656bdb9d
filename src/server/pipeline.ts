import { create, type Message } from '@bufbuild/protobuf';
import { readDocuments } from '../contract/document-texts.ts';
import { invalidArgument, type RpcError, refuse } from '../contract/errors.ts';
import { ResponseSize } from '../contract/response-size.ts';
import type { Database } from '../database/pool.ts';
import type { Replicas } from '../database/replicas.ts';
import { AutoCommitSession, type Session, type StreamingSession } from '../database/session.ts';
import { toRpcError } from '../database/sqlstate.ts';
import { READ_COMMITTED } from '../database/transaction-mode.ts';
import type { SeenCall, Telemetry } from '../telemetry/telemetry.ts';
import type { TransactionRegistry } from '../transactions/registry.ts';
import { inImplicit, inOwn } from '../transactions/single-use.ts';
import { type CallLog, logCall } from './call-log.ts';
import { elementBudget } from './elements.ts';
import { answered, type ControlEndpoint, type DriverEndpoint, type Endpoint, rowCountOf } from './endpoint.ts';
import type { Guards } from './guards.ts';
import { wantedOf } from './headers.ts';
import type { Identity } from './identity.ts';
import type { Admitted, Arrival, Inbound } from './inbound.ts';
import { keyed, onceInOwn, onceInTransaction } from './repeats.ts';
import { measured, type Reply, told, toldEach } from './reply.ts';
import { readScope, type Scope, takesKey } from './scope.ts';

/** What a write is told that says nothing of a transaction. */
const REQUIRED = 'a write needs a `transaction` header: the id of an open transaction, or `single-use`';

/** What the log line of a call says besides its outcome. */
interface Entry<C = Inbound> {
  readonly inbound: C;
  readonly startedAt: number;
  /** Undefined where nobody watches. */
  readonly seen: SeenCall | undefined;
  /** Transaction that a control RPC names in its request or begins. */
  transaction?: string | undefined;
  request?: Message;
  response?: Reply;
  /** Rows of the statements of a driver's RPC that ran. */
  rows?: bigint;
}

/** The transaction that a request of `TransactionService` names, or that its response brings. */
const transactionOf = (message: Message): string | undefined => {
  const { transactionId, transaction } = message as { transactionId?: string; transaction?: { id?: string } };
  return transactionId || transaction?.id;
};

/** What a pipeline stands on. */
export interface PipelineParts {
  readonly database: Database;
  readonly replicas: Replicas | undefined;
  readonly transactions: TransactionRegistry;
  readonly identity: Identity;
  readonly guards: Guards;
  readonly calls: CallLog;
  /** Undefined where nobody watches. */
  readonly telemetry: Telemetry | undefined;
  /** How long a call with one response may take that has no deadline, milliseconds. */
  readonly callTimeoutMs: number;
  /** How many bytes that response may have. */
  readonly maxResponseBytes: number;
}

/** The one way through: identity, validation, transaction, handler, errors, log. */
export class Pipeline {
  readonly #parts: PipelineParts;
  #isOpen = false;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
  }

  /** From now on calls are let in that need the database, which has turned out to be as it must be. */
  open(): void {
    this.#isOpen = true;
  }

  /** How long a call may take whose caller sets no deadline, milliseconds. A stream lasts as long as its lease. */
  longest({ method }: Endpoint): number {
    return method.methodKind === 'unary' ? this.#parts.callTimeoutMs : Number.POSITIVE_INFINITY;
  }

  /** How large the one response of a call may be. What a write has done is not undone by keeping its answer back. */
  sizeOf({ method, kind }: Endpoint): ResponseSize {
    return new ResponseSize(method, kind === 'write' ? Number.POSITIVE_INFINITY : this.#parts.maxResponseBytes);
  }

  /** Runs a call with one response. */
  unary(inbound: Inbound, decode: () => Message): Promise<Reply> {
    const entry = this.#entry(inbound);
    return entry.seen?.run ? entry.seen.run(() => this.#unary(entry, decode)) : this.#unary(entry, decode);
  }

  async #unary(entry: Entry, decode: () => Message): Promise<Reply> {
    const { inbound } = entry;
    const { endpoint } = inbound;
    let leave: (() => void) | undefined;
    try {
      leave = this.#parts.guards.limits.enter(inbound.caller, endpoint);
      const request = this.#admit(entry, decode);
      const response = await this.#answer(entry, request);
      if (endpoint.kind === 'control') entry.transaction ??= transactionOf(response as Message);
      entry.response = response;
      this.#note(entry);
      return response;
    } catch (error) {
      throw this.#fail(entry, error);
    } finally {
      leave?.();
    }
  }

  /** Runs a call with a stream of responses, which come in batches. */
  stream(inbound: Inbound, decode: () => Message): AsyncGenerator<readonly Reply[]> {
    const entry = this.#entry(inbound);
    return this.#responses(entry, () => this.#source(entry, this.#admit(entry, decode)));
  }

  /** Runs a call with a stream of requests and one of responses; only control RPCs are of that kind. */
  duplex(inbound: Inbound, requests: AsyncIterable<Message>): AsyncGenerator<readonly Reply[]> {
    const entry = this.#entry(inbound);
    return this.#responses(entry, () => this.#controlled(entry, inbound.endpoint as ControlEndpoint, requests));
  }

  /** Responses of a control RPC, each by itself. */
  async *#controlled(
    entry: Entry,
    { each, method }: ControlEndpoint,
    request: Message | AsyncIterable<Message>,
  ): AsyncGenerator<readonly Message[]> {
    for await (const response of each(request, entry.inbound)) {
      const message = create(method.output, response);
      entry.transaction ??= transactionOf(message);
      yield [message];
    }
  }

  #responses(entry: Entry, source: () => AsyncIterable<readonly Reply[]>): AsyncGenerator<readonly Reply[]> {
    const responses = this.#batches(entry, source);
    return entry.seen?.each?.(responses) ?? responses;
  }

  async *#batches(entry: Entry, source: () => AsyncIterable<readonly Reply[]>): AsyncGenerator<readonly Reply[]> {
    const { endpoint, signal, caller } = entry.inbound;
    let ended = false;
    let leave: (() => void) | undefined;
    try {
      leave = this.#parts.guards.limits.enter(caller, endpoint);
      yield* source();
      ended = true;
      this.#note(entry);
    } catch (error) {
      ended = true;
      throw this.#fail(entry, error);
    } finally {
      leave?.();
      // The reader left before the end.
      if (!ended) this.#note(entry, signal.aborted ? toRpcError(signal.reason) : undefined);
    }
  }

  /**
   * Lets a call in, before its body costs anything.
   *
   * @throws UNAUTHENTICATED, PERMISSION_DENIED, RESOURCE_EXHAUSTED by who calls and by the length of its headers;
   *   INVALID_ARGUMENT by the headers themselves.
   */
  admit(arrival: Arrival): Admitted {
    const { endpoint, peer, system, trace, header, sent, unreadable, problem, certificate } = arrival;
    let known: { readonly caller: string } | undefined;
    try {
      if (problem) throw problem;
      if (!this.#isOpen && !endpoint.open) throw refuse('DATABASE_UNAVAILABLE', 'the database is not ready yet');
      const caller = endpoint.open ? 'anyone' : this.#parts.identity.caller(header('authorization'), certificate);
      known = { caller };
      const wrong = unreadable.filter(({ field }) => field !== 'header idempotency-key' || takesKey(endpoint, arrival));
      if (wrong.length > 0) throw invalidArgument(wrong);
      this.#parts.guards.limits.arrive(caller, endpoint);
      const access = this.#parts.guards.authorization.of(caller);
      if (!endpoint.open) access.check(endpoint);
      return { endpoint, peer, system, trace, header, sent, caller, access, bound: access.bound };
    } catch (error) {
      throw this.refuse({ ...arrival, ...known }, toRpcError(error));
    }
  }

  /** Refuses a call that a listener cannot take. */
  refuse(inbound: Arrival | Admitted, error: RpcError): RpcError {
    this.#note(this.#entry(inbound), error);
    return error;
  }

  #admit(entry: Entry, decode: () => Message): Message {
    const { inbound } = entry;
    const { input } = inbound.endpoint.method;
    const { request, problems: unread } = inbound.notes.documentTexts
      ? readDocuments(input, decode(), elementBudget())
      : { request: decode(), problems: [] };
    entry.request = request;
    if (inbound.endpoint.kind === 'control') entry.transaction = transactionOf(request);
    const problems = unread.length > 0 ? unread : inbound.endpoint.check(request);
    if (problems.length > 0) throw invalidArgument(problems);
    return request;
  }

  #answer(entry: Entry, request: Message): Promise<Reply> {
    const { inbound } = entry;
    const { endpoint } = inbound;
    if (endpoint.kind === 'control') return handled(endpoint, request, inbound);
    const run = async (db: Session): Promise<Reply> => {
      const { response, count } = await answered(endpoint, db, request, inbound, inbound.encoded);
      entry.rows = rowCountOf(response, count);
      return measured(inbound, told(inbound, response));
    };
    const scope = readScope(inbound);
    switch (scope.kind) {
      case 'leased':
        return this.#inLeased(inbound, endpoint, scope, request, run);
      case 'single-use':
        if (endpoint.kind === 'write') return this.#inSingleUse(inbound, endpoint, scope.idempotencyKey, request, run);
        break;
      case 'none':
        if (endpoint.kind === 'write') throw refuse('TRANSACTION_REQUIRED', REQUIRED);
    }
    const { replicas, database } = this.#parts;
    const wanted = replicas && endpoint.kind === 'read' ? wantedOf(inbound) : undefined;
    if (wanted !== undefined) return replicas!.read(wanted, inbound, run);
    return run(new AutoCommitSession(database, inbound));
  }

  #inLeased(
    inbound: Inbound,
    endpoint: DriverEndpoint,
    { id, sequence }: Scope & { kind: 'leased' },
    request: Message,
    run: (db: Session) => Promise<Reply>,
  ): Promise<Reply> {
    const transaction = this.#parts.transactions.find(id, inbound.caller);
    if (endpoint.kind === 'compute') return run(new AutoCommitSession(this.#parts.database, inbound));
    const first = (): Promise<Reply> => transaction.run(endpoint.name, inbound, run);
    if (sequence === undefined) return first();
    return onceInTransaction(transaction, sequence, endpoint, request, inbound, first);
  }

  #inSingleUse(
    inbound: Inbound,
    endpoint: DriverEndpoint,
    idempotencyKey: string | undefined,
    request: Message,
    run: (db: Session) => Promise<Reply>,
  ): Promise<Reply> {
    const { database } = this.#parts;
    if (idempotencyKey !== undefined) {
      return onceInOwn(database, READ_COMMITTED, inbound, keyed(endpoint, request, inbound, idempotencyKey), run);
    }
    return endpoint.answering ? inImplicit(database, inbound, run) : inOwn(database, READ_COMMITTED, inbound, run);
  }

  #source(entry: Entry, request: Message): AsyncIterable<readonly Reply[]> {
    const { inbound } = entry;
    const { endpoint, caller } = inbound;
    if (endpoint.kind === 'control') return this.#controlled(entry, endpoint, request);
    const { answering, name } = endpoint;
    if (!answering) throw new Error(`${name} is a stream, and declares no statement`);
    const run = (db: StreamingSession): AsyncIterable<readonly Reply[]> => {
      const batches = inbound.encoded ? answering.encoded(db, request) : answering.messages(db, request);
      return inbound.notes.documentTexts ? toldEach(inbound, batches) : batches;
    };
    const scope = readScope(inbound);
    if (scope.kind === 'leased') return this.#parts.transactions.find(scope.id, caller).stream(name, inbound, run);
    return this.#parts.transactions.reading({ caller, method: name }, inbound, run);
  }

  #entry<C extends Arrival | Admitted | Inbound>(inbound: C): Entry<C> {
    return { inbound, startedAt: performance.now(), seen: this.#parts.telemetry?.call(inbound) };
  }

  #fail(entry: Entry, error: unknown): RpcError {
    const failure = toRpcError(error);
    this.#note(entry, failure);
    return failure;
  }

  /** A call has ended: its line in the log, and in the audit where it wrote. */
  #note(entry: Entry<Arrival | Admitted | Inbound>, failure?: RpcError): void {
    const { inbound, startedAt, seen, request, response, rows } = entry;
    if ('caller' in inbound) this.#parts.guards.audit.call({ ...inbound, request, response, rows }, failure);
    const transaction = inbound.header('transaction') ?? entry.transaction;
    seen?.ended(failure);
    logCall(this.#parts.calls, inbound, { startedAt, transaction, traceId: seen?.traceId }, failure);
  }
}

const handled = async ({ method, one }: ControlEndpoint, request: Message, inbound: Inbound): Promise<Message> =>
  create(method.output, await one(request, inbound));
