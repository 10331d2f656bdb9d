import { defineTable, serial, text, timestamptz, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** To which runs of a tenant a policy applies. */
export const PolicyScope = defineTable(
  'public.policy_scopes',
  {
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
  },
  {
    rows: TENANT,
    changes: ['insert', 'update', 'delete'],
    checks: { ck_policy_scopes_scope_type: "scope_type in ('all_runs', 'agent', 'api_key', 'human_actor')" },
    uniqueIndexes: { ix_policy_scopes_scope_id: ['scope_id'] },
    indexes: {
      ix_policy_scopes_policy_id: ['policy_id'],
      ix_policy_scopes_tenant_id: ['tenant_id', 'id'],
      ix_policy_scopes_tenant_policy: ['tenant_id', 'policy_id', 'id'],
    },
  },
);
