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
import { documentOr } from '../statements/documents.ts';
import { projection, rowsOf } from '../statements/projection.ts';
import { driver, read } from './driver.ts';
import { each } from './streams.ts';

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
  fetchActivePolicies: read({}, async (db, { tenantId }) => ({ policies: await db.rows(activePolicies, [tenantId]) })),
  fetchAllPolicies: read({}, async (db, { tenantId }) => ({ policies: await db.rows(allPolicies, [tenantId]) })),
  fetchActiveLimits: read({}, async (db, { tenantId }) => ({ limits: await db.rows(activeLimits, [tenantId]) })),
  fetchAllLimits: read({}, async (db, { tenantId }) => ({ limits: await db.rows(allLimits, [tenantId]) })),
  fetchResolvedConflicts: read({}, async (db) => ({ pairs: await db.rows(resolvedConflicts, []) })),
  streamActivePolicies: read({}, (db, { tenantId }) => each(db.stream(activePolicies, [tenantId]), 'policy')),
  streamAllPolicies: read({}, (db, { tenantId }) => each(db.stream(allPolicies, [tenantId]), 'policy')),
  streamActiveLimits: read({}, (db, { tenantId }) => each(db.stream(activeLimits, [tenantId]), 'limit')),
  streamAllLimits: read({}, (db, { tenantId }) => each(db.stream(allLimits, [tenantId]), 'limit')),
  streamResolvedConflicts: read({}, (db) => each(db.stream(resolvedConflicts, []), 'pair')),
});
