import { column } from '../database/table.ts';
import { Limit } from '../entities/limit.ts';
import { PolicyConflict } from '../entities/policy-conflict.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import {
  ActiveLimitNodeSchema,
  ActivePolicyNodeSchema,
  LimitNodeSchema,
  PolicyGraphService,
  PolicyNodeSchema,
  PolicyPairSchema,
} from '../gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { each, rows } from '../statements/answers.ts';
import { documentOr } from '../statements/documents.ts';
import { where } from '../statements/filters.ts';
import { list } from '../statements/lists.ts';
import { projection, rowsOf, type Selected } from '../statements/projection.ts';
import { driver, read } from './driver.ts';

const nodeExpressions = {
  rule_type: `coalesce(nullif(${column(PolicyRule, 'rule_type')}, ''), 'SYSTEM')`,
  conditions: documentOr('{}', column(PolicyRule, 'conditions')),
  parent_rule_id: `nullif(${column(PolicyRule, 'parent_rule_id')}, '')`,
};
const activePolicy = projection(ActivePolicyNodeSchema, PolicyRule, { expressions: nodeExpressions });
const anyPolicy = projection(PolicyNodeSchema, PolicyRule, { expressions: nodeExpressions });

const limitExpressions = { limit_value: column(Limit, 'max_value') };
const activeLimit = projection(ActiveLimitNodeSchema, Limit, { expressions: limitExpressions });
const anyLimit = projection(LimitNodeSchema, Limit, { expressions: limitExpressions });

const ofTenant = where.exactText('tenant_id = ?');
const active = "status = 'ACTIVE'";

const policies = <T>(name: string, reading: Selected<T>, ...always: string[]) =>
  list(`policy_graph.${name}`, {
    entity: PolicyRule,
    always,
    base: { tenantId: ofTenant },
    order: ['created_at desc', 'id collate "C" desc'],
    reading,
  });

const activePolicies = policies('active_policies', activePolicy, active);
const allPolicies = policies('all_policies', anyPolicy);

const activeLimits = list('policy_graph.active_limits', {
  entity: Limit,
  always: [active],
  base: { tenantId: ofTenant },
  order: ['limit_type collate "C"', 'scope collate "C"', 'id collate "C"'],
  reading: activeLimit,
});

const allLimits = list('policy_graph.all_limits', {
  entity: Limit,
  base: { tenantId: ofTenant },
  order: ['limit_type collate "C"', 'id collate "C"'],
  reading: anyLimit,
});

const resolvedConflicts = list('policy_graph.resolved_conflicts', {
  entity: PolicyConflict,
  always: ['resolved'],
  distinct: true,
  order: ['policy_a collate "C"', 'policy_b collate "C"'],
  reading: {
    expressions: [column(PolicyConflict, 'policy_a'), column(PolicyConflict, 'policy_b')].map(
      (each) => `${each} collate "C"`,
    ),
    ...rowsOf(PolicyPairSchema),
  },
});

/** `PolicyGraphDriver`: rules, limits and settled conflicts behind the policy graphs. */
export const policyGraph = driver(PolicyGraphService, {
  fetchActivePolicies: read({}, rows('policies', activePolicies)),
  fetchAllPolicies: read({}, rows('policies', allPolicies)),
  fetchActiveLimits: read({}, rows('limits', activeLimits)),
  fetchAllLimits: read({}, rows('limits', allLimits)),
  fetchResolvedConflicts: read({}, rows('pairs', resolvedConflicts)),
  streamActivePolicies: read({}, each('policy', activePolicies)),
  streamAllPolicies: read({}, each('policy', allPolicies)),
  streamActiveLimits: read({}, each('limit', activeLimits)),
  streamAllLimits: read({}, each('limit', allLimits)),
  streamResolvedConflicts: read({}, each('pair', resolvedConflicts)),
});
