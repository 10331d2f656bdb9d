import { defineTable, double, int, text, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** Events of one policy, tenant, agent and UTC hour, compacted to their sum, count and maximum. */
export const TemporalMetricWindow = defineTable(
  'policy.temporal_metric_windows',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    policy_id: uuid(),
    agent_id: varchar(128).nullable(),
    tenant_id: varchar(128).nullable(),
    window_key: text(),
    current_sum: double().defaultRaw('0'),
    current_count: int().defaultRaw('0'),
    current_max: double().defaultRaw('0'),
    window_start: timestamptz(),
    window_end: timestamptz(),
    updated_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: TENANT,
    changes: ['insert', 'update'],
    uniqueIndexes: { ix_metric_windows_key: ['window_key'] },
    indexes: { ix_metric_windows_policy: ['policy_id'], ix_metric_windows_policy_start: ['policy_id', 'window_start'] },
  },
);
