import { defineTable, int, jsonb, numeric, text, timestamptz, varchar } from './columns.ts';

/** A bound on spending, rate or another measure. */
export const Limit = defineTable('public.limits', {
  id: varchar().primary(),
  tenant_id: varchar(255),
  name: varchar(256),
  description: text().nullable(),
  limit_category: varchar(16),
  limit_type: varchar(32),
  scope: varchar(16).defaultRaw("'TENANT'"),
  scope_id: varchar().nullable(),
  max_value: numeric(18, 4),
  reset_period: varchar(16).nullable(),
  next_reset_at: timestamptz().nullable(),
  window_seconds: int().nullable(),
  measurement_window_seconds: int().nullable(),
  enforcement: varchar(16).defaultRaw("'BLOCK'"),
  consequence: varchar(16).nullable(),
  status: varchar(16).defaultRaw("'ACTIVE'"),
  created_at: timestamptz().defaultRaw('now()'),
  updated_at: timestamptz().defaultRaw('now()'),
  params: jsonb().defaultRaw("'{}'"),
});
