import { defineTable, double, int, jsonb, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT } from './owner.ts';

/** One decision of an engine about one action. */
export const Evaluation = defineTable(
  'policy.evaluations',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    policy_id: uuid().nullable(),
    policy_name: varchar(128).nullable(),
    action_type: varchar(50),
    agent_id: varchar(128).nullable(),
    tenant_id: varchar(128).nullable(),
    request_context: jsonb().defaultRaw("'{}'"),
    decision: varchar(20),
    decision_reason: text().nullable(),
    modifications: jsonb().nullable(),
    evaluation_ms: double().nullable(),
    policies_checked: int().defaultRaw('0'),
    rules_matched: varcharArray().nullable(),
    evaluated_at: timestamptz().defaultRaw('now()'),
    policy_version: varchar(50).nullable(),
    policy_hash: varchar(64).nullable(),
    temporal_policies_checked: int().nullable().defaultRaw('0'),
    dependencies_checked: int().nullable().defaultRaw('0'),
    conflicts_detected: int().nullable().defaultRaw('0'),
  },
  {
    rows: TENANT,
    changes: ['insert'],
    indexes: {
      ix_evaluations_decision: ['decision'],
      ix_evaluations_evaluated_at_id: ['evaluated_at desc', 'id desc'],
      ix_evaluations_tenant_evaluated_at: ['tenant_id', 'evaluated_at desc', 'id desc'],
      ix_evaluations_agent_evaluated_at: ['agent_id', 'evaluated_at desc', 'id desc'],
      ix_evaluations_action_evaluated_at: ['action_type', 'evaluated_at desc', 'id desc'],
    },
  },
);
