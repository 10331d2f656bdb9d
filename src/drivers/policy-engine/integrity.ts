import { type Statement, statement } from '../../database/statement.ts';
import { type ColumnOf, column, type Table, table, tableName } from '../../database/table.ts';
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
  IntegrityTable,
  TemporalPolicyForIntegritySchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, rows } from '../../statements/answers.ts';
import { projection } from '../../statements/projection.ts';
import { read } from '../driver.ts';
import type { Part } from './contract.ts';

const active = (entity: Table<'id' | 'is_active' | 'created_at'>): string =>
  `from ${table(entity)} where ${column(entity, 'is_active')} order by ${column(entity, 'created_at')}, ${column(entity, 'id')}`;

const names = <E extends Table<'id' | 'is_active' | 'created_at'>>(entity: E, name: ColumnOf<E>): Statement<string> =>
  statement(
    `policy_engine.active_names.${tableName(entity)}`,
    `select ${column(entity, name)} ${active(entity)}`,
    ([cell]) => cell!,
  );

const NAMES: Readonly<Record<Exclude<IntegrityTable, typeof IntegrityTable.UNSPECIFIED>, Statement<string>>> = {
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
const namesOf = (chosen: IntegrityTable): Statement<string> => NAMES[chosen as keyof typeof NAMES]!;

const temporalPolicy = projection(TemporalPolicyForIntegritySchema, TemporalPolicy);
const temporalPolicies = statement(
  'policy_engine.temporal_policies_for_integrity',
  `select ${temporalPolicy.columns} ${active(TemporalPolicy)}`,
  temporalPolicy,
);

const ethicalConstraint = projection(EthicalConstraintForIntegritySchema, EthicalConstraint);
const ethicalConstraints = statement(
  'policy_engine.ethical_constraints_for_integrity',
  `select ${ethicalConstraint.columns} ${active(EthicalConstraint)}`,
  ethicalConstraint,
);

/** What an engine reads to check that its policies are whole. */
export const integrityRpcs = {
  fetchActivePoliciesForIntegrity: read(
    {},
    rows('names', (request) => namesOf(request.table).with()),
  ),
  streamActivePoliciesForIntegrity: read(
    {},
    each('name', (request) => namesOf(request.table).with()),
  ),
  fetchTemporalPoliciesForIntegrity: read(
    {},
    rows('temporalPolicies', () => temporalPolicies.with()),
  ),
  streamTemporalPoliciesForIntegrity: read(
    {},
    each('temporalPolicy', () => temporalPolicies.with()),
  ),
  fetchEthicalConstraintsForIntegrity: read(
    {},
    rows('ethicalConstraints', () => ethicalConstraints.with()),
  ),
  streamEthicalConstraintsForIntegrity: read(
    {},
    each('ethicalConstraint', () => ethicalConstraints.with()),
  ),
} satisfies Part;
