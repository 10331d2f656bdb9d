import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** A commercial condition and the constraint it brings. */
export const BusinessRule = defineTable(
  'policy.business_rules',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    description: text().nullable(),
    rule_type: varchar(50),
    condition: jsonb(),
    constraint: jsonb(),
    tenant_id: varchar(128).nullable(),
    customer_tier: varchar(50).nullable(),
    priority: int().defaultRaw('100'),
    is_active: bool().defaultRaw('true'),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    uniques: { business_rules_name_key: ['name'] },
    indexes: {
      ix_business_rules_rule_type: ['rule_type'],
      ix_business_rules_tenant_id: ['tenant_id'],
      ix_business_rules_customer_tier: ['customer_tier'],
      ix_business_rules_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
