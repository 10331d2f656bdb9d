import type { DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { Wire } from '../../src/database/wire.ts';
import { drivers } from '../../src/drivers/drivers.ts';
import { PolicyArbitratorService } from '../../src/gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { IntegrityTable, PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyProposalReadService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import {
  EnforcementMode,
  PolicyRulesService,
  RuleScope,
  RuleSource,
  RuleStatus,
} from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { CandidateStatus, RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { RecoveryWriteService } from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { ScopeResolverService } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { noServices } from '../support/services.ts';
import { useClient, useSidecar } from '../support/use.ts';

const ROWS = 20_000;

/** SQL: a uuid of a number. */
const uuidOf = (number: string): string => `('00000000-0000-0000-0000-' || lpad((${number})::text, 12, '0'))::uuid`;
const ID = '00000000-0000-0000-0000-000000000001';

const at = `'2025-01-01Z'::timestamptz + n * interval '1 second'`;

/** Columns and their values for row n of each table: a thousand tenants or a hundred, few live rows among many retired ones. */
const FILLS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'policy.violations': {
    id: uuidOf('n'),
    violation_type: `'v' || n % 7`,
    agent_id: `'a' || n % 900`,
    tenant_id: `'t' || n % 1000`,
    severity: 'random()',
    description: `'d'`,
    detected_at: at,
  },
  'policy.evaluations': {
    id: uuidOf('n'),
    action_type: `'x' || n % 30`,
    agent_id: `'a' || n % 900`,
    tenant_id: `'t' || n % 1000`,
    decision: `(array['allow', 'block', 'modify'])[1 + n % 3]`,
    evaluated_at: at,
  },
  'policy.policy_versions': {
    id: uuidOf('n'),
    version: `'v' || n`,
    policy_hash: `'h'`,
    created_by: `'x'`,
    created_at: at,
    is_active: `n = ${ROWS}`,
    rolled_back_at: `case when n % 10 = 0 then ${at} end`,
  },
  'policy.policy_provenance': {
    policy_id: 'gen_random_uuid()',
    policy_type: `'p'`,
    action: `'update'`,
    changed_by: `'x'`,
    policy_version: `'v' || n % 1000`,
    changed_at: at,
  },
  'policy.policy_dependencies': {
    source_policy: `'p' || n % 3000`,
    target_policy: `'p' || n % 2999`,
    dependency_type: `'requires'`,
    is_active: 'n % 20 = 0',
  },
  'policy.policy_conflicts': {
    policy_a: `'p' || n % 300`,
    policy_b: `'p' || n % 299`,
    conflict_type: `'overlap'`,
    severity: 'random()',
    description: `repeat('d', 200)`,
    resolved: 'n % 20 > 0',
  },
  'policy.temporal_policies': {
    id: uuidOf('n'),
    name: `'n' || n`,
    temporal_type: `'limit'`,
    metric: `'m' || n % 500`,
    max_value: '1',
    window_seconds: '60',
    is_active: 'n % 20 = 0',
  },
  'policy.temporal_metric_windows': {
    policy_id: uuidOf('n % 100'),
    agent_id: `'a' || n % 900`,
    tenant_id: `'t' || n % 1000`,
    window_key: 'n::text',
    window_start: at,
    window_end: `${at} + interval '1 hour'`,
  },
  'policy.temporal_metric_events': {
    policy_id: uuidOf('n % 1000'),
    metric: `'m'`,
    value: '1',
    occurred_at: at,
  },
  'policy.risk_ceilings': {
    name: `'n' || n`,
    metric: `'m'`,
    max_value: '1',
    is_active: 'n % 20 = 0',
  },
  'policy.safety_rules': {
    name: `'n' || n`,
    rule_type: `'t'`,
    condition: `'{}'`,
    action: `'block'`,
    is_active: 'n % 20 = 0',
  },
  'policy.business_rules': {
    name: `'n' || n`,
    rule_type: `'t'`,
    condition: `'{}'`,
    '"constraint"': `'{}'`,
    is_active: 'n % 20 = 0',
  },
  'policy.ethical_constraints': {
    name: `'n' || n`,
    description: `'d'`,
    constraint_type: `'t'`,
    is_active: 'n % 20 = 0',
  },
  'policy.policies': {
    name: `'n' || n`,
    category: `'c'`,
    is_active: 'n % 20 = 0',
  },
  'policy.snapshots': { snapshot_id: `'s' || n` },
  'public.policy_rules': {
    id: `'r' || n`,
    tenant_id: `'t' || n % 1000`,
    name: `'n'`,
    created_at: at,
  },
  'public.policy_rule_integrity': {
    id: `'i' || n`,
    rule_id: `'r' || n`,
    integrity_status: `'VERIFIED'`,
    integrity_score: '1',
    hash_root: `'h'`,
  },
  'public.policy_enforcements': {
    id: `'e' || n`,
    tenant_id: `'t' || n % 1000`,
    rule_id: `'r' || 1 + n % 20000`,
    action_taken: `'BLOCKED'`,
    triggered_at: `now() - n * interval '1 minute'`,
  },
  'public.limits': {
    id: `'l' || n`,
    tenant_id: `'t' || n % 1000`,
    name: `'n'`,
    limit_category: `'RATE'`,
    limit_type: `'X' || n % 5`,
    scope: `'TENANT'`,
    max_value: '1',
  },
  'public.policy_proposals': {
    id: uuidOf('n'),
    tenant_id: `'t' || n % 100`,
    proposal_name: `'n'`,
    proposal_type: `'p' || n % 7`,
    status: `(array['draft', 'approved', 'rejected'])[1 + n % 3]`,
    rationale: `'r'`,
    proposed_rule: `'{}'`,
    created_at: at,
  },
  'public.policy_versions': {
    proposal_id: uuidOf('n % 20000 + 1'),
    version: 'n / 20000 + 1',
    rule_snapshot: `'{}'`,
  },
  'public.pattern_feedback': {
    tenant_id: `'t' || n % 1000`,
    pattern_type: `'p' || n % 7`,
    description: `'d'`,
    acknowledged: 'n % 50 > 0',
  },
  'public.proxy_calls': {
    id: 'n::text',
    tenant_id: `'t' || n % 1000`,
    endpoint: `'e'`,
    model: `'m'`,
    request_hash: `'h'`,
    request_json: `'{}'`,
    created_at: at,
  },
  'public.tenants': {
    id: `'t' || n`,
    name: `'n'`,
    slug: `'s' || n`,
  },
  'public.default_guardrails': {
    id: `'g' || n`,
    name: `'n' || n`,
    category: `'c'`,
    rule_type: `'t'`,
    rule_config_json: `'{}'`,
    action: `'block'`,
  },
  'public.policy_precedence': {
    tenant_id: `'t' || n % 100`,
    policy_id: `'p' || n`,
  },
  'public.policy_scopes': {
    scope_id: `'s' || n`,
    tenant_id: `'t' || n % 100`,
    policy_id: `'p' || n % 3001`,
  },
  'public.failure_matches': {
    run_id: `'r' || n`,
    error_code: `'E' || n % 500`,
    recovery_suggestion: `case when n % 2 = 0 then 's' end`,
    created_at: `now() - n * interval '1 minute'`,
  },
  'public.recovery_candidates': {
    failure_match_id: uuidOf('n'),
    idempotency_key: uuidOf('n'),
    suggestion: `'s'`,
    confidence: '0.5',
    decision: `case when n % 100 = 0 then 'approved' else 'pending' end`,
    created_at: at,
  },
};

