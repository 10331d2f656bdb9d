import { statement } from '../../database/statement.ts';
import { column, table } from '../../database/table.ts';
import { BusinessRule } from '../../entities/business-rule.ts';
import { EthicalConstraint } from '../../entities/ethical-constraint.ts';
import { RiskCeiling } from '../../entities/risk-ceiling.ts';
import { SafetyRule } from '../../entities/safety-rule.ts';
import {
  BusinessRuleSchema,
  EthicalConstraintSchema,
  type PolicyEngineService,
  RiskCeilingPatchSchema,
  RiskCeilingSchema,
  SafetyRulePatchSchema,
  SafetyRuleSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, each, rows } from '../../statements/answers.ts';
import { fits } from '../../statements/fits.ts';
import { patchUpdate } from '../../statements/patch.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';
import { activeRows } from './active-rows.ts';

const ethicalConstraints = activeRows(
  'ethical_constraints',
  EthicalConstraint,
  projection(EthicalConstraintSchema, EthicalConstraint),
);
const riskCeilings = activeRows('risk_ceilings', RiskCeiling, projection(RiskCeilingSchema, RiskCeiling));
const safetyRules = activeRows('safety_rules', SafetyRule, projection(SafetyRuleSchema, SafetyRule));
const businessRules = activeRows('business_rules', BusinessRule, projection(BusinessRuleSchema, BusinessRule));

const riskCeilingPatch = patchUpdate('policy_engine.update_risk_ceiling', RiskCeiling, RiskCeilingPatchSchema, {
  idField: 'ceiling_id',
});

const safetyRulePatch = patchUpdate('policy_engine.update_safety_rule', SafetyRule, SafetyRulePatchSchema, {
  idField: 'rule_id',
});

const resetRiskCeiling = statement(
  'policy_engine.reset_risk_ceiling',
  `update ${table(RiskCeiling)} set ${column(RiskCeiling, 'current_value')} = 0 where id = $1::uuid`,
);

/** Constraints, ceilings and rules that an engine loads, and the changes it may make to them. */
export const configurationRpcs = {
  fetchEthicalConstraints: read({}, rows('ethicalConstraints', ethicalConstraints)),
  fetchRiskCeilings: read({}, rows('riskCeilings', riskCeilings)),
  fetchSafetyRules: read({}, rows('safetyRules', safetyRules)),
  fetchBusinessRules: read({}, rows('businessRules', businessRules)),
  streamEthicalConstraints: read({}, each('ethicalConstraint', ethicalConstraints)),
  streamRiskCeilings: read({}, each('riskCeiling', riskCeilings)),
  streamSafetyRules: read({}, each('safetyRule', safetyRules)),
  streamBusinessRules: read({}, each('businessRule', businessRules)),
  updateRiskCeiling: write(riskCeilingPatch.rules, affected(riskCeilingPatch.ask), riskCeilingPatch.check),
  resetRiskCeiling: write(
    { ceiling_id: fits(RiskCeiling, 'id') },
    affected(({ ceilingId }) => resetRiskCeiling.with(ceilingId)),
  ),
  updateSafetyRule: write(safetyRulePatch.rules, affected(safetyRulePatch.ask), safetyRulePatch.check),
} satisfies Part<typeof PolicyEngineService>;
