import { defineTable, int, serial, text, timestamptz, uuid } from './columns.ts';

/** One candidate waiting for evaluation. */
export const WorkItem = defineTable('m10_recovery.work_queue', {
  id: serial().primary(),
  candidate_id: int(),
  idempotency_key: uuid().nullable(),
  method: text().defaultRaw("'db_fallback'"),
  priority: int().nullable().defaultRaw('0'),
  queued_at: timestamptz().defaultRaw('now()'),
  claimed_at: timestamptz().nullable(),
  claimed_by: text().nullable(),
  processed_at: timestamptz().nullable(),
  error_message: text().nullable(),
  retry_count: int().nullable().defaultRaw('0'),
  created_at: timestamptz().defaultRaw('now()'),
});