/** Tables that rows of others refer to. */
const PARENTS = ['public.policy_rules', 'public.policy_proposals'];

const sidecar = useSidecar();
const planner = useClient(() => sidecar.url);
const fill = (table: string) => {
  const columns = FILLS[table]!;
  return sidecar.sql(`insert into ${table} (${Object.keys(columns).join(', ')})
    select ${Object.values(columns).join(', ')} from generate_series(1, ${ROWS}) n`);
};

/** Names of the indexes that hold the rows of one condition only. */
let partial: ReadonlySet<string>;
beforeAll(async () => {
  for (const table of PARENTS) await fill(table);
  await Promise.all(
    Object.keys(FILLS)
      .filter((table) => !PARENTS.includes(table))
      .map(fill),
  );
  // What autovacuum does in time.
  await sidecar.sql('vacuum analyze');
  const indexes = await sidecar.sql<{ name: string }>(
    'select relname as name from pg_index join pg_class c on c.oid = indexrelid where indpred is not null',
  );
  partial = new Set(indexes.map(({ name }) => name));
  await planner.query('set plan_cache_mode = force_generic_plan');
}, 180_000);

const runs = vi.spyOn(Wire.prototype, 'run');
afterAll(() => runs.mockRestore());

/** Texts of the prepared statements that a call runs: the server and this test share a process. */
const statementsOf = async (call: () => Promise<unknown>): Promise<string[]> => {
  runs.mockClear();
  await call();
  return runs.mock.calls.flatMap(([steps]) => steps.map(({ prepared }) => prepared.text));
};

