import { defineTable, int, serial, text, timestamptz } from './columns.ts';

/** One decision on a recovery candidate. */
export const RecoveryCandidateAudit = defineTable(
  'public.recovery_candidates_audit',
  {
    id: serial().primary(),
    candidate_id: int(),
    action: text(),
    actor: text().nullable(),
    old_decision: text().nullable(),
    new_decision: text().nullable(),
    note: text().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: { of: 'parent', column: 'candidate_id', parent: 'public.recovery_candidates' },
    changes: ['insert'],
    foreignKeys: {
      recovery_candidates_audit_candidate_id_fkey: {
        on: 'candidate_id',
        to: 'public.recovery_candidates',
        onDelete: 'cascade',
      },
    },
    indexes: { idx_rca_candidate_id: ['candidate_id'], idx_rca_created_at: ['created_at desc'] },
  },
);
