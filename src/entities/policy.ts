import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** A policy in its general form. */
export const Policy = defineTable(
  'policy.policies',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    category: varchar(50),
    description: text().nullable(),
    rules: jsonb().defaultRaw("'{}'"),
    constraints: jsonb().defaultRaw("'{}'"),
    version: int().defaultRaw('1'),
    is_active: bool().defaultRaw('true'),
    supersedes_id: uuid().nullable(),
    applies_to: varcharArray().nullable(),
    tenant_id: varchar(128).nullable(),
    priority: int().defaultRaw('100'),
    signature: varchar(256).nullable(),
    signed_at: timestamptz().nullable(),
    signed_by: varchar(128).nullable(),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
    effective_from: timestamptz().nullable(),
    effective_until: timestamptz().nullable(),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    uniques: { policies_name_key: ['name'] },
    indexes: {
      ix_policies_category: ['category'],
      ix_policies_tenant_id: ['tenant_id'],
      ix_policies_active: ['is_active'],
      ix_policies_priority: ['priority'],
    },
  },
);
