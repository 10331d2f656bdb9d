import type { DescMethod, DescService, MessageInitShape, MessageShape } from '@bufbuild/protobuf';
import type { FieldViolation } from '../contract/errors.ts';
import type { ResponseSize } from '../contract/response-size.ts';
import type { Rules } from '../contract/rules.ts';
import type { Session } from '../database/session.ts';
import type { Signal } from '../database/signal.ts';
import type { Answer } from '../statements/answers.ts';
import type { Walk } from '../statements/places.ts';

/** What a handler may know of its call besides the request. */
export interface CallContext {
  /** Tenants whose rows alone the caller sees; undefined: all. */
  readonly bound?: string | undefined;
  /** Identity of the caller: its token's name, or `local` where no tokens are configured. */
  readonly caller: string;
  /** Fires when the call's deadline passes or the caller cancels; its reason is the error to answer with. */
  readonly signal: Signal | undefined;
  /** How large the response may be. */
  readonly size: ResponseSize;
}

type Awaitable<T> = T | Promise<T>;

/** What an RPC of more than a statement does. */
export type Handler<M extends DescMethod> = (
  db: Session,
  request: MessageShape<M['input']>,
  call: CallContext,
  walk: Walk,
) => Awaitable<MessageInitShape<M['output']>>;

/** What an RPC does: one statement, declared; or more, programmed. A stream is one statement. */
type Work<M extends DescMethod> = M['methodKind'] extends 'server_streaming' ? Answer<M> : Answer<M> | Handler<M>;

/** How an RPC treats the `transaction` header. */
export type RpcKind =
  /** Runs with or without a transaction. */
  | 'read'
  /** Refused without a transaction. */
  | 'write'
  /** Touches no table; a transaction id is checked like everywhere, and not used. */
  | 'compute';

/** One RPC of a driver: how it treats transactions, what its request must satisfy, what it does. */
export interface RpcDefinition<M extends DescMethod> {
  readonly kind: RpcKind;
  readonly rules: Rules<M['input']>;
  /** Finds what the rules of single fields cannot: fields that are wrong because of others. */
  readonly check: Check<M> | undefined;
  readonly work: Work<M>;
}

type Check<M extends DescMethod> = (request: MessageShape<M['input']>) => readonly FieldViolation[];

/** A read: runs on its own snapshot, or inside the caller's transaction. */
export const read = <M extends DescMethod>(rules: Rules<M['input']>, work: Work<M>): RpcDefinition<M> => ({
  kind: 'read',
  rules,
  check: undefined,
  work,
});

/** A write: the caller names the transaction it belongs to, or asks for one of its own with `single-use`. */
export const write = <M extends DescMethod>(
  rules: Rules<M['input']>,
  work: Work<M>,
  check?: Check<M>,
): RpcDefinition<M> => ({
  kind: 'write',
  rules,
  check,
  work,
});

/** A computation over its request alone. */
export const compute = <M extends DescMethod>(
  rules: Rules<M['input']>,
  run: (request: MessageShape<M['input']>, call: CallContext) => Awaitable<MessageInitShape<M['output']>>,
): RpcDefinition<M> => ({
  kind: 'compute',
  rules,
  check: undefined,
  work: ((_db, request, call) => run(request, call)) satisfies Handler<M> as Handler<M> as Work<M>,
});

/** The RPCs of a service, keyed as in generated code; all of them. */
type Rpcs<S extends DescService> = { readonly [K in keyof S['method']]: RpcDefinition<S['method'][K]> };

/** Some RPCs of a service, whose driver joins them all. */
export type Part<S extends DescService> = Partial<Rpcs<S>>;

/** A driver: a service and what each of its RPCs does. */
export interface Driver {
  readonly service: DescService;
  readonly rpcs: Readonly<Record<string, RpcDefinition<DescMethod>>>;
}

/** Declares a driver; leaving out an RPC of the service does not compile. */
export const driver = <S extends DescService>(service: S, rpcs: Rpcs<S>): Driver => ({
  service,
  rpcs: rpcs as unknown as Driver['rpcs'],
});
