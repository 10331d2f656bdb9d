import { bool, defineTable, double, int, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** What no agent may do, and how strictly that is enforced. */
export const EthicalConstraint = defineTable(
  'policy.ethical_constraints',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    description: text(),
    constraint_type: varchar(50),
    forbidden_patterns: varcharArray().nullable(),
    required_disclosures: varcharArray().nullable(),
    transparency_threshold: double().nullable(),
    enforcement_level: varchar(20).defaultRaw("'strict'"),
    violation_action: varchar(50).defaultRaw("'block'"),
    is_active: bool().defaultRaw('true'),
    violated_count: int().defaultRaw('0'),
    last_violated_at: timestamptz().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
    applies_to: varcharArray().nullable(),
    tenant_id: varchar(128).nullable(),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    uniques: { ethical_constraints_name_key: ['name'] },
    indexes: {
      ix_ethical_constraints_type: ['constraint_type'],
      ix_ethical_constraints_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
