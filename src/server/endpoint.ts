import type { DescMethod, DescService, Message } from '@bufbuild/protobuf';
import type { FieldViolation } from '../contract/errors.ts';
import { type Rule, requestCheck } from '../contract/rules.ts';
import type { CallNotes } from '../database/notes.ts';
import type { Signal } from '../database/signal.ts';
import type { CallContext, Driver, RpcDefinition, RpcKind } from '../drivers/driver.ts';

/** What a control RPC (transactions, health, reflection) knows of its call. */
export interface ControlCall extends CallContext {
  readonly signal: Signal;
  /** Stored values of the answer that were not carried exactly. */
  readonly notes: CallNotes;
  /** Value of a request header, if it is there. */
  readonly header: (name: string) => string | undefined;
  /** Who is at the other end, for logs. */
  readonly peer: string;
  /** Whether the listener notices within a minute that the caller's machine has vanished. */
  readonly watched: boolean;
}

type ControlHandler = (request: never, call: ControlCall) => unknown;

/** One RPC as the pipeline runs it. */
export interface Endpoint {
  readonly method: DescMethod;
  /** `Service/Method`, for logs. */
  readonly name: string;
  /** `/package.Service/Method`. */
  readonly path: string;
  /** `control` RPCs see the call itself and deal with transactions themselves. */
  readonly kind: RpcKind | 'control';
  /** True for RPCs that need no token. */
  readonly open: boolean;
  /** True for RPCs whose log lines are only of interest when they fail. */
  readonly quiet: boolean;
  readonly check: (request: Message) => FieldViolation[];
  /** Runs a driver's RPC; undefined for control RPCs. */
  readonly run: RpcDefinition<DescMethod>['run'] | undefined;
  readonly control: ControlHandler | undefined;
}

const shortName = (service: DescService): string => service.typeName.slice(service.typeName.lastIndexOf('.') + 1);

const named = (method: DescMethod): Pick<Endpoint, 'method' | 'name' | 'path'> => ({
  method,
  name: `${shortName(method.parent)}/${method.name}`,
  path: `/${method.parent.typeName}/${method.name}`,
});

/** Endpoints of a driver. */
export const driverEndpoints = ({ service, rpcs }: Driver): Endpoint[] =>
  service.methods.map((method) => {
    const { kind, rules, check, run } = rpcs[method.localName]!;
    const ofFields = requestCheck(method.input, rules);
    return {
      ...named(method),
      kind,
      open: false,
      quiet: false,
      check: check ? (request) => [...ofFields(request), ...check(request)] : ofFields,
      run,
      control: undefined,
    };
  });

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
): Endpoint[] =>
  service.methods.map((method) => {
    const { rules = {}, handle } = rpcs[method.localName]!;
    return {
      ...named(method),
      kind: 'control',
      open,
      quiet,
      check: requestCheck(method.input, rules),
      run: undefined,
      control: handle,
    };
  });
