import { firstText, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { TemporalPolicy } from '../../entities/temporal-policy.ts';
import {
  type FetchTemporalPoliciesRequest,
  InsertTemporalPolicyRequestSchema,
  type PolicyEngineService,
  type StreamTemporalPoliciesRequest,
  TemporalPolicySchema,
  TemporalUtilizationBasisSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, row, rows } from '../../statements/answers.ts';
import { where } from '../../statements/filters.ts';
import { fits } from '../../statements/fits.ts';
import { insert } from '../../statements/insert.ts';
import { list } from '../../statements/lists.ts';
import type { Walk } from '../../statements/places.ts';
import { projection } from '../../statements/projection.ts';
import { type Part, read, write } from '../driver.ts';

const of = columnsOf(TemporalPolicy);
const temporalPolicy = projection(TemporalPolicySchema, TemporalPolicy);
const basis = projection(TemporalUtilizationBasisSchema, TemporalPolicy);

// A constant condition lets PostgreSQL use the index of the rows that meet it, whatever the parameters.
const temporalPolicies = (name: string, ...always: string[]) =>
  list(`policy_engine.${name}`, {
    entity: TemporalPolicy,
    always,
    filters: { metric: where.text(`${of('metric')} = ?`) },
    order: ['created_at', 'id'],
    reading: temporalPolicy,
  });

const allPolicies = temporalPolicies('temporal_policies');
const activePolicies = temporalPolicies('active_temporal_policies', of('is_active'));

const utilizationBasis = statement(
  'policy_engine.temporal_policy_for_utilization',
  `select ${basis.columns} from ${table(TemporalPolicy)} where ${of('id')} = $1::uuid`,
  basis,
);

const newPolicy = insert(TemporalPolicy, InsertTemporalPolicyRequestSchema);

const insertTemporalPolicy = newPolicy.statement(
  'policy_engine.insert_temporal_policy',
  `returning ${of('id')}`,
  firstText,
);

const matching = (request: FetchTemporalPoliciesRequest | StreamTemporalPoliciesRequest, walk: Walk) =>
  (request.includeInactive ? allPolicies : activePolicies)(request, walk);

/** Bounds on a metric over time. */
export const temporalPolicyRpcs = {
  fetchTemporalPolicies: read({}, rows('temporalPolicies', matching)),
  streamTemporalPolicies: read({}, each('temporalPolicy', matching)),
  fetchTemporalPolicyForUtilization: read(
    { policy_id: fits(TemporalPolicy, 'id') },
    row('utilization', ({ policyId }) => utilizationBasis.with(policyId)),
  ),
  insertTemporalPolicy: write(newPolicy.rules, one('policyId', insertTemporalPolicy, { rowsAffected: 1n })),
} satisfies Part<typeof PolicyEngineService>;