/** The plan for any values of the parameters. */
const genericPlan = async (statement: string): Promise<string> => {
  const parameters = new Set(statement.match(/\$\d+/g)).size;
  await planner.query(`deallocate all; prepare planned as ${statement}`);
  const values = parameters === 0 ? '' : `(${Array(parameters).fill('null').join()})`;
  const { rows } = await planner.query<{ 'QUERY PLAN': string }>(`explain execute planned${values}`);
  return rows.map((line) => line['QUERY PLAN']).join('\n');
};

const since = { seconds: 1_735_700_000n, nanos: 0 };
const one = <M extends DescMethodUnary>(method: M, request: MessageInitShape<M['input']>, ...tables: string[]) =>
  [
    `${method.parent.name}.${method.name} ${JSON.stringify(request, (_key, value) => (typeof value === 'bigint' ? String(value) : value))}`,
    method as DescMethodUnary,
    request as unknown,
    tables,
  ] as const;

const engine = PolicyEngineService.method;
const graph = PolicyGraphService.method;
const rules = PolicyRulesReadService.method;
const proposals = PolicyProposalReadService.method;
const reviews = ProposalsReadService.method;
const arbitrator = PolicyArbitratorService.method;
const scopes = ScopeResolverService.method;
const recovery = RecoveryMatcherService.method;

const RULE_TABLES = ['public.policy_rules', 'public.policy_rule_integrity', 'public.policy_enforcements'];

/** Each plan of a call's reads of its tables, by table. */
const plansOf = async (
  method: DescMethodUnary,
  request: unknown,
  tables: readonly string[],
): Promise<{ readonly table: string; readonly reader: string; readonly plan: string }[]> => {
  const headers = method.name === 'Suggest' ? { transaction: 'single-use' } : {};
  const statements = await statementsOf(() => sidecar.grpc.unary(method, request as never, headers));
  const plans = [];
  for (const table of tables) {
    const readers = statements.filter((text) =>
      new RegExp(`\\b(from|join) ${table}\\b`).test(text.replaceAll('"', '')),
    );
    expect(readers, table).not.toEqual([]);
    for (const reader of readers) plans.push({ table, reader, plan: await genericPlan(reader) });
  }
  return plans;
};

/** Expects the table to be read by way of an index and never from end to end. */
const expectIndexed = (table: string, plan: string): void => {
  const name = table.split('.')[1];
  expect(plan).toMatch(new RegExp(`(Index( Only)? Scan.*|Bitmap Heap Scan) on ${name}\\b`));
  expect(plan).not.toMatch(new RegExp(`Seq Scan on ${name}\\b`));
};

/** Whether an index leads to the rows of a condition, rather than to all of them. */
const isNarrowed = (plan: string): boolean =>
  plan.includes('Index Cond:') || plan.match(/(?<= using | Scan on )\w+/g)!.some((name) => partial.has(name));

/** Whether an index brings the rows in the order of the list, so that its limit, if it has one, ends the scan. */
const isInOrder = (plan: string): boolean => /^(Limit|Index Scan)/.test(plan) && !/-> {2}Sort/.test(plan);

