import type { Row } from '../../database/statement.ts';
import { type ColumnOf, column, type Table, tableName } from '../../database/table.ts';
import { BusinessRule } from '../../entities/business-rule.ts';
import { EthicalConstraint } from '../../entities/ethical-constraint.ts';
import { Policy } from '../../entities/policy.ts';
import { PolicyDependency } from '../../entities/policy-dependency.ts';
import { PolicySetVersion } from '../../entities/policy-set-version.ts';
import { RiskCeiling } from '../../entities/risk-ceiling.ts';
import { SafetyRule } from '../../entities/safety-rule.ts';
import { TemporalPolicy } from '../../entities/temporal-policy.ts';
import {
  EthicalConstraintForIntegritySchema,
  type FetchActivePoliciesForIntegrityRequest,
  IntegrityTable,
  type PolicyEngineService,
  type StreamActivePoliciesForIntegrityRequest,
  TemporalPolicyForIntegritySchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, rows } from '../../statements/answers.ts';
import type { Walk } from '../../statements/places.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read } from '../driver.ts';
import { activeRows } from './active-rows.ts';

const names = <E extends Table<'id' | 'is_active' | 'created_at'>>(entity: E, name: ColumnOf<E>) =>
  activeRows(`active_names.${tableName(entity)}`, entity, {
    expressions: [column(entity, name)],
    map: ([cell]: Row): string => cell!,
  });

const NAMES: Readonly<Record<Exclude<IntegrityTable, typeof IntegrityTable.UNSPECIFIED>, ReturnType<typeof names>>> = {
  [IntegrityTable.ETHICAL_CONSTRAINTS]: names(EthicalConstraint, 'name'),
  [IntegrityTable.RISK_CEILINGS]: names(RiskCeiling, 'name'),
  [IntegrityTable.SAFETY_RULES]: names(SafetyRule, 'name'),
  [IntegrityTable.BUSINESS_RULES]: names(BusinessRule, 'name'),
  [IntegrityTable.POLICIES]: names(Policy, 'name'),
  [IntegrityTable.TEMPORAL_POLICIES]: names(TemporalPolicy, 'name'),
  [IntegrityTable.POLICY_VERSIONS]: names(PolicySetVersion, 'version'),
  [IntegrityTable.POLICY_DEPENDENCIES]: names(PolicyDependency, 'source_policy'),
};

/** The boundary has refused every other number. */
const chosenNames = (
  { table }: FetchActivePoliciesForIntegrityRequest | StreamActivePoliciesForIntegrityRequest,
  walk: Walk,
) => NAMES[table as keyof typeof NAMES]!({}, walk);

const temporalPolicy = projection(TemporalPolicyForIntegritySchema, TemporalPolicy);
const temporalPolicies = activeRows('temporal_policies_for_integrity', TemporalPolicy, temporalPolicy);

const ethicalConstraint = projection(EthicalConstraintForIntegritySchema, EthicalConstraint);
const ethicalConstraints = activeRows('ethical_constraints_for_integrity', EthicalConstraint, ethicalConstraint);

/** What an engine reads to check that its policies are whole. */
export const integrityRpcs = {
  fetchActivePoliciesForIntegrity: read({}, rows('names', chosenNames)),
  streamActivePoliciesForIntegrity: read({}, each('name', chosenNames)),
  fetchTemporalPoliciesForIntegrity: read({}, rows('temporalPolicies', temporalPolicies)),
  streamTemporalPoliciesForIntegrity: read({}, each('temporalPolicy', temporalPolicies)),
  fetchEthicalConstraintsForIntegrity: read({}, rows('ethicalConstraints', ethicalConstraints)),
  streamEthicalConstraintsForIntegrity: read({}, each('ethicalConstraint', ethicalConstraints)),
} satisfies Part<typeof PolicyEngineService>;
