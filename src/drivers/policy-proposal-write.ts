import { required } from '../contract/rules.ts';
import { firstText, statement } from '../database/statement.ts';
import { table } from '../database/table.ts';
import { timestampToText } from '../database/values.ts';
import { PolicyProposal } from '../entities/policy-proposal.ts';
import { PolicyRule } from '../entities/policy-rule.ts';
import { ProposalVersion } from '../entities/proposal-version.ts';
import {
  CreatePolicyRuleRequestSchema,
  CreateProposalRequestSchema,
  CreateVersionRequestSchema,
  PolicyProposalWriteService,
} from '../gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import { affected, one, reply } from '../statements/answers.ts';
import { fits } from '../statements/fits.ts';
import { insert } from '../statements/insert.ts';
import { driver, write } from './driver.ts';

/** What is stored for a document that the request leaves out. */
const JSON_NULL = `'null'`;

const newProposal = insert(PolicyProposal, CreateProposalRequestSchema, {
  defaults: { proposed_rule: JSON_NULL },
  binders: { triggering_feedback_ids: (ids: readonly string[]) => JSON.stringify(ids) },
  constants: { status: `'draft'`, created_at: 'statement_timestamp()', is_synthetic: 'false' },
});

const insertProposal = newProposal.statement('policy_proposal_write.insert_proposal', 'returning id', firstText);

const updateStatus = statement(
  'policy_proposal_write.update_status',
  `update ${table(PolicyProposal)}
  set status = $2, reviewed_at = $3::timestamptz, reviewed_by = $4, review_notes = $5, effective_from = $6::timestamptz
  where id = $1::uuid`,
);

const newVersion = insert(ProposalVersion, CreateVersionRequestSchema, {
  columns: { version_number: 'version' },
  defaults: { rule_snapshot: JSON_NULL },
  constants: { created_at: 'statement_timestamp()', is_current: 'false' },
});

const insertVersion = newVersion.statement('policy_proposal_write.insert_version', 'returning id', firstText);

/** A rule that has just become active. */
const newRule = insert(PolicyRule, CreatePolicyRuleRequestSchema, {
  columns: { rule_id: 'id' },
  defaults: { conditions: JSON_NULL, actions: JSON_NULL },
  expressions: { description: (given: string) => `left(coalesce(${given}, ''), 500)` },
  constants: {
    priority: '100',
    is_active: 'true',
    source_type: `'proposal'`,
    mode: `'active'`,
    confirmations_required: '0',
    confirmations_received: '1',
    regret_count: '0',
    shadow_evaluations: '0',
    shadow_would_block: '0',
    activated_at: 'statement_timestamp()',
    created_at: 'statement_timestamp()',
    updated_at: 'statement_timestamp()',
  },
});

const insertRule = newRule.statement('policy_proposal_write.insert_rule', 'on conflict (id) do nothing');

const deleteRule = statement(
  'policy_proposal_write.delete_rule',
  `delete from ${table(PolicyRule)} where id = $1 and tenant_id = $2`,
);

/** `PolicyProposalWriteDriver`: proposals, their versions, and the rules made of them. */
export const policyProposalWrite = driver(PolicyProposalWriteService, {
  createProposal: write(newProposal.rules, one('id', insertProposal)),
  updateProposalStatus: write(
    {
      proposal_id: fits(PolicyProposal, 'id'),
      new_status: required(fits(PolicyProposal, 'status')),
      reviewed_by: fits(PolicyProposal, 'reviewed_by'),
    },
    affected((request) =>
      updateStatus.with(
        request.proposalId,
        request.newStatus,
        request.reviewedAt && timestampToText(request.reviewedAt),
        request.reviewedBy,
        request.reviewNotes,
        request.effectiveFrom && timestampToText(request.effectiveFrom),
      ),
    ),
  ),
  createVersion: write(newVersion.rules, one('id', insertVersion)),
  createPolicyRule: write(
    newRule.rules,
    reply(insertRule, (_rows, count, { ruleId }) => ({ ruleId: ruleId!, created: count > 0n })),
  ),
  deletePolicyRule: write(
    {},
    affected(({ ruleId, tenantId }) => deleteRule.with(ruleId, tenantId)),
  ),
});