/** Reads of what a condition leaves. A stream runs the statement of its list. */
const NARROW = [
  one(engine.fetchViolations, { tenantId: 't1' }, 'policy.violations'),
  one(engine.fetchViolations, { agentId: 'a1' }, 'policy.violations'),
  one(engine.fetchViolations, { violationType: 'v1' }, 'policy.violations'),
  one(engine.fetchViolations, { since }, 'policy.violations'),
  one(engine.fetchViolations, { agentId: 'a1', since }, 'policy.violations'),
  one(engine.fetchViolationById, { violationId: ID }, 'policy.violations'),
  one(engine.fetchEvaluations, { tenantId: 't1' }, 'policy.evaluations'),
  one(engine.fetchEvaluations, { agentId: 'a1' }, 'policy.evaluations'),
  one(engine.fetchEvaluations, { actionType: 'x1' }, 'policy.evaluations'),
  one(engine.fetchEvaluations, { since }, 'policy.evaluations'),
  one(engine.fetchEvaluations, { tenantId: 't1', decision: 'block', since }, 'policy.evaluations'),
  one(engine.fetchEvaluationById, { evaluationId: ID }, 'policy.evaluations'),
  one(engine.fetchCurrentActiveVersion, {}, 'policy.policy_versions'),
  one(engine.fetchPolicyVersionById, { versionId: ID }, 'policy.policy_versions'),
  one(engine.fetchPolicyVersionByIdOrVersion, { versionId: 'v1' }, 'policy.policy_versions'),
  one(engine.fetchVersionForRollback, { version: 'v1' }, 'policy.policy_versions'),
  one(engine.fetchProvenance, { policyVersion: 'v1' }, 'policy.policy_provenance'),
  one(engine.fetchDependencyEdges, {}, 'policy.policy_dependencies'),
  one(engine.fetchDependencyEdges, { activeOnly: true }, 'policy.policy_dependencies'),
  one(engine.fetchDependencyEdgesWithType, {}, 'policy.policy_dependencies'),
  one(engine.fetchConflicts, {}, 'policy.policy_conflicts'),
  one(engine.fetchConflicts, { severityMin: 0.9 }, 'policy.policy_conflicts'),
  one(engine.fetchUnresolvedConflicts, {}, 'policy.policy_conflicts'),
  one(engine.fetchTemporalPolicies, {}, 'policy.temporal_policies'),
  one(engine.fetchTemporalPolicies, { metric: 'm1' }, 'policy.temporal_policies'),
  one(engine.fetchTemporalPolicies, { metric: 'm1', includeInactive: true }, 'policy.temporal_policies'),
  one(engine.fetchTemporalPolicyForUtilization, { policyId: ID }, 'policy.temporal_policies'),
  one(engine.fetchTemporalMetricSum, { policyId: ID, windowSeconds: 60n }, 'policy.temporal_metric_events'),
  one(
    engine.fetchTemporalMetricTotal,
    { policyId: ID, windowSeconds: 60n, agentId: 'a1' },
    'policy.temporal_metric_events',
    'policy.temporal_metric_windows',
  ),
  one(
    engine.fetchTemporalMetricTotal,
    { policyId: ID, windowSeconds: 60n, tenantId: 't1' },
    'policy.temporal_metric_events',
    'policy.temporal_metric_windows',
  ),
  one(engine.fetchTemporalMetricWindows, { policyId: ID }, 'policy.temporal_metric_windows'),
  one(engine.fetchTemporalMetricWindows, { policyId: ID, agentId: 'a1' }, 'policy.temporal_metric_windows'),
  one(engine.fetchTemporalMetricWindows, { policyId: ID, tenantId: 't1', since }, 'policy.temporal_metric_windows'),
  one(engine.fetchEthicalConstraints, {}, 'policy.ethical_constraints'),
  one(engine.fetchRiskCeilings, {}, 'policy.risk_ceilings'),
  one(engine.fetchSafetyRules, {}, 'policy.safety_rules'),
  one(engine.fetchBusinessRules, {}, 'policy.business_rules'),
  ...(
    [
      ['ETHICAL_CONSTRAINTS', 'policy.ethical_constraints'],
      ['RISK_CEILINGS', 'policy.risk_ceilings'],
      ['SAFETY_RULES', 'policy.safety_rules'],
      ['BUSINESS_RULES', 'policy.business_rules'],
      ['POLICIES', 'policy.policies'],
      ['TEMPORAL_POLICIES', 'policy.temporal_policies'],
      ['POLICY_VERSIONS', 'policy.policy_versions'],
      ['POLICY_DEPENDENCIES', 'policy.policy_dependencies'],
    ] as const
  ).map(([table, name]) => one(engine.fetchActivePoliciesForIntegrity, { table: IntegrityTable[table] }, name)),
  one(engine.fetchTemporalPoliciesForIntegrity, {}, 'policy.temporal_policies'),
  one(engine.fetchEthicalConstraintsForIntegrity, {}, 'policy.ethical_constraints'),
  one(engine.fetchSnapshotById, { snapshotId: 's1' }, 'policy.snapshots'),
  one(graph.fetchActivePolicies, { tenantId: 't1' }, 'public.policy_rules'),
  one(graph.fetchAllPolicies, { tenantId: 't1' }, 'public.policy_rules'),
  one(graph.fetchActiveLimits, { tenantId: 't1' }, 'public.limits'),
  one(graph.fetchAllLimits, { tenantId: 't1' }, 'public.limits'),
  one(graph.fetchResolvedConflicts, {}, 'policy.policy_conflicts'),
  one(rules.countPolicyRules, { tenantId: 't1' }, 'public.policy_rules'),
  one(rules.countPolicyRules, { tenantId: 't1', status: RuleStatus.RETIRED }, 'public.policy_rules'),
  one(rules.fetchPolicyRules, { tenantId: 't1' }, ...RULE_TABLES),
  one(rules.fetchPolicyRules, { tenantId: 't1', ruleType: 'SYSTEM', createdAfter: since }, ...RULE_TABLES),
  one(
    rules.fetchPolicyRules,
    { tenantId: 't1', enforcementMode: EnforcementMode.WARN, scope: RuleScope.TENANT, source: RuleSource.MANUAL },
    ...RULE_TABLES,
  ),
  one(rules.fetchPolicyRules, { tenantId: 't1', status: RuleStatus.RETIRED, createdBefore: since }, ...RULE_TABLES),
  one(rules.fetchPolicyRuleById, { tenantId: 't1', ruleId: 'r1' }, ...RULE_TABLES),
  one(PolicyRulesService.method.fetchRuleById, { tenantId: 't1', ruleId: 'r1' }, 'public.policy_rules'),
  one(proposals.fetchProposals, { tenantId: 't1' }, 'public.policy_proposals'),
  one(proposals.fetchProposals, { tenantId: 't1', status: 'draft' }, 'public.policy_proposals'),
  one(proposals.fetchProposalById, { proposalId: ID }, 'public.policy_proposals'),
  one(proposals.fetchProposalStatus, { proposalId: ID }, 'public.policy_proposals'),
  one(proposals.countVersionsForProposal, { proposalId: ID }, 'public.policy_versions'),
  one(proposals.fetchUnacknowledgedFeedback, {}, 'public.pattern_feedback'),
  one(proposals.fetchUnacknowledgedFeedback, { tenantId: 't1' }, 'public.pattern_feedback'),
  one(proposals.fetchUnacknowledgedFeedback, { feedbackType: 'p1' }, 'public.pattern_feedback'),
  one(proposals.fetchUnacknowledgedFeedback, { tenantId: 't1', feedbackType: 'p1' }, 'public.pattern_feedback'),
  one(proposals.checkRuleExists, { ruleId: 'r1' }, 'public.policy_rules'),
  one(proposals.fetchRuleById, { ruleId: 'r1', tenantId: 't1' }, 'public.policy_rules'),
  one(reviews.countDraftProposals, { tenantId: 't1' }, 'public.policy_proposals'),
  one(reviews.fetchProposals, { tenantId: 't1' }, 'public.policy_proposals'),
  one(reviews.fetchProposals, { tenantId: 't1', proposalType: 'p1', daysOld: 3 }, 'public.policy_proposals'),
  one(
    reviews.fetchProposals,
    { tenantId: 't1', status: 'approved', includeSynthetic: true },
    'public.policy_proposals',
  ),
  one(reviews.fetchProposalById, { tenantId: 't1', proposalId: ID }, 'public.policy_proposals'),
  one(reviews.listProposalsPaginated, { tenantId: 't1' }, 'public.policy_proposals'),
  one(
    reviews.listProposalsPaginated,
    { tenantId: 't1', status: 'draft', proposalType: 'p1' },
    'public.policy_proposals',
  ),
  one(reviews.getProposalStats, { tenantId: 't1' }, 'public.policy_proposals'),
  one(reviews.getProposalDetail, { proposalId: ID }, 'public.policy_proposals'),
  one(reviews.listProposalVersions, { proposalId: ID }, 'public.policy_versions'),
  one(PolicyReadService.method.getTenantBudgetSettings, { tenantId: 't1' }, 'public.tenants'),
  one(PolicyReadService.method.getGuardrailById, { guardrailId: 'g1' }, 'public.default_guardrails'),
  one(PolicyReadService.method.getUsageSumSince, { tenantId: 't1', since }, 'public.proxy_calls'),
  one(arbitrator.arbitrate, { tenantId: 't1', policyIds: ['p1', 'p1001'], arbInput: {} }, 'public.policy_precedence'),
  one(arbitrator.fetchPrecedences, { tenantId: 't1' }, 'public.policy_precedence'),
  one(arbitrator.fetchPrecedences, { tenantId: 't1', policyIds: ['p1'] }, 'public.policy_precedence'),
  one(scopes.resolveApplicablePolicies, { context: { tenantId: 't1' } }, 'public.policy_scopes'),
  one(scopes.getScopeForPolicy, { tenantId: 't1', policyId: 'p1' }, 'public.policy_scopes'),
  one(scopes.fetchScopes, { tenantId: 't1' }, 'public.policy_scopes'),
  one(scopes.fetchScopes, { tenantId: 't1', policyId: 'p1' }, 'public.policy_scopes'),
  one(recovery.getCandidates, { status: CandidateStatus.APPROVED }, 'public.recovery_candidates'),
  one(recovery.countCandidates, { status: CandidateStatus.APPROVED }, 'public.recovery_candidates'),
  one(recovery.suggest, { failureMatchId: ID, failurePayload: {} }, 'public.failure_matches'),
  one(RecoveryWriteService.method.getCandidateByIdempotencyKey, { idempotencyKey: ID }, 'public.recovery_candidates'),
];

