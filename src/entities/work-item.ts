import { defineTable, int, serial, text, timestamptz, uuid } from './columns.ts';

/** One candidate waiting for evaluation. */
export const WorkItem = defineTable(
  'm10_recovery.work_queue',
  {
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
  },
  {
    rows: { of: 'parent', column: 'candidate_id', parent: 'public.recovery_candidates' },
    changes: ['insert', 'update'],
    uniqueIndexes: { uq_work_queue_candidate_pending: { on: ['candidate_id'], where: 'processed_at is null' } },
    indexes: {
      idx_wq_claimable: { on: ['priority desc', 'queued_at'], where: 'processed_at is null and claimed_at is null' },
      idx_wq_claimed: { on: ['claimed_at'], where: 'processed_at is null and claimed_at is not null' },
    },
  },
);
