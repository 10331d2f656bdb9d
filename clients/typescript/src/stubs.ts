import type {
  DescMessage,
  DescMethod,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from '@bufbuild/protobuf';
import { ConflictResolverService } from './gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { PolicyArbitratorService } from './gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { PolicyEngineService } from './gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyGraphService } from './gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyProposalReadService } from './gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { PolicyProposalWriteService } from './gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import { PolicyReadService } from './gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { PolicyRulesService } from './gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { PolicyRulesReadService } from './gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { ProposalsReadService } from './gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { RecoveryMatcherService } from './gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { RecoveryWriteService } from './gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { ScopeResolverService } from './gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { SymbolTableService } from './gen/hoc/cus/policies/v1/symbol_table_pb.ts';

const SERVICES = {
  conflictResolver: ConflictResolverService,
  policyArbitrator: PolicyArbitratorService,
  policyEngine: PolicyEngineService,
  policyGraph: PolicyGraphService,
  policyProposalRead: PolicyProposalReadService,
  policyProposalWrite: PolicyProposalWriteService,
  policyRead: PolicyReadService,
  policyRules: PolicyRulesService,
  policyRulesRead: PolicyRulesReadService,
  proposalsRead: ProposalsReadService,
  recoveryMatcher: RecoveryMatcherService,
  recoveryWrite: RecoveryWriteService,
  scopeResolver: ScopeResolverService,
  symbolTable: SymbolTableService,
} as const;

/**
 * How documents, fields of the type Value, are told in requests and answers: as `values`, whose numbers are doubles, or as `text`,
 * a string that is their exact JSON, in which `1.0` is not `1`.
 */
export type Documents = 'values' | 'text';

/** What one call may ask for. */
export interface CallOptions {
  /** Milliseconds; default: the client's, for a stream until its first message. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** What a read outside a transaction has to see: `strong`, `eventual`, or a consistency token. */
  readonly consistency?: string;
  /** How documents are told; default: as the client says. */
  readonly documents?: Documents;
  /** False to let a stream that is cut end with its error; default: as the client says. */
  readonly resume?: boolean;
  /** The UUID of a single-use write that is repeated by its caller, which takes effect once; default: a new one. */
  readonly idempotencyKey?: string;
  /** Told the trailers at the end, such as `inexact-values` and `consistency-token`. */
  readonly onTrailer?: (trailer: Headers) => void;
}

type Method<M> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : never;

/** The calls of one service; a stream is an async iterable, and leaving it early cancels it. */
export type Stub<S extends DescService> = { readonly [K in keyof S['method']]: Method<S['method'][K]> };

/** The calls of all driver services. */
export type Stubs = { readonly [K in keyof typeof SERVICES]: Stub<(typeof SERVICES)[K]> };

/** How calls are made. */
export interface Caller {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>>;
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): AsyncIterable<MessageShape<O>>;
}

type Init = MessageInitShape<DescMessage>;

const bind = (method: DescMethod, caller: Caller): ((request: Init, options?: CallOptions) => unknown) =>
  method.methodKind === 'unary'
    ? (request, options = {}) => caller.unary(method as DescMethodUnary, request, options)
    : (request, options = {}) => caller.stream(method as DescMethodServerStreaming, request, options);

const stubOf = (service: DescService, caller: Caller): object =>
  Object.fromEntries(service.methods.map((method) => [method.localName, bind(method, caller)]));

/** Gives an object the stubs of all driver services, each made at its first use. */
export const bindStubs = <T extends object>(target: T, caller: Caller): T & Stubs => {
  for (const [name, service] of Object.entries(SERVICES)) {
    let stub: object | undefined;
    const get = (): object => {
      stub ??= stubOf(service, caller);
      return stub;
    };
    Object.defineProperty(target, name, { enumerable: true, get });
  }
  return target as T & Stubs;
};
