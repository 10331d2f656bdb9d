import { bool, defineTable, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** A rule that somebody, or a learning loop, proposes. */
export const PolicyProposal = defineTable(
  'public.policy_proposals',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    tenant_id: varchar(255),
    proposal_name: varchar(255),
    proposal_type: varchar(50),
    rationale: text(),
    proposed_rule: jsonb(),
    triggering_feedback_ids: jsonb().defaultRaw("'[]'"),
    status: varchar(20).defaultRaw("'draft'"),
    created_at: timestamptz().defaultRaw('now()'),
    reviewed_at: timestamptz().nullable(),
    reviewed_by: varchar(255).nullable(),
    review_notes: text().nullable(),
    effective_from: timestamptz().nullable(),
    is_synthetic: bool().defaultRaw('false'),
    synthetic_scenario_id: varchar(64).nullable(),
  },
  {
    rows: TENANT,
    changes: ['insert', 'update'],
    indexes: {
      ix_policy_proposals_tenant: ['tenant_id'],
      ix_policy_proposals_type: ['proposal_type'],
      ix_policy_proposals_tenant_status: ['tenant_id', 'status'],
      ix_policy_proposals_draft: { on: ['tenant_id', 'status'], where: "status = 'draft'" },
      ix_policy_proposals_created_at: ['created_at'],
      ix_policy_proposals_synthetic: ['is_synthetic', 'synthetic_scenario_id'],
      ix_policy_proposals_created_at_id: ['created_at desc', 'id desc'],
      ix_policy_proposals_tenant_created_at: ['tenant_id', 'created_at desc', 'id desc'],
      ix_policy_proposals_status_created_at: ['status', 'created_at desc', 'id desc'],
      ix_policy_proposals_tenant_status_created_at: ['tenant_id', 'status', 'created_at desc', 'id desc'],
    },
  },
);
