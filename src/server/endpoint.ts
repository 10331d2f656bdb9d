import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import type { FieldViolation } from '../contract/errors.ts';
import { type Rules, requestCheck } from '../contract/rules.ts';
import type { Session } from '../database/session.ts';
import type { CallContext, Driver, Handler, RpcKind } from '../drivers/driver.ts';
import { type Answered, type Answering, answering } from '../statements/answers.ts';
import type { PageTokens } from '../statements/page-tokens.ts';
import { Paging } from '../statements/places.ts';
import type { Inbound } from './inbound.ts';

/** What a control RPC (transactions, health, reflection) knows of its call. */
export type ControlCall = Pick<
  Inbound,
  'caller' | 'access' | 'bound' | 'signal' | 'size' | 'notes' | 'header' | 'sent' | 'peer' | 'watched'
>;

/** Rows that an RPC affected or returned: what its answer says, else the rows of its statements. */
export const rowCountOf = (answer: unknown, ofStatements: bigint): bigint =>
  (answer as { readonly rowsAffected?: bigint }).rowsAffected ?? ofStatements;

type Awaitable<T> = T | Promise<T>;
type AnyInit = MessageInitShape<DescMessage>;
type AnyUnary = (request: Message, call: ControlCall) => Awaitable<AnyInit>;
type AnyStreaming = (request: Message | AsyncIterable<Message>, call: ControlCall) => AsyncIterable<AnyInit>;

/** A control RPC whose kind and messages have been left behind. */
interface AnyControlRpc {
  readonly rules?: Rules<DescMessage>;
  readonly handle: AnyUnary & AnyStreaming;
}

/** What every RPC has, as the pipeline runs it. */
interface Named {
  readonly method: DescMethod;
  /** `Service/Method`, for logs. */
  readonly name: string;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** True for RPCs that need no token. */
  readonly open: boolean;
  /** True for RPCs whose log lines are only of interest when they fail. */
  readonly quiet: boolean;
  readonly check: (request: Message) => FieldViolation[];
}

/** An RPC of a driver that is one statement. */
export interface DeclaredEndpoint extends Named {
  readonly kind: Exclude<RpcKind, 'compute'>;
  readonly answering: Answering;
}

/** An RPC of a driver that is more, or less. */
export interface ProgrammedEndpoint extends Named {
  readonly kind: RpcKind;
  readonly answering: undefined;
  readonly run: (db: Session, request: Message, call: CallContext) => ReturnType<Handler<DescMethod>>;
}

/** An RPC of this server: it sees the call itself and deals with transactions itself. */
export interface ControlEndpoint extends Named {
  readonly kind: 'control';
  /** Runs it where it has one response. */
  readonly one: AnyUnary;
  /** Runs it where it has a stream of them. */
  readonly each: AnyStreaming;
}

/** One RPC of a driver as the pipeline runs it. */
export type DriverEndpoint = DeclaredEndpoint | ProgrammedEndpoint;

/** One RPC as the pipeline runs it. */
export type Endpoint = DriverEndpoint | ControlEndpoint;

const shortName = (service: DescService): string => service.typeName.slice(service.typeName.lastIndexOf('.') + 1);

const named = (
  method: DescMethod,
  check: Named['check'],
  { open, quiet }: Pick<Named, 'open' | 'quiet'> = { open: false, quiet: false },
): Named => ({
  method,
  name: `${shortName(method.parent)}/${method.name}`,
  path: `/${method.parent.typeName}/${method.name}`,
  open,
  quiet,
  check,
});

/** Endpoints of drivers, whose lists go on by those tokens. */
export const driverEndpoints =
  (tokens: PageTokens) =>
  ({ service, rpcs }: Driver): DriverEndpoint[] =>
    service.methods.map((method) => {
      const { kind, rules, check = () => [], work } = rpcs[method.localName]!;
      const paging = new Paging(method, tokens);
      const ofFields = requestCheck(method.input, rules);
      const common = named(method, (request) => [...ofFields(request), ...paging.check(request), ...check(request)]);
      if (typeof work === 'function') {
        const run: ProgrammedEndpoint['run'] = (db, request, call) => work(db, request, call, paging.walk(request));
        return { ...common, kind, answering: undefined, run };
      }
      if (kind === 'compute') throw new Error(`${common.name} computes, and asks the database`);
      return { ...common, kind, answering: answering(method, work, paging) };
    });

/** A service as a listener serves it. */
export interface Served {
  readonly service: DescService;
  /** Whether it is of use only where the database takes writes. */
  readonly writes: boolean;
  readonly endpoints: readonly Endpoint[];
}

/** What a control RPC does, by its kind; there is none with a stream of requests and one response. */
type ControlHandler<M extends DescMethod> = M extends { readonly methodKind: 'unary' }
  ? (request: MessageShape<M['input']>, call: ControlCall) => Awaitable<MessageInitShape<M['output']>>
  : M extends { readonly methodKind: 'server_streaming' }
    ? (request: MessageShape<M['input']>, call: ControlCall) => AsyncIterable<MessageInitShape<M['output']>>
    : M extends { readonly methodKind: 'bidi_streaming' }
      ? (
          requests: AsyncIterable<MessageShape<M['input']>>,
          call: ControlCall,
        ) => AsyncIterable<MessageInitShape<M['output']>>
      : never;

/** One control RPC: what its request must satisfy, and its handler. */
export interface ControlRpc<M extends DescMethod> {
  readonly rules?: Rules<M['input']>;
  readonly handle: ControlHandler<M>;
}

/** The control RPCs of a service, keyed as in generated code; all of them. */
export type ControlRpcs<S extends DescService> = { readonly [K in keyof S['method']]: ControlRpc<S['method'][K]> };

/** Endpoints of a service that this server itself implements; leaving out an RPC of it does not compile. */
export const controlEndpoints = <S extends DescService>(
  service: S,
  rpcs: ControlRpcs<S>,
  { open = false, quiet = false } = {},
): ControlEndpoint[] => {
  const anyRpcs = rpcs as unknown as Readonly<Record<string, AnyControlRpc>>;
  return service.methods.map((method) => {
    const { rules = {}, handle } = anyRpcs[method.localName]!;
    const common = named(method, requestCheck(method.input, rules), { open, quiet });
    return { ...common, kind: 'control', one: handle, each: handle };
  });
};

const programmed = async (
  { run, method }: ProgrammedEndpoint,
  db: Session,
  request: Message,
  call: CallContext,
): Promise<Answered<Message>> => {
  const before = db.rowCount;
  const init = await run(db, request, call);
  const response = create(method.output, init);
  return { response, count: db.rowCount - before };
};

/** Runs an RPC of a driver; where that is asked for, its answer comes as bytes if rows can be made into them directly. */
export const answered = (
  endpoint: DriverEndpoint,
  db: Session,
  request: Message,
  call: CallContext,
  encoded: boolean,
): Promise<Answered<Message | Buffer>> => {
  const { answering } = endpoint;
  if (!answering) return programmed(endpoint, db, request, call);
  return encoded ? answering.bytes(db, request, call.size) : answering.message(db, request, call.size);
};