/** Reads whose conditions leave a good part of the table, or none at all: the order is what the index is for. */
const ORDERED = [
  one(engine.fetchViolations, {}, 'policy.violations'),
  one(engine.fetchViolations, { severityMin: 0.9 }, 'policy.violations'),
  one(engine.fetchEvaluations, {}, 'policy.evaluations'),
  one(engine.fetchEvaluations, { decision: 'block' }, 'policy.evaluations'),
  one(engine.fetchPolicyVersions, {}, 'policy.policy_versions'),
  one(engine.fetchPolicyVersions, { includeInactive: true }, 'policy.policy_versions'),
  one(engine.fetchProvenance, {}, 'policy.policy_provenance'),
  one(engine.fetchConflicts, { includeResolved: true, severityMin: 0.9 }, 'policy.policy_conflicts'),
  one(proposals.fetchProposals, {}, 'public.policy_proposals'),
  one(proposals.fetchProposals, { status: 'draft' }, 'public.policy_proposals'),
  one(reviews.listProposalsPaginated, { status: 'draft' }, 'public.policy_proposals'),
  one(reviews.listProposalsPaginated, { proposalType: 'p1' }, 'public.policy_proposals'),
  one(recovery.getCandidates, { status: CandidateStatus.ALL }, 'public.recovery_candidates'),
];

