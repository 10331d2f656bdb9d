import type { DescMethodUnary } from '@bufbuild/protobuf';
import fc, { type Arbitrary } from 'fast-check';
import { IntegrityTable, PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import {
  ascending,
  asText,
  bounds,
  descending,
  inOrder,
  instants,
  type ListModel,
  limits,
  list,
  matches,
  names,
  only,
  optional,
  reaches,
  rowsOf,
  type StoredRow,
  wanted,
} from './model.ts';

const { method } = PolicyEngineService;

const severity = fc.constantFrom(0, 0.1, 0.5, 0.5000000000000001, 1);
const nothing = fc.constant({});
const nullable = <T>(value: Arbitrary<T>): Arbitrary<T | null> => fc.option(value, { nil: null });
const one = <T>(value: T): Arbitrary<T> => fc.constant(value);

/** Rows of a table whose names are unique. */
const namedRows = (columns: Record<string, Arbitrary<unknown>>): Arbitrary<StoredRow[]> =>
  rowsOf({ id: fc.uuid(), is_active: fc.boolean(), created_at: instants, ...columns }).map((rows) =>
    rows.map((row) => ({ ...row, name: `n-${row['id']}` })),
  );

const isActive = (row: StoredRow): boolean => row['is_active'];
const byName = { keyOfRow: (row: StoredRow) => row['name'], keyOfItem: (item: StoredRow) => item['name'] };

const configuration: Record<string, Record<string, Arbitrary<unknown>>> = {
  ethical_constraints: { description: one('d'), constraint_type: names },
  risk_ceilings: { metric: names, max_value: severity },
  safety_rules: { rule_type: names, condition: one({}), action: one('block') },
  business_rules: { rule_type: names, condition: one({}), constraint: one({}) },
};

const configured = (operation: DescMethodUnary, table: string): ListModel =>
  list(operation, {
    table: `policy.${table}`,
    world: only(`policy.${table}`, namedRows(configuration[table]!)),
    request: nothing,
    chosen: isActive,
    order: inOrder(ascending('created_at'), ascending('id')),
  });

const versionRows = rowsOf({
  id: fc.uuid(),
  version: fc.uuid(),
  policy_hash: one('h'),
  created_by: one('x'),
  created_at: instants,
  is_active: fc.boolean(),
  rolled_back_at: nullable(instants),
});

const dependencyRows = rowsOf({
  id: fc.uuid(),
  source_policy: fc.uuid(),
  target_policy: names,
  dependency_type: names,
  is_active: fc.boolean(),
  created_at: instants,
});
const dependencies = only('policy.policy_dependencies', dependencyRows);
const bySource = {
  keyOfRow: (row: StoredRow) => row['source_policy'],
  keyOfItem: (item: StoredRow) => item['sourcePolicy'],
};

const conflicts = only(
  'policy.policy_conflicts',
  rowsOf({
    id: fc.uuid(),
    policy_a: names,
    policy_b: names,
    conflict_type: names,
    description: fc.uuid(),
    severity,
    resolved: fc.boolean(),
    detected_at: instants,
  }),
);

const namedTemporal = namedRows({ temporal_type: names, metric: names, max_value: one(1), window_seconds: one(60) });
const temporalPolicies = only('policy.temporal_policies', namedTemporal);

/** Policies that several rows may share. */
const policies = fc.constantFrom('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-00000000000b');

const integrity = (table: IntegrityTable, stored: string, rows: Arbitrary<StoredRow[]>, name = 'name'): ListModel =>
  list(method.fetchActivePoliciesForIntegrity, {
    table: stored,
    world: only(stored, rows),
    request: one({ table }),
    chosen: isActive,
    order: inOrder(ascending('created_at'), ascending('id')),
    keyOfRow: (row) => row[name],
    keyOfItem: (item) => item,
  });

/** Lists of the policy engine. */
export const policyEngineLists: readonly ListModel[] = [
  configured(method.fetchEthicalConstraints, 'ethical_constraints'),
  configured(method.fetchRiskCeilings, 'risk_ceilings'),
  configured(method.fetchSafetyRules, 'safety_rules'),
  configured(method.fetchBusinessRules, 'business_rules'),
  list(method.fetchViolations, {
    table: 'policy.violations',
    world: only(
      'policy.violations',
      rowsOf({
        id: fc.uuid(),
        violation_type: names,
        agent_id: nullable(names),
        tenant_id: nullable(names),
        severity,
        description: one('d'),
        detected_at: instants,
      }),
    ),
    request: optional({
      violationType: wanted,
      agentId: wanted,
      tenantId: wanted,
      severityMin: severity,
      since: bounds,
      limit: limits,
    }),
    chosen: (row, { violationType, agentId, tenantId, severityMin, since }) =>
      matches(row['violation_type'], violationType) &&
      matches(row['agent_id'], agentId) &&
      matches(row['tenant_id'], tenantId) &&
      reaches(row['severity'], severityMin) &&
      reaches(row['detected_at'], since && asText(since as never)),
    order: inOrder(descending('detected_at'), descending('id')),
    limit: 100,
  }),
  list(method.fetchEvaluations, {
    table: 'policy.evaluations',
    world: only(
      'policy.evaluations',
      rowsOf({
        id: fc.uuid(),
        action_type: names,
        agent_id: nullable(names),
        tenant_id: nullable(names),
        decision: names,
        evaluated_at: instants,
      }),
    ),
    request: optional({
      actionType: wanted,
      agentId: wanted,
      tenantId: wanted,
      decision: wanted,
      since: bounds,
      limit: limits,
    }),
    chosen: (row, { actionType, agentId, tenantId, decision, since }) =>
      matches(row['action_type'], actionType) &&
      matches(row['agent_id'], agentId) &&
      matches(row['tenant_id'], tenantId) &&
      matches(row['decision'], decision) &&
      reaches(row['evaluated_at'], since && asText(since as never)),
    order: inOrder(descending('evaluated_at'), descending('id')),
    limit: 100,
  }),
  list(method.fetchPolicyVersions, {
    table: 'policy.policy_versions',
    world: only('policy.policy_versions', versionRows),
    request: optional({ includeInactive: fc.boolean(), limit: limits }),
    chosen: (row, { includeInactive }) => includeInactive || row['rolled_back_at'] === null,
    order: inOrder(descending('created_at'), descending('id')),
    limit: 20,
  }),
  list(method.fetchProvenance, {
    table: 'policy.policy_provenance',
    world: only(
      'policy.policy_provenance',
      rowsOf({
        id: fc.uuid(),
        policy_id: policies,
        policy_type: names,
        action: one('update'),
        changed_by: fc.uuid(),
        policy_version: names,
        changed_at: instants,
      }),
    ),
    request: optional({ policyVersion: wanted, limit: limits }),
    chosen: (row, { policyVersion }) => matches(row['policy_version'], policyVersion),
    order: inOrder(descending('changed_at'), descending('id')),
    limit: 50,
    keyOfRow: (row) => row['changed_by'],
    keyOfItem: (item) => item['changedBy'],
  }),
  list(method.fetchDependencies, {
    table: 'policy.policy_dependencies',
    world: dependencies,
    request: nothing,
    chosen: () => true,
    order: inOrder(ascending('created_at'), ascending('id')),
  }),
  list(method.fetchDependencyEdges, {
    table: 'policy.policy_dependencies',
    world: dependencies,
    request: optional({ activeOnly: fc.boolean() }),
    chosen: (row, { activeOnly = true }) => !activeOnly || isActive(row),
    order: inOrder(ascending('created_at'), ascending('id')),
    ...bySource,
  }),
  list(method.fetchDependencyEdgesWithType, {
    table: 'policy.policy_dependencies',
    world: dependencies,
    request: nothing,
    chosen: isActive,
    order: inOrder(ascending('created_at'), ascending('id')),
    ...bySource,
  }),
  list(method.fetchConflicts, {
    table: 'policy.policy_conflicts',
    world: conflicts,
    request: optional({ includeResolved: fc.boolean(), severityMin: severity }),
    chosen: (row, { includeResolved, severityMin }) =>
      (includeResolved || !row['resolved']) && reaches(row['severity'], severityMin),
    order: inOrder(ascending('detected_at'), ascending('id')),
  }),
  list(method.fetchUnresolvedConflicts, {
    table: 'policy.policy_conflicts',
    world: conflicts,
    request: nothing,
    chosen: (row) => !row['resolved'],
    order: inOrder(ascending('detected_at'), ascending('id')),
    keyOfRow: (row) => row['description'],
    keyOfItem: (item) => item['description'],
  }),
  list(method.fetchTemporalPolicies, {
    table: 'policy.temporal_policies',
    world: temporalPolicies,
    request: optional({ metric: wanted, includeInactive: fc.boolean() }),
    chosen: (row, { metric, includeInactive }) => (includeInactive || isActive(row)) && matches(row['metric'], metric),
    order: inOrder(ascending('created_at'), ascending('id')),
  }),
  list(method.fetchTemporalMetricWindows, {
    table: 'policy.temporal_metric_windows',
    world: only(
      'policy.temporal_metric_windows',
      rowsOf({
        id: fc.uuid(),
        policy_id: policies,
        agent_id: nullable(names),
        tenant_id: nullable(names),
        window_key: fc.uuid(),
        window_start: instants,
        window_end: instants,
      }),
    ),
    request: fc
      .tuple(policies, optional({ agentId: wanted, tenantId: wanted, since: bounds, limit: limits }))
      .map(([policyId, rest]) => ({ policyId, ...rest })),
    chosen: (row, { policyId, agentId, tenantId, since }) =>
      row['policy_id'] === policyId &&
      matches(row['agent_id'], agentId) &&
      matches(row['tenant_id'], tenantId) &&
      (!since || row['window_end'] > asText(since as never)),
    order: inOrder(descending('window_start'), descending('id')),
    limit: 100,
  }),
  list(method.fetchTemporalPoliciesForIntegrity, {
    table: 'policy.temporal_policies',
    world: temporalPolicies,
    request: nothing,
    chosen: isActive,
    order: inOrder(ascending('created_at'), ascending('id')),
    ...byName,
  }),
  list(method.fetchEthicalConstraintsForIntegrity, {
    table: 'policy.ethical_constraints',
    world: only('policy.ethical_constraints', namedRows(configuration['ethical_constraints']!)),
    request: nothing,
    chosen: isActive,
    order: inOrder(ascending('created_at'), ascending('id')),
    ...byName,
  }),
  ...Object.entries(configuration).map(([table, columns]) =>
    integrity(
      IntegrityTable[table.toUpperCase() as keyof typeof IntegrityTable],
      `policy.${table}`,
      namedRows(columns),
    ),
  ),
  integrity(IntegrityTable.POLICIES, 'policy.policies', namedRows({ category: names })),
  integrity(IntegrityTable.TEMPORAL_POLICIES, 'policy.temporal_policies', namedTemporal),
  integrity(IntegrityTable.POLICY_VERSIONS, 'policy.policy_versions', versionRows, 'version'),
  integrity(IntegrityTable.POLICY_DEPENDENCIES, 'policy.policy_dependencies', dependencyRows, 'source_policy'),
];
