import fc from 'fast-check';
import { PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import {
  ascending,
  descending,
  inOrder,
  instants,
  type ListModel,
  list,
  names,
  only,
  rowsOf,
  type StoredRow,
} from './model.ts';

const { method } = PolicyGraphService;

/** Text ids, whose order differs between the bytes and a language. */
const ids = fc.tuple(fc.constantFrom('r', 'R', 'ä', 'r-', 'z'), fc.nat(999)).map(([start, end]) => `${start}${end}`);
const tenants = fc.constantFrom('t', 'T', '');
const ofTenant = fc.record({ tenantId: fc.constantFrom('t', 'T', '', 'nobody') });

const rules = only(
  'public.policy_rules',
  rowsOf({
    id: ids,
    tenant_id: tenants,
    name: names,
    status: fc.constantFrom('ACTIVE', 'RETIRED'),
    created_at: instants,
  }),
);

const boundaries = only(
  'public.limits',
  rowsOf({
    id: ids,
    tenant_id: tenants,
    name: names,
    limit_category: fc.constantFrom('BUDGET', 'RATE'),
    limit_type: fc.constantFrom('RATE_RPM', 'COST_USD', 'cost_usd', 'ÄNDERUNG'),
    scope: fc.constantFrom('GLOBAL', 'TENANT', 'AGENT'),
    max_value: fc.constantFrom('1.5000', '0.0001'),
    status: fc.constantFrom('ACTIVE', 'DISABLED'),
  }),
);

const isActive = (row: StoredRow): boolean => row['status'] === 'ACTIVE';
const newestFirst = inOrder(descending('created_at'), descending('id'));

/** Lists of the policy graphs and of default guardrails. */
export const policyGraphLists: readonly ListModel[] = [
  list(method.fetchActivePolicies, {
    table: 'public.policy_rules',
    world: rules,
    request: ofTenant,
    chosen: (row, { tenantId }) => row['tenant_id'] === tenantId && isActive(row),
    order: newestFirst,
  }),
  list(method.fetchAllPolicies, {
    table: 'public.policy_rules',
    world: rules,
    request: ofTenant,
    chosen: (row, { tenantId }) => row['tenant_id'] === tenantId,
    order: newestFirst,
  }),
  list(method.fetchActiveLimits, {
    table: 'public.limits',
    world: boundaries,
    request: ofTenant,
    chosen: (row, { tenantId }) => row['tenant_id'] === tenantId && isActive(row),
    order: inOrder(ascending('limit_type'), ascending('scope'), ascending('id')),
  }),
  list(method.fetchAllLimits, {
    table: 'public.limits',
    world: boundaries,
    request: ofTenant,
    chosen: (row, { tenantId }) => row['tenant_id'] === tenantId,
    order: inOrder(ascending('limit_type'), ascending('id')),
  }),
  list(method.fetchResolvedConflicts, {
    table: 'policy.policy_conflicts',
    world: only(
      'policy.policy_conflicts',
      rowsOf({
        id: fc.uuid(),
        policy_a: names,
        policy_b: names,
        conflict_type: names,
        description: fc.constant('d'),
        resolved: fc.boolean(),
      }),
    ),
    request: fc.constant({}),
    // A pair is brought once, however many of its conflicts are settled.
    chosen: (row, _request, world) =>
      row['resolved'] &&
      world['policy.policy_conflicts']!.find(
        (each) => each['resolved'] && each['policy_a'] === row['policy_a'] && each['policy_b'] === row['policy_b'],
      ) === row,
    order: inOrder(ascending('policy_a'), ascending('policy_b')),
    keyOfRow: (row) => [row['policy_a'], row['policy_b']],
    keyOfItem: (item) => [item['policyA'], item['policyB']],
  }),
  list(PolicyReadService.method.listAllGuardrails, {
    table: 'public.default_guardrails',
    world: only(
      'public.default_guardrails',
      rowsOf({
        id: ids,
        category: names,
        rule_type: names,
        rule_config_json: fc.constant('{}'),
        action: names,
        priority: fc.constantFrom(-1, 0, 50, 100),
      }),
    ).map((world) => ({
      'public.default_guardrails': world['public.default_guardrails']!.map((row) => ({ ...row, name: row['id'] })),
    })),
    request: fc.constant({}),
    chosen: () => true,
    order: inOrder(ascending('priority'), ascending('id')),
  }),
];