/**
 * What reads whole tables by contract, which no index can shorten. Other RPCs do so too where nothing narrows them:
 * FetchDependencyEdges and FetchConflicts of all, unfiltered totals.
 */
const WHOLE = [
  engine.fetchDependencies,
  engine.fetchTemporalStats,
  engine.fetchTemporalStorageStats,
  PolicyReadService.method.listAllGuardrails,
  recovery.countByStatus,
];

// Without it a new list, or a new filter of an old one, would have no plan that anybody looks at.
test('every read of the database, and every filter of a list, has its plan or reads a whole table', () => {
  const cases = [...NARROW, ...ORDERED].map(([, method, request]) => ({
    method,
    fields: Object.keys(request as object),
  }));
  const missing = drivers(noServices)
    .flatMap(({ service, rpcs }) => service.methods.filter(({ localName }) => rpcs[localName]!.kind === 'read'))
    .filter((method) => method.methodKind === 'unary' && !WHOLE.includes(method as never))
    .flatMap((method) => {
      const own = cases.filter((each) => each.method === method);
      if (own.length === 0) return [`${method.parent.name}.${method.name}`];
      const filters = method.input.fields.filter(({ name }) => !/^(limit|offset|page_token)$/.test(name));
      return filters
        .filter(({ localName }) => !own.some(({ fields }) => fields.includes(localName)))
        .map(({ name }) => `${method.parent.name}.${method.name} by ${name}`);
    });
  expect(missing).toEqual([]);
});

