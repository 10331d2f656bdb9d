import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';

/** A version of a proposal's rule; not to be mistaken for a version of the policy set. */
export const ProposalVersion = defineTable('public.policy_versions', {
  id: uuid().primary().defaultRaw('gen_random_uuid()'),
  proposal_id: uuid(),
  version: int(),
  rule_snapshot: jsonb(),
  created_at: timestamptz().defaultRaw('now()'),
  created_by: varchar(255).nullable(),
  change_reason: text().nullable(),
  is_current: bool().defaultRaw('false'),
});
