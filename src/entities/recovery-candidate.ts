import { defineTable, double, int, jsonb, serial, text, timestamptz, uuid, varchar } from './columns.ts';

/** A suggested recovery for a failure, awaiting or carrying a decision. */
export const RecoveryCandidate = defineTable(
  'public.recovery_candidates',
  {
    id: serial().primary(),
    failure_match_id: uuid(),
    suggestion: text(),
    matched_catalog_entry: jsonb().nullable(),
    confidence: double(),
    explain: jsonb().nullable().defaultRaw("'{}'"),
    created_by: text().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
    approved_by_human: text().nullable(),
    approved_at: timestamptz().nullable(),
    decision: text().nullable().defaultRaw("'pending'"),
    review_note: text().nullable(),
    occurrence_count: int().defaultRaw('1'),
    last_occurrence_at: timestamptz().defaultRaw('now()'),
    source: text().nullable(),
    error_code: text().nullable(),
    error_signature: text().nullable(),
    updated_at: timestamptz().defaultRaw('now()'),
    selected_action_id: int().nullable(),
    rules_evaluated: jsonb().nullable().defaultRaw("'[]'"),
    execution_status: text().nullable(),
    executed_at: timestamptz().nullable(),
    execution_result: jsonb().nullable(),
    idempotency_key: uuid().nullable(),
    source_pattern_id: varchar(64).nullable(),
    source_incident_id: varchar(64).nullable(),
    suggestion_type: varchar(32).nullable(),
    confidence_band: varchar(32).nullable(),
    requires_confirmation: int().nullable().defaultRaw('0'),
    confirmations_received: int().nullable().defaultRaw('0'),
  },
  {
    rows: { of: 'parent', column: 'failure_match_id', parent: 'public.failure_matches' },
    changes: ['insert', 'update'],
    foreignKeys: {
      recovery_candidates_selected_action_id_fkey: { on: 'selected_action_id', to: 'm10_recovery.suggestion_action' },
    },
    uniques: {
      recovery_candidates_failure_match_id_key: ['failure_match_id'],
      recovery_candidates_idempotency_key_key: ['idempotency_key'],
    },
    checks: {
      recovery_candidates_confidence_check: 'confidence >= 0 and confidence <= 1',
      recovery_candidates_decision_check: "decision in ('pending', 'approved', 'rejected')",
      recovery_candidates_execution_status_check:
        "execution_status in ('pending', 'executing', 'succeeded', 'failed', 'rolled_back', 'skipped')",
    },
    uniqueIndexes: {
      uq_rc_fmid_sig: { on: ['failure_match_id', 'error_signature'], where: 'error_signature is not null' },
    },
    indexes: {
      idx_rc_decision: ['decision'],
      idx_rc_last_occurrence_at: ['last_occurrence_at desc'],
      idx_rc_confidence: ['confidence desc'],
      idx_rc_created_at: ['created_at desc'],
      idx_rc_error_code: ['error_code'],
      idx_rc_decision_created_at: ['decision', 'created_at desc', 'id desc'],
      idx_rc_created_at_id: ['created_at desc', 'id desc'],
      idx_rc_pending: { on: ['created_at desc'], where: "decision = 'pending'" },
      idx_rc_pending_confident: {
        on: ['confidence desc', 'created_at desc'],
        where: "decision = 'pending' and confidence >= 0.5",
      },
      idx_rc_execution_status: { on: ['execution_status'], where: 'execution_status is not null' },
      idx_rc_executing: { on: ['executed_at'], where: "execution_status = 'executing'" },
    },
  },
);
