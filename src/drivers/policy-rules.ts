import { enumText, projection, table } from '../database/projection.ts';
import type { Param } from '../database/statement.ts';
import { statement } from '../database/statement.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { PolicyRuleIntegrity } from '../entities/policy-rule-integrity.ts';
import {
  type CreateIntegrityRequest,
  type CreateRuleRequest,
  EnforcementMode,
  EnforcementModeSchema,
  IntegrityStatusSchema,
  PolicyRuleIntegritySchema,
  PolicyRulePatchSchema,
  PolicyRuleSchema,
  PolicyRulesService,
  RuleScope,
  RuleScopeSchema,
  RuleSource,
  RuleSourceSchema,
  RuleStatus,
  RuleStatusSchema,
} from '../gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { driver, read, write } from './driver.ts';
import { byMask, notNull, patchAssignments, patchCheck, patchParams } from './patch.ts';
import { all, filled, fits, mask, nested, required } from './rules.ts';

const rule = projection(PolicyRuleSchema, PolicyRule);
const integrity = projection(PolicyRuleIntegritySchema, PolicyRuleIntegrity);

const ruleById = statement(
  'policy_rules.rule_by_id',
  `select ${rule.columns} from ${table(PolicyRule)} where tenant_id = $1 and id = $2`,
  rule.map,
);

const insertRule = statement(
  'policy_rules.insert_rule',
  `insert into ${table(PolicyRule)} (${rule.columns}, is_active, mode)
  values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9::text, $10, $11, $12, $13, $14, $15, $16::timestamptz, $17, $18, $19,
          coalesce($20::timestamptz, statement_timestamp()), coalesce($21::timestamptz, statement_timestamp()),
          case when $9::text = 'ACTIVE' then true end, case when $9::text = 'ACTIVE' then 'active' end)
  returning ${rule.columns}`,
  rule.map,
);

const insertIntegrity = statement(
  'policy_rules.insert_integrity',
  `insert into ${table(PolicyRuleIntegrity)} (${integrity.columns})
  values ($1, $2, $3, $4::numeric, $5, $6::jsonb, coalesce($7::timestamptz, statement_timestamp()))
  returning ${integrity.columns}`,
  integrity.map,
);

const patchPaths = PolicyRulePatchSchema.fields.map(({ name }) => name);

const status = `$${4 + patchPaths.indexOf('status')}::text`;
const retires = `'status' = any($3::text[]) and ${status} = 'RETIRED'`;

/** Other readers of the table look at these alone: a rule that is retired must not look active to them. */
const DEACTIVATED = `is_active = case when ${retires} then null else is_active end, mode = case when ${retires} then null else mode end`;

const updateRule = statement(
  'policy_rules.update_rule',
  `update ${table(PolicyRule)} set ${patchAssignments(PolicyRule, PolicyRulePatchSchema, 3)}, ${DEACTIVATED}
  where tenant_id = $1 and id = $2 returning ${rule.columns}`,
  rule.map,
);

const retireRule = statement(
  'policy_rules.retire_rule',
  `update ${table(PolicyRule)} set status = 'RETIRED', retired_at = statement_timestamp(), retired_by = $3, retirement_reason = $4,
     superseded_by = $5, updated_at = statement_timestamp(), is_active = null, mode = null
  where tenant_id = $1 and id = $2 returning ${rule.columns}`,
  rule.map,
);

const ruleParams = (given: CreateRuleRequest): Param[] => [
  given.id,
  given.tenantId,
  given.name,
  given.description,
  enumText(EnforcementModeSchema, given.enforcementMode ?? EnforcementMode.WARN),
  enumText(RuleScopeSchema, given.scope ?? RuleScope.TENANT),
  given.scopeId,
  jsonText(given.conditions),
  enumText(RuleStatusSchema, given.status ?? RuleStatus.ACTIVE),
  given.createdBy,
  enumText(RuleSourceSchema, given.source ?? RuleSource.MANUAL),
  given.ruleType ?? 'SYSTEM',
  given.sourceProposalId,
  given.parentRuleId,
  given.legacyRuleId,
  given.retiredAt && timestampToText(given.retiredAt),
  given.retiredBy,
  given.retirementReason,
  given.supersededBy,
  given.createdAt && timestampToText(given.createdAt),
  given.updatedAt && timestampToText(given.updatedAt),
];

const integrityParams = (given: CreateIntegrityRequest): Param[] => [
  given.id,
  given.ruleId,
  enumText(IntegrityStatusSchema, given.integrityStatus!),
  given.integrityScore,
  given.hashRoot,
  jsonText(given.details),
  given.computedAt && timestampToText(given.computedAt),
];

const ruleFits = {
  name: fits(PolicyRule, 'name'),
  rule_type: fits(PolicyRule, 'rule_type'),
};

const newRule = {
  id: required(),
  tenant_id: required(fits(PolicyRule, 'tenant_id')),
  name: required(ruleFits.name),
  rule_type: ruleFits.rule_type,
};

const newIntegrity = {
  id: required(),
  rule_id: required(),
  integrity_status: required(),
  integrity_score: required(fits(PolicyRuleIntegrity, 'integrity_score')),
  hash_root: required(),
};

/** `PolicyRulesDriver`: rules and their verdicts, one row at a time. */
export const policyRules = driver(PolicyRulesService, {
  fetchRuleById: read({}, async (db, { tenantId, ruleId }) => ({ rule: await db.row(ruleById, [tenantId, ruleId]) })),
  addRule: write({ rule: required(), ...nested('rule', newRule) }, async (db, request) => ({
    rule: await db.one(insertRule, ruleParams(request.rule!)),
  })),
  addIntegrity: write({ integrity: required(), ...nested('integrity', newIntegrity) }, async (db, request) => ({
    integrity: await db.one(insertIntegrity, integrityParams(request.integrity!)),
  })),
  createRule: write(newRule, async (db, request) => ({ rule: await db.one(insertRule, ruleParams(request)) })),
  createIntegrity: write(newIntegrity, async (db, request) => ({
    integrity: await db.one(insertIntegrity, integrityParams(request)),
  })),
  flush: write({}, () => ({})),
  updateRule: write(
    { updates: byMask, update_mask: required(all(mask(patchPaths), filled)) },
    async (db, { tenantId, ruleId, updates, updateMask }) => {
      const { paths } = updateMask!;
      const params = patchParams(PolicyRulePatchSchema, updates, paths);
      return { rule: await db.row(updateRule, [tenantId, ruleId, ...params]) };
    },
    patchCheck(PolicyRulePatchSchema, ruleFits, notNull(PolicyRule)),
  ),
  retireRule: write({}, async (db, { tenantId, ruleId, by, reason, supersededBy }) => ({
    rule: await db.row(retireRule, [tenantId, ruleId, by, reason, supersededBy]),
  })),
});
