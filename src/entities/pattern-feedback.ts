import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** A pattern that was noticed and may lead to a proposal. */
export const PatternFeedback = defineTable(
  'public.pattern_feedback',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    tenant_id: varchar(255),
    pattern_type: varchar(50),
    severity: varchar(20).defaultRaw("'info'"),
    description: text(),
    signature: varchar(255).nullable(),
    provenance: jsonb().defaultRaw("'[]'"),
    occurrence_count: int().defaultRaw('1'),
    time_window_minutes: int().nullable(),
    threshold_used: varchar(100).nullable(),
    metadata: jsonb().nullable(),
    detected_at: timestamptz().defaultRaw('now()'),
    created_at: timestamptz().defaultRaw('now()'),
    acknowledged: bool().defaultRaw('false'),
    acknowledged_at: timestamptz().nullable(),
    acknowledged_by: varchar(255).nullable(),
  },
  {
    rows: TENANT,
    indexes: {
      ix_pattern_feedback_tenant: ['tenant_id'],
      ix_pattern_feedback_type: ['pattern_type'],
      ix_pattern_feedback_signature: ['signature'],
      ix_pattern_feedback_tenant_type: ['tenant_id', 'pattern_type'],
      ix_pattern_feedback_detected_at: ['detected_at'],
      ix_pattern_feedback_unacknowledged: { on: ['tenant_id', 'acknowledged'], where: 'not acknowledged' },
      ix_pattern_feedback_open_created_at: { on: ['created_at', 'id'], where: 'not acknowledged' },
      ix_pattern_feedback_open_type_created_at: { on: ['pattern_type', 'created_at', 'id'], where: 'not acknowledged' },
    },
  },
);
