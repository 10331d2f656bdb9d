import { defineTable, jsonb, timestamptz, varchar } from './columns.ts';

/** One time a rule was triggered. */
export const PolicyEnforcement = defineTable('public.policy_enforcements', {
  id: varchar().primary(),
  tenant_id: varchar(255),
  rule_id: varchar(),
  run_id: varchar().nullable(),
  incident_id: varchar().nullable(),
  action_taken: varchar(16),
  details: jsonb().nullable(),
  triggered_at: timestamptz().defaultRaw('now()'),
});
