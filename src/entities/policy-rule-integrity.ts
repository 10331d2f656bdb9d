import { defineTable, jsonb, numeric, text, timestamptz, varchar } from './columns.ts';

/** The verdict on a rule, at most one a rule. */
export const PolicyRuleIntegrity = defineTable(
  'public.policy_rule_integrity',
  {
    id: varchar().primary(),
    rule_id: varchar(),
    integrity_status: varchar(16),
    integrity_score: numeric(4, 3),
    hash_root: text(),
    details: jsonb().nullable(),
    computed_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: { of: 'parent', column: 'rule_id', parent: 'public.policy_rules' },
    changes: ['insert'],
    foreignKeys: {
      policy_rule_integrity_rule_id_fkey: { on: 'rule_id', to: 'public.policy_rules', onDelete: 'cascade' },
    },
    uniques: { policy_rule_integrity_rule_id_key: ['rule_id'] },
    checks: { ck_policy_rule_integrity_status: "integrity_status in ('VERIFIED', 'DEGRADED', 'FAILED')" },
    indexes: {
      ix_policy_rule_integrity_status: ['integrity_status'],
      ix_policy_rule_integrity_computed_at: ['computed_at'],
    },
  },
);
