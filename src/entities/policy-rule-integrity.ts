import { defineTable, jsonb, numeric, text, timestamptz, varchar } from './columns.ts';

/** The verdict on a rule, at most one a rule. */
export const PolicyRuleIntegrity = defineTable('public.policy_rule_integrity', {
  id: varchar().primary(),
  rule_id: varchar(),
  integrity_status: varchar(16),
  integrity_score: numeric(4, 3),
  hash_root: text(),
  details: jsonb().nullable(),
  computed_at: timestamptz().defaultRaw('now()'),
});
