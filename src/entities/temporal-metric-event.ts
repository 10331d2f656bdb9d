import { defineTable, double, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** One measured value that counts towards a temporal policy. */
export const TemporalMetricEvent = defineTable(
  'policy.temporal_metric_events',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    policy_id: uuid(),
    agent_id: varchar(128).nullable(),
    tenant_id: varchar(128).nullable(),
    metric: varchar(100),
    value: double(),
    occurred_at: timestamptz().defaultRaw('now()'),
    action_type: varchar(50).nullable(),
    request_id: varchar(128).nullable(),
  },
  {
    rows: TENANT,
    changes: ['insert', 'update', 'delete'],
    indexes: {
      ix_metric_events_policy: ['policy_id'],
      ix_metric_events_occurred: ['occurred_at'],
      ix_metric_events_agent: ['agent_id'],
      ix_metric_events_policy_occurred: ['policy_id', 'occurred_at desc', 'id desc'],
    },
  },
);
