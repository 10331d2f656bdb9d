import { defineTable, numeric, timestamptz, varchar } from './columns.ts';

/** The verdict on a limit, at most one a limit. */
export const LimitIntegrity = defineTable('public.limit_integrity', {
  id: varchar().primary(),
  limit_id: varchar(),
  integrity_status: varchar(16),
  integrity_score: numeric(5, 4),
  computed_at: timestamptz().defaultRaw('now()'),
});
