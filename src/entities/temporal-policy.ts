import { bool, defineTable, double, int, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { TENANT_OR_EVERYBODY } from './owner.ts';

/** A bound on a metric over time. */
export const TemporalPolicy = defineTable(
  'policy.temporal_policies',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    name: varchar(128),
    description: text().nullable(),
    temporal_type: varchar(50),
    metric: varchar(100),
    max_value: double(),
    window_seconds: int(),
    applies_to: varcharArray().nullable(),
    tenant_id: varchar(128).nullable(),
    agent_id: varchar(128).nullable(),
    breach_action: varchar(50).defaultRaw("'block'"),
    cooldown_on_breach: int().defaultRaw('0'),
    is_active: bool().defaultRaw('true'),
    breach_count: int().defaultRaw('0'),
    last_breach_at: timestamptz().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT_OR_EVERYBODY,
    changes: ['insert'],
    uniques: { temporal_policies_name_key: ['name'] },
    indexes: {
      ix_temporal_metric: ['metric'],
      ix_temporal_type: ['temporal_type'],
      ix_temporal_agent: ['agent_id'],
      ix_temporal_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
