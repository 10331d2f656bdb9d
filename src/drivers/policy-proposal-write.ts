import { firstText, table } from '../database/projection.ts';
import { statement } from '../database/statement.ts';
import { jsonText, timestampToText } from '../database/values.ts';
import { PolicyProposal } from '../entities/policy-proposal.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { ProposalVersion } from '../entities/proposal-version.ts';
import { PolicyProposalWriteService } from '../gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import { driver, write } from './driver.ts';
import { fits, required } from './rules.ts';

const JSON_NULL = 'null';

const insertProposal = statement(
  'policy_proposal_write.insert_proposal',
  `insert into ${table(PolicyProposal)}
    (tenant_id, proposal_name, proposal_type, rationale, proposed_rule, triggering_feedback_ids, status, created_at, is_synthetic)
  values ($1, $2, $3, $4, $5::jsonb, $6::jsonb, 'draft', statement_timestamp(), false)
  returning id`,
  firstText,
);

const updateStatus = statement(
  'policy_proposal_write.update_status',
  `update ${table(PolicyProposal)}
  set status = $2, reviewed_at = $3::timestamptz, reviewed_by = $4, review_notes = $5, effective_from = $6::timestamptz
  where id = $1::uuid`,
);

const insertVersion = statement(
  'policy_proposal_write.insert_version',
  `insert into ${table(ProposalVersion)} (proposal_id, version, rule_snapshot, created_at, created_by, change_reason, is_current)
  values ($1::uuid, $2, $3::jsonb, statement_timestamp(), $4, $5, false)
  returning id`,
  firstText,
);

const insertRule = statement(
  'policy_proposal_write.insert_rule',
  `insert into ${table(PolicyRule)}
    (id, tenant_id, name, description, rule_type, conditions, actions, source_incident_id, is_synthetic, synthetic_scenario_id,
     priority, is_active, source_type, mode, confirmations_required, confirmations_received, regret_count,
     shadow_evaluations, shadow_would_block, activated_at, created_at, updated_at)
  values ($1, $2, $3, left(coalesce($4, ''), 500), $5, $6::jsonb, $7::jsonb, $8, $9, $10,
          100, true, 'proposal', 'active', 0, 1, 0, 0, 0, statement_timestamp(), statement_timestamp(), statement_timestamp())
  on conflict (id) do nothing`,
);

const deleteRule = statement(
  'policy_proposal_write.delete_rule',
  `delete from ${table(PolicyRule)} where id = $1 and tenant_id = $2`,
);

/** `PolicyProposalWriteDriver`: proposals, their versions, and the rules made of them. */
export const policyProposalWrite = driver(PolicyProposalWriteService, {
  createProposal: write(
    {
      tenant_id: required(fits(PolicyProposal, 'tenant_id')),
      proposal_name: required(fits(PolicyProposal, 'proposal_name')),
      proposal_type: required(fits(PolicyProposal, 'proposal_type')),
      rationale: required(),
    },
    async (db, request) => ({
      id: await db.one(insertProposal, [
        request.tenantId,
        request.proposalName,
        request.proposalType,
        request.rationale,
        jsonText(request.proposedRule) ?? JSON_NULL,
        JSON.stringify(request.triggeringFeedbackIds),
      ]),
    }),
  ),
  updateProposalStatus: write(
    {
      proposal_id: fits(PolicyProposal, 'id'),
      new_status: required(fits(PolicyProposal, 'status')),
      reviewed_by: fits(PolicyProposal, 'reviewed_by'),
    },
    async (db, request) => ({
      updated:
        (await db.execute(updateStatus, [
          request.proposalId,
          request.newStatus,
          request.reviewedAt && timestampToText(request.reviewedAt),
          request.reviewedBy,
          request.reviewNotes,
          request.effectiveFrom && timestampToText(request.effectiveFrom),
        ])) > 0n,
    }),
  ),
  createVersion: write(
    {
      proposal_id: fits(PolicyProposal, 'id'),
      version_number: required(),
      created_by: fits(ProposalVersion, 'created_by'),
    },
    async (db, request) => ({
      id: await db.one(insertVersion, [
        request.proposalId,
        request.versionNumber,
        jsonText(request.ruleSnapshot) ?? JSON_NULL,
        request.createdBy,
        request.changeReason,
      ]),
    }),
  ),
  createPolicyRule: write(
    {
      rule_id: required(),
      tenant_id: required(fits(PolicyRule, 'tenant_id')),
      name: required(fits(PolicyRule, 'name')),
      rule_type: required(fits(PolicyRule, 'rule_type')),
      source_incident_id: fits(PolicyRule, 'source_incident_id'),
      synthetic_scenario_id: fits(PolicyRule, 'synthetic_scenario_id'),
    },
    async (db, request) => ({
      ruleId: request.ruleId!,
      created:
        (await db.execute(insertRule, [
          request.ruleId,
          request.tenantId,
          request.name,
          request.description,
          request.ruleType,
          jsonText(request.conditions) ?? JSON_NULL,
          jsonText(request.actions) ?? JSON_NULL,
          request.sourceIncidentId,
          request.isSynthetic,
          request.syntheticScenarioId,
        ])) > 0n,
    }),
  ),
  deletePolicyRule: write({}, async (db, { ruleId, tenantId }) => ({
    deleted: (await db.execute(deleteRule, [ruleId, tenantId])) > 0n,
  })),
});
