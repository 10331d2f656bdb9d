import { bool, defineTable, double, int, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** An upper bound on a metric over a window, and what a breach does. */
export const RiskCeiling = defineTable(
  'policy.risk_ceilings',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    description: text().nullable(),
    metric: varchar(100),
    max_value: double(),
    current_value: double().defaultRaw('0'),
    window_seconds: int().defaultRaw('3600'),
    applies_to: varcharArray().nullable(),
    tenant_id: varchar(128).nullable(),
    breach_action: varchar(50).defaultRaw("'block'"),
    breach_count: int().defaultRaw('0'),
    last_breach_at: timestamptz().nullable(),
    is_active: bool().defaultRaw('true'),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    changes: ['update'],
    uniques: { risk_ceilings_name_key: ['name'] },
    indexes: {
      ix_risk_ceilings_metric: ['metric'],
      ix_risk_ceilings_tenant_id: ['tenant_id'],
      ix_risk_ceilings_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
