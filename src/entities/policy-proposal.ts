import { bool, defineTable, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';

/** A rule that somebody, or a learning loop, proposes. */
export const PolicyProposal = defineTable('public.policy_proposals', {
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
});
