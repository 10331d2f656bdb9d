import { bool, defineTable, double, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { TENANT } from './owner.ts';

/** One failure of a run, and what recovered it. */
export const FailureMatch = defineTable(
  'public.failure_matches',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    run_id: text(),
    tenant_id: text().nullable(),
    error_code: text(),
    error_message: text().nullable(),
    catalog_entry_id: text().nullable(),
    match_type: text().defaultRaw("'unknown'"),
    confidence_score: double().defaultRaw('0.0'),
    category: text().nullable(),
    severity: text().nullable(),
    is_retryable: bool().nullable().defaultRaw('false'),
    recovery_mode: text().nullable(),
    recovery_suggestion: text().nullable(),
    recovery_attempted: bool().nullable().defaultRaw('false'),
    recovery_succeeded: bool().nullable().defaultRaw('false'),
    skill_id: text().nullable(),
    step_index: int().nullable(),
    context_json: jsonb().nullable().defaultRaw("'{}'"),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
    recovered_at: timestamptz().nullable(),
    recovered_by: text().nullable(),
    recovery_notes: text().nullable(),
    semantic_owner: varchar(100).nullable().defaultRaw("'recovery_rule_engine'"),
  },
  {
    rows: TENANT,
    changes: ['insert', 'update'],
    indexes: {
      idx_fm_run_id: ['run_id'],
      idx_fm_tenant_id: ['tenant_id'],
      idx_fm_error_code: ['error_code'],
      idx_fm_catalog_entry_id: ['catalog_entry_id'],
      idx_fm_created_at: ['created_at desc'],
      idx_fm_category: ['category'],
      idx_fm_unmatched: { on: ['created_at desc'], where: 'catalog_entry_id is null' },
      idx_fm_retryable: { on: ['created_at desc'], where: 'not recovery_attempted and is_retryable' },
      idx_fm_tenant_created_at: { on: ['tenant_id', 'created_at desc'], where: 'tenant_id is not null' },
      idx_fm_recovery: {
        on: ['recovery_mode', 'recovery_attempted', 'recovery_succeeded'],
        where: 'recovery_mode is not null',
      },
      idx_fm_error_code_created_at: ['error_code', 'created_at desc'],
      idx_fm_history: { on: ['error_code', 'created_at desc', 'id desc'], where: 'recovery_suggestion is not null' },
    },
  },
);
