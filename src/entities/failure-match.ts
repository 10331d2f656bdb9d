import { bool, defineTable, double, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';

/** One failure of a run, and what recovered it. */
export const FailureMatch = defineTable('public.failure_matches', {
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
});
