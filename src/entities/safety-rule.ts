import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** A condition under which an action is stopped, escalated or slowed down. */
export const SafetyRule = defineTable(
  'policy.safety_rules',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    description: text().nullable(),
    rule_type: varchar(50),
    condition: jsonb(),
    action: varchar(50),
    cooldown_seconds: int().nullable(),
    applies_to: varcharArray().nullable(),
    tenant_id: varchar(128).nullable(),
    priority: int().defaultRaw('100'),
    is_active: bool().defaultRaw('true'),
    triggered_count: int().defaultRaw('0'),
    last_triggered_at: timestamptz().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    changes: ['update'],
    uniques: { safety_rules_name_key: ['name'] },
    indexes: {
      ix_safety_rules_rule_type: ['rule_type'],
      ix_safety_rules_tenant_id: ['tenant_id'],
      ix_safety_rules_priority: ['priority'],
      ix_safety_rules_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
