import { page } from '../contract/rules.ts';
import { count, statement } from '../database/statement.ts';
import { column, table, tableName } from '../database/table.ts';
import { PolicyEnforcement } from '../entities/policy-enforcement.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { PolicyRuleIntegrity } from '../entities/policy-rule-integrity.ts';
import {
  EnforcementModeSchema,
  RuleScopeSchema,
  RuleSourceSchema,
  RuleStatus,
  RuleStatusSchema,
} from '../gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import {
  PolicyRuleDetailSchema,
  PolicyRuleSummarySchema,
  PolicyRulesReadService,
} from '../gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { one, row } from '../statements/answers.ts';
import { enumText } from '../statements/codecs.ts';
import { listed } from '../statements/element-rows.ts';
import { filteredCount, nonEmpty, where } from '../statements/filters.ts';
import { list } from '../statements/lists.ts';
import { projection } from '../statements/projection.ts';
import { driver, read } from './driver.ts';

const joined = {
  alias: 'rule',
  expressions: {
    rule_id: column(PolicyRule, 'id', 'rule'),
    integrity_status: 'verdict.integrity_status',
    integrity_score: 'verdict.integrity_score',
    trigger_count_30d: 'triggers.count',
    last_triggered_at: 'triggers.last',
  },
  origins: {
    integrity_status: `${tableName(PolicyRuleIntegrity)}.integrity_status`,
    integrity_score: `${tableName(PolicyRuleIntegrity)}.integrity_score`,
    last_triggered_at: `${tableName(PolicyEnforcement)}.triggered_at`,
  },
};
const summary = projection(PolicyRuleSummarySchema, PolicyRule, joined);
const detail = projection(PolicyRuleDetailSchema, PolicyRule, { ...joined, omit: ['rule_definition'] });

const from = `${table(PolicyRule)} rule
  join ${table(PolicyRuleIntegrity)} verdict on verdict.rule_id = rule.id
  left join lateral (
    select count(*) as count, max(triggered_at) as last from ${table(PolicyEnforcement)} enforcement
    where enforcement.rule_id = rule.id and triggered_at >= statement_timestamp() - interval '30 days'
  ) triggers on true`;

const base = {
  tenantId: where.exactText('rule.tenant_id = ?'),
  status: where.member(RuleStatusSchema, 'rule.status = ?'),
};
const filters = {
  enforcementMode: where.member(EnforcementModeSchema, 'rule.enforcement_mode = ?'),
  scope: where.member(RuleScopeSchema, 'rule.scope = ?'),
  source: where.member(RuleSourceSchema, 'rule.source = ?'),
  ruleType: where.exactText('rule.rule_type = ?'),
  createdAfter: where.instant('rule.created_at >= ?::timestamptz'),
  createdBefore: where.instant('rule.created_at <= ?::timestamptz'),
};

const rules = list('policy_rules_read.rules', {
  entity: PolicyRule,
  alias: 'rule',
  from,
  base,
  filters,
  order: [{ sql: 'triggers.last', type: 'timestamptz' }, 'created_at desc', 'id collate "C" desc'],
  paged: true,
  reading: summary,
});

const total = filteredCount('policy_rules_read.total', {
  select: `select count(*) from ${table(PolicyRule)} rule`,
  base,
  filters,
});

const ruleById = statement(
  'policy_rules_read.rule_by_id',
  `select ${detail.columns} from ${from} where rule.tenant_id = $1 and rule.id = $2`,
  detail,
);

const countRules = statement(
  'policy_rules_read.count',
  `select count(*) from ${table(PolicyRule)} where tenant_id = $1 and status = $2`,
  count,
);

/** `PolicyRulesReadDriver`: rules with their verdicts and recent triggers. */
export const policyRulesRead = driver(PolicyRulesReadService, {
  fetchPolicyRules: read({ limit: page, offset: page }, async (db, request, { size }, walk) => {
    const values = { ...request, status: request.status ?? RuleStatus.ACTIVE };
    // The two read an empty type differently: the list looks for it, the count does not.
    const counted = total({ ...values, ruleType: nonEmpty(request.ruleType) });
    const query = rules(values, walk, { limit: request.limit ?? 20, offset: request.offset });
    return {
      total: await db.one(counted.statement, counted.params),
      ...(await listed(db, query, walk, PolicyRuleSummarySchema, size)),
    };
  }),
  fetchPolicyRuleById: read(
    {},
    row('rule', ({ tenantId, ruleId }) => ruleById.with(tenantId, ruleId)),
  ),
  countPolicyRules: read(
    {},
    one('count', ({ tenantId, status = RuleStatus.ACTIVE }) =>
      countRules.with(tenantId, enumText(RuleStatusSchema, status)),
    ),
  ),
});
