import { defineTable, jsonb, timestamptz, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** One time a rule was triggered. */
export const PolicyEnforcement = defineTable(
  'public.policy_enforcements',
  {
    id: varchar().primary(),
    tenant_id: varchar(255),
    rule_id: varchar(),
    run_id: varchar().nullable(),
    incident_id: varchar().nullable(),
    action_taken: varchar(16),
    details: jsonb().nullable(),
    triggered_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT,
    foreignKeys: {
      policy_enforcements_rule_id_fkey: { on: 'rule_id', to: 'public.policy_rules', onDelete: 'cascade' },
    },
    checks: { ck_policy_enforcements_action_taken: "action_taken in ('BLOCKED', 'WARNED', 'AUDITED')" },
    indexes: {
      ix_policy_enforcements_rule_id: ['rule_id'],
      ix_policy_enforcements_rule_triggered_at: ['rule_id', 'triggered_at'],
      ix_policy_enforcements_run_id: ['run_id'],
      ix_policy_enforcements_tenant_triggered_at: ['tenant_id', 'triggered_at'],
    },
  },
);
