import { defineTable, serial, text, timestamptz, varchar } from './columns.ts';

/** To which runs of a tenant a policy applies. */
export const PolicyScope = defineTable('public.policy_scopes', {
  id: serial().primary(),
  scope_id: varchar(64),
  policy_id: varchar(64),
  tenant_id: varchar(64),
  scope_type: varchar(32).defaultRaw("'all_runs'"),
  agent_ids_json: text().nullable(),
  api_key_ids_json: text().nullable(),
  human_actor_ids_json: text().nullable(),
  description: text().nullable(),
  created_by: varchar(64).nullable(),
  created_at: timestamptz().defaultRaw('now()'),
  updated_at: timestamptz().defaultRaw('now()'),
});
