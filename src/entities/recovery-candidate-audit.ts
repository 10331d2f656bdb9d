import { defineTable, int, serial, text, timestamptz } from './columns.ts';

/** One decision on a recovery candidate. */
export const RecoveryCandidateAudit = defineTable('public.recovery_candidates_audit', {
  id: serial().primary(),
  candidate_id: int(),
  action: text(),
  actor: text().nullable(),
  old_decision: text().nullable(),
  new_decision: text().nullable(),
  note: text().nullable(),
  created_at: timestamptz().defaultRaw('now()'),
});
