import { defineTable, double, int, jsonb, serial, text, timestamptz } from './columns.ts';

/** One input a recovery candidate was derived from. */
export const SuggestionInput = defineTable(
  'm10_recovery.suggestion_input',
  {
    id: serial().primary(),
    suggestion_id: int(),
    input_type: text(),
    raw_value: text(),
    normalized_value: text().nullable(),
    parsed_data: jsonb().nullable().defaultRaw("'{}'"),
    confidence: double().nullable().defaultRaw('1.0'),
    weight: double().nullable().defaultRaw('1.0'),
    source: text().nullable(),
    created_at: timestamptz().defaultRaw('now()'),
    recovery_candidate_id: int().nullable(),
  },
  {
    rows: { of: 'parent', column: 'suggestion_id', parent: 'public.recovery_candidates' },
    foreignKeys: {
      suggestion_input_suggestion_id_fkey: {
        on: 'suggestion_id',
        to: 'public.recovery_candidates',
        onDelete: 'cascade',
      },
    },
    checks: {
      suggestion_input_input_type_check:
        "input_type in ('error_code', 'error_message', 'stack_trace', 'skill_context', 'tenant_context', 'historical_pattern')",
      suggestion_input_confidence_check: 'confidence >= 0 and confidence <= 1',
      suggestion_input_weight_check: 'weight >= 0',
    },
    indexes: { idx_si_suggestion_id: ['suggestion_id'] },
  },
);
