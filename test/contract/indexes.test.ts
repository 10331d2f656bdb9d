import type { DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyProposalReadService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const ROWS = 100_000;

let sidecar: TestSidecar;
beforeAll(async () => {
  // One connection: what it ran last is what the call ran.
  sidecar = await startTestSidecar({ poolMax: 1 });
  const n = `generate_series(1, ${ROWS}) n`;
  const at = `'2025-01-01Z'::timestamptz + n * interval '1 second'`;
  for (const fill of [
    `insert into policy.violations (violation_type, agent_id, tenant_id, description, detected_at) select 'v' || n % 7, 'a' || n % 900, 't' || n % 1000, 'd', ${at} from ${n}`,
    `insert into policy.policy_provenance (policy_id, policy_type, action, changed_by, policy_version, changed_at) select gen_random_uuid(), 'p', 'update', 'x', 'v' || n % 1000, ${at} from ${n}`,
    `insert into policy.temporal_metric_events (policy_id, metric, value, occurred_at) select ('00000000-0000-0000-0000-' || lpad((n % 1000)::text, 12, '0'))::uuid, 'm', 1, ${at} from ${n}`,
    `insert into policy_rules (id, tenant_id, name, created_at) select 'r' || n, 't' || n % 1000, 'n', ${at} from ${n}`,
    `insert into limits (id, tenant_id, name, limit_category, limit_type, scope, max_value) select 'l' || n, 't' || n % 1000, 'n', 'RATE', 'X' || n % 5, 'TENANT', 1 from ${n}`,
    `insert into policy_proposals (tenant_id, proposal_name, proposal_type, rationale, proposed_rule, created_at) select 't' || n % 1000, 'n', 'custom', 'r', '{}', ${at} from ${n}`,
    `insert into pattern_feedback (tenant_id, pattern_type, description, acknowledged) select 't' || n % 1000, 'p', 'd', n % 50 > 0 from ${n}`,
    `insert into proxy_calls (id, tenant_id, endpoint, model, request_hash, request_json, created_at) select n::text, 't' || n % 1000, 'e', 'm', 'h', '{}', ${at} from ${n}`,
    `insert into recovery_candidates (failure_match_id, suggestion, confidence, decision, created_at) select gen_random_uuid(), 's', 0.5, case when n % 100 = 0 then 'approved' else 'pending' end, ${at} from ${n}`,
  ]) {
    await sidecar.sql(fill);
  }
  await sidecar.sql('analyze');
}, 180_000);
afterAll(() => sidecar?.stop());

/** Generic plan of the statement that the server ran last. */
const lastPlan = async (): Promise<string> => {
  const [last] = await sidecar.sql<{ query: string }>(
    `select query from pg_stat_activity where datname = current_database() and application_name = 'policy-sidecar call'`,
  );
  const plan = await sidecar.sql<{ 'QUERY PLAN': string }>(`explain (generic_plan) ${last!.query}`);
  return plan.map((line) => line['QUERY PLAN']).join('\n');
};

const since = { seconds: 1_735_700_000n, nanos: 0 };
const one = <M extends DescMethodUnary>(method: M, request: MessageInitShape<M['input']>, table: string) =>
  [
    `${method.name} ${JSON.stringify(request, (_key, value) => (typeof value === 'bigint' ? String(value) : value))}`,
    method,
    request,
    table,
  ] as const;

test.each([
  one(PolicyEngineService.method.fetchViolations, {}, 'violations'),
  one(PolicyEngineService.method.fetchViolations, { tenantId: 't1' }, 'violations'),
  one(PolicyEngineService.method.fetchViolations, { agentId: 'a1', since }, 'violations'),
  one(PolicyEngineService.method.fetchProvenance, {}, 'policy_provenance'),
  one(PolicyEngineService.method.fetchProvenance, { policyVersion: 'v1' }, 'policy_provenance'),
  one(
    PolicyEngineService.method.fetchTemporalMetricSum,
    { policyId: '00000000-0000-0000-0000-000000000001', windowSeconds: 60n },
    'temporal_metric_events',
  ),
  one(PolicyGraphService.method.fetchActivePolicies, { tenantId: 't1' }, 'policy_rules'),
  one(PolicyGraphService.method.fetchAllPolicies, { tenantId: 't1' }, 'policy_rules'),
  one(PolicyGraphService.method.fetchActiveLimits, { tenantId: 't1' }, 'limits'),
  one(PolicyGraphService.method.fetchAllLimits, { tenantId: 't1' }, 'limits'),
  one(PolicyRulesReadService.method.countPolicyRules, { tenantId: 't1' }, 'policy_rules'),
  one(PolicyRulesReadService.method.fetchPolicyRules, { tenantId: 't1' }, 'policy_rules'),
  one(PolicyProposalReadService.method.fetchProposals, {}, 'policy_proposals'),
  one(PolicyProposalReadService.method.fetchProposals, { tenantId: 't1', status: 'draft' }, 'policy_proposals'),
  one(PolicyProposalReadService.method.fetchUnacknowledgedFeedback, { tenantId: 't1' }, 'pattern_feedback'),
  one(ProposalsReadService.method.countDraftProposals, { tenantId: 't1' }, 'policy_proposals'),
  one(PolicyReadService.method.getUsageSumSince, { tenantId: 't1', since }, 'proxy_calls'),
  one(RecoveryMatcherService.method.getCandidates, { status: 'approved' }, 'recovery_candidates'),
  one(RecoveryMatcherService.method.getCandidates, { status: 'all' }, 'recovery_candidates'),
])('%s uses an index', async (_name, method, request, table) => {
  await sidecar.grpc.unary(method as DescMethodUnary, request as never);
  const plan = await lastPlan();
  expect(plan).toMatch(/Index( Only)? Scan|Bitmap Index Scan/);
  expect(plan).not.toMatch(new RegExp(`Seq Scan on ${table}`));
});
