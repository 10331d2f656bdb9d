import { nested, required } from '../contract/rules.ts';
import { statement } from '../database/statement.ts';
import { table } from '../database/table.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { PolicyRuleIntegrity } from '../entities/policy-rule-integrity.ts';
import {
  CreateIntegrityRequestSchema,
  CreateRuleRequestSchema,
  PolicyRuleIntegritySchema,
  PolicyRulePatchSchema,
  PolicyRuleSchema,
  PolicyRulesService,
} from '../gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { one, row } from '../statements/answers.ts';
import { insert } from '../statements/insert.ts';
import { patch } from '../statements/patch.ts';
import { projection } from '../statements/projection.ts';
import { driver, read, write } from './driver.ts';

const rule = projection(PolicyRuleSchema, PolicyRule);
const integrity = projection(PolicyRuleIntegritySchema, PolicyRuleIntegrity);

const ruleById = statement(
  'policy_rules.rule_by_id',
  `select ${rule.columns} from ${table(PolicyRule)} where tenant_id = $1 and id = $2`,
  rule,
);

const newRule = insert(PolicyRule, CreateRuleRequestSchema, {
  defaults: {
    enforcement_mode: `'WARN'`,
    scope: `'TENANT'`,
    status: `'ACTIVE'`,
    source: `'MANUAL'`,
    rule_type: `'SYSTEM'`,
    created_at: 'statement_timestamp()',
    updated_at: 'statement_timestamp()',
  },
  constants: {
    is_active: (stored) => `case when ${stored('status')} = 'ACTIVE' then true end`,
    mode: (stored) => `case when ${stored('status')} = 'ACTIVE' then 'active' end`,
  },
});

const insertRule = newRule.statement('policy_rules.insert_rule', `returning ${rule.columns}`, rule);

const newIntegrity = insert(PolicyRuleIntegrity, CreateIntegrityRequestSchema, {
  defaults: { computed_at: 'statement_timestamp()' },
});

const insertIntegrity = newIntegrity.statement(
  'policy_rules.insert_integrity',
  `returning ${integrity.columns}`,
  integrity,
);

const rulePatch = patch(PolicyRule, PolicyRulePatchSchema);

const retires = rulePatch.becomes('status', `'RETIRED'`, 3);

/** Other readers of the table look at these alone: a rule that is retired must not look active to them. */
const DEACTIVATED = `is_active = case when ${retires} then null else is_active end, mode = case when ${retires} then null else mode end`;

const updateRule = statement(
  'policy_rules.update_rule',
  `update ${table(PolicyRule)} set ${rulePatch.assignments(3)}, ${DEACTIVATED}
  where tenant_id = $1 and id = $2 returning ${rule.columns}`,
  rule,
);

const retireRule = statement(
  'policy_rules.retire_rule',
  `update ${table(PolicyRule)} set status = 'RETIRED', retired_at = statement_timestamp(), retired_by = $3, retirement_reason = $4,
     superseded_by = $5, updated_at = statement_timestamp(), is_active = null, mode = null
  where tenant_id = $1 and id = $2 returning ${rule.columns}`,
  rule,
);

/** `PolicyRulesDriver`: rules and their verdicts, one row at a time. */
export const policyRules = driver(PolicyRulesService, {
  fetchRuleById: read(
    {},
    row('rule', ({ tenantId, ruleId }) => ruleById.with(tenantId, ruleId)),
  ),
  addRule: write(
    { rule: required(), ...nested('rule', newRule.rules) },
    one('rule', ({ rule }) => insertRule(rule!)),
  ),
  addIntegrity: write(
    { integrity: required(), ...nested('integrity', newIntegrity.rules) },
    one('integrity', ({ integrity }) => insertIntegrity(integrity!)),
  ),
  createRule: write(newRule.rules, one('rule', insertRule)),
  createIntegrity: write(newIntegrity.rules, one('integrity', insertIntegrity)),
  flush: write({}, () => ({})),
  updateRule: write(
    rulePatch.rules,
    row('rule', (request) => updateRule.with(request.tenantId, request.ruleId, ...rulePatch.params(request))),
    rulePatch.check,
  ),
  retireRule: write(
    {},
    row('rule', ({ tenantId, ruleId, by, reason, supersededBy }) =>
      retireRule.with(tenantId, ruleId, by, reason, supersededBy),
    ),
  ),
});
