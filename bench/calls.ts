/** What is measured: a request, and the statement that every server runs for it. */
import {
  create,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type MessageInitShape,
  toBinary,
} from '@bufbuild/protobuf';
import { Health } from '../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type Call, framed } from './channel.ts';

const rpc = PolicyEngineService.method;

/** A call of `method`. */
export const callOf = <M extends DescMethodUnary | DescMethodServerStreaming>(
  method: M,
  request: MessageInitShape<M['input']>,
  headers: Call['headers'] = {},
): Call => ({
  path: `/${method.parent.typeName}/${method.name}`,
  headers,
  frame: framed(toBinary(method.input, create(method.input, request))),
});

/** A statement and its parameters. */
export interface Statement {
  readonly text: string;
  readonly values: readonly string[];
}

const VIOLATION = `id, policy_name, violation_type, severity, description, evidence, agent_id, tenant_id, action_attempted,
  routed_to_governor, governor_action, detected_at`;
const CONFLICT = `id, policy_a, policy_b, conflict_type, severity, description, affected_action_types, resolved, resolution,
  resolved_by, resolved_at, detected_at`;

/** The statements, handed to every peer in its environment. */
export const SQL = {
  point: `select ${VIOLATION} from policy.violations where id = $1`,
  list: `select ${VIOLATION} from policy.violations order by detected_at desc, id desc limit $1`,
  write: `insert into policy.policy_provenance (policy_id, policy_type, action, changed_by, policy_version, reason)
    values ($1, $2, $3, $4, $5, $6) returning id`,
  stream: `select ${CONFLICT} from policy.policy_conflicts where not resolved order by detected_at, id`,
} as const;

export const noop: Call = callOf(Health.method.check, {});
export const point = (violationId: string): Call => callOf(rpc.fetchViolationById, { violationId });
export const list: Call = callOf(rpc.fetchViolations, {});
export const stream: Call = callOf(rpc.streamConflicts, {});

const change = {
  policyId: '00000000-0000-4000-8000-000000000001',
  policyType: 'policy',
  action: 'update',
  changedBy: 'bench',
  policyVersion: '1.0.0',
  reason: 'why',
};
export const write: Call = callOf(rpc.insertProvenance, change, { transaction: 'single-use' });
/** The same write in an open transaction. */
export const writeIn = (transaction: string): Call => ({ ...write, headers: { transaction } });
export const begin: Call = callOf(TransactionService.method.begin, {});
export const commit = (transactionId: string): Call => callOf(TransactionService.method.commit, { transactionId });
/** So many of the same write in one call. */
export const execute = (count: number, transaction?: string): Call => {
  const operation = { request: { case: 'insertProvenance' as const, value: change } };
  return callOf(
    TransactionService.method.execute,
    { operations: Array.from({ length: count }, () => operation) },
    transaction === undefined ? {} : { transaction },
  );
};

/** The same statements for `pg` and `pgbench`. */
export const statements = {
  point: (id: string): Statement => ({ text: SQL.point, values: [id] }),
  list: { text: SQL.list, values: ['100'] } satisfies Statement,
  write: { text: SQL.write, values: Object.values(change) } satisfies Statement,
};