test.each(NARROW)('%s reads what its condition leaves', async (_name, method, request, tables) => {
  for (const { table, reader, plan } of await plansOf(method, request, tables)) {
    expectIndexed(table, plan);
    expect(isNarrowed(plan), `${reader}\n${plan}`).toBe(true);
  }
});

test.each(ORDERED)('%s reads in the order of the list', async (_name, method, request, tables) => {
  for (const { table, reader, plan } of await plansOf(method, request, tables)) {
    expectIndexed(table, plan);
    expect(isInOrder(plan) || isNarrowed(plan), `${reader}\n${plan}`).toBe(true);
  }
});

/** Lists of which a request finds rows, so that there is a token. */
const PAGED = [...NARROW, ...ORDERED]
  .filter(([, { input }]) => input.fields.some(({ name }) => name === 'page_token'))
  .filter(([, , request]) => (request as { status?: unknown }).status !== RuleStatus.RETIRED);

/** Whether an index leads to the row that a page goes on after. */
const isSought = (plan: string): boolean => /Index Cond: .*(ROW\(|[<>]=|\((policy_)?id .*[<>] )/.test(plan);

test.each(PAGED)(
  '%s goes on where its last page ended, by an index where it begins by one',
  async (...[, method, request, tables]) => {
    const list = (more: object) => sidecar.grpc.unary(method, { ...(request as object), ...more });
    const { nextPageToken: pageToken } = (await list({ limit: 1 })) as { nextPageToken?: string };
    expect(pageToken).toBeDefined();
    const begins = await plansOf(method, request, tables);
    const goesOn = await plansOf(method, { ...(request as object), pageToken }, tables);
    for (const [index, { table, reader, plan }] of goesOn.entries()) {
      expectIndexed(table, plan);
      if (isInOrder(begins[index]!.plan)) expect(isSought(plan), `${reader}\n${plan}`).toBe(true);
    }
  },
);

// The other tests of lists have fewer rows than these defaults.
test.each([
  [engine.fetchViolations, {}, 100],
  [engine.fetchEvaluations, {}, 100],
  [engine.fetchPolicyVersions, {}, 20],
  [engine.fetchProvenance, {}, 50],
  [engine.fetchTemporalMetricWindows, { policyId: ID }, 100],
  [rules.fetchPolicyRules, { tenantId: 't1' }, 20],
  [proposals.fetchProposals, {}, 50],
  [reviews.fetchProposals, { tenantId: 't1' }, 50],
  [reviews.listProposalsPaginated, {}, 50],
  [arbitrator.fetchPrecedences, { tenantId: 't1' }, 100],
  [scopes.fetchScopes, { tenantId: 't1' }, 100],
  [recovery.getCandidates, {}, 50],
] as const)('$0.name of $1 without a limit brings $2 rows', async (method, request, most) => {
  const rows = method.output.fields.find(({ fieldKind }) => fieldKind === 'list')!.localName;
  const response = await sidecar.grpc.unary(method as DescMethodUnary, request);
  expect((response as unknown as Record<string, unknown[]>)[rows]).toHaveLength(most);
});
