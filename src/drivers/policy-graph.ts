import { statement } from '../database/statement.ts';
import { column, table } from '../database/table.ts';
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
import { projection, rowsOf } from '../statements/projection.ts';
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

const newestFirst = 'order by created_at desc, id collate "C" desc';

const activePolicies = statement(
  'policy_graph.active_policies',
  `select ${activePolicy.columns} from ${table(PolicyRule)} where tenant_id = $1 and status = 'ACTIVE' ${newestFirst}`,
  activePolicy,
);

const allPolicies = statement(
  'policy_graph.all_policies',
  `select ${anyPolicy.columns} from ${table(PolicyRule)} where tenant_id = $1 ${newestFirst}`,
  anyPolicy,
);

const activeLimits = statement(
  'policy_graph.active_limits',
  `select ${activeLimit.columns} from ${table(Limit)} where tenant_id = $1 and status = 'ACTIVE'
  order by limit_type collate "C", scope collate "C", id collate "C"`,
  activeLimit,
);

const allLimits = statement(
  'policy_graph.all_limits',
  `select ${anyLimit.columns} from ${table(Limit)} where tenant_id = $1 order by limit_type collate "C", id collate "C"`,
  anyLimit,
);

const resolvedConflicts = statement(
  'policy_graph.resolved_conflicts',
  `select policy_a collate "C", policy_b collate "C" from ${table(PolicyConflict)} where resolved
  group by 1, 2 order by 1, 2`,
  rowsOf(PolicyPairSchema),
);

/** `PolicyGraphDriver`: rules, limits and settled conflicts behind the policy graphs. */
export const policyGraph = driver(PolicyGraphService, {
  fetchActivePolicies: read(
    {},
    rows('policies', ({ tenantId }) => activePolicies.with(tenantId)),
  ),
  fetchAllPolicies: read(
    {},
    rows('policies', ({ tenantId }) => allPolicies.with(tenantId)),
  ),
  fetchActiveLimits: read(
    {},
    rows('limits', ({ tenantId }) => activeLimits.with(tenantId)),
  ),
  fetchAllLimits: read(
    {},
    rows('limits', ({ tenantId }) => allLimits.with(tenantId)),
  ),
  fetchResolvedConflicts: read(
    {},
    rows('pairs', () => resolvedConflicts.with()),
  ),
  streamActivePolicies: read(
    {},
    each('policy', ({ tenantId }) => activePolicies.with(tenantId)),
  ),
  streamAllPolicies: read(
    {},
    each('policy', ({ tenantId }) => allPolicies.with(tenantId)),
  ),
  streamActiveLimits: read(
    {},
    each('limit', ({ tenantId }) => activeLimits.with(tenantId)),
  ),
  streamAllLimits: read(
    {},
    each('limit', ({ tenantId }) => allLimits.with(tenantId)),
  ),
  streamResolvedConflicts: read(
    {},
    each('pair', () => resolvedConflicts.with()),
  ),
});
