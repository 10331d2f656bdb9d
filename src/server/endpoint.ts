import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type Message,
  type MessageInitShape,
} from '@bufbuild/protobuf';
import type { FieldViolation } from '../contract/errors.ts';
import { type Rule, requestCheck } from '../contract/rules.ts';
import type { CallNotes } from '../database/notes.ts';
import type { Session } from '../database/session.ts';
import type { Signal } from '../database/signal.ts';
import type { Bound } from '../database/tenants.ts';
import type { CallContext, Driver, Handler, RpcKind } from '../drivers/driver.ts';
import { type Answered, type Answering, answering } from '../statements/answers.ts';
import type { PageTokens } from '../statements/page-tokens.ts';
import { Paging } from '../statements/places.ts';
import type { Access } from './access.ts';

/** What a control RPC (transactions, health, reflection) knows of its call. */
export interface ControlCall extends CallContext {
  readonly signal: Signal;
  /** What the caller may do: an operation within the call is held against it, too. */
  readonly access: Access;
  /** Whose rows alone its statements see; undefined: they see all. */
  readonly bound: Bound | undefined;
  /** What the answer says beside itself. */
  readonly notes: CallNotes;
  /** Value of a request header, if it is there. */
  readonly header: (name: string) => string | undefined;
  /** Names and values of all request headers in turn, as they were sent. */
  readonly sent: readonly string[];
  /** Who is at the other end, for logs. */
  readonly peer: string;
  /** Whether the listener notices within a minute that the caller's machine has vanished. */
  readonly watched: boolean;
}

type ControlHandler = (request: never, call: ControlCall) => unknown;

/** Rows that an RPC affected or returned: what its answer says, else the rows of its statements. */
export const rowsOf = (answer: unknown, ofStatements: bigint): bigint =>
  (answer as { readonly rowsAffected?: bigint }).rowsAffected ?? ofStatements;

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
  readonly handle: ControlHandler;
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

/** One control RPC: what its request must satisfy, and its handler. */
export interface ControlRpc {
  readonly rules?: Readonly<Record<string, Rule>>;
  readonly handle: ControlHandler;
}

/** Endpoints of a service that this server itself implements. */
export const controlEndpoints = (
  service: DescService,
  rpcs: Readonly<Record<string, ControlRpc>>,
  { open = false, quiet = false } = {},
): ControlEndpoint[] =>
  service.methods.map((method) => {
    const { rules = {}, handle } = rpcs[method.localName]!;
    return { ...named(method, requestCheck(method.input, rules), { open, quiet }), kind: 'control', handle };
  });

const programmed = async (
  { run, method }: ProgrammedEndpoint,
  db: Session,
  request: Message,
  call: CallContext,
): Promise<Answered<Message>> => {
  const before = db.rowCount;
  const init = await run(db, request, call);
  const response = create(method.output, init as MessageInitShape<DescMessage>);
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
