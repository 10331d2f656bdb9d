import { defineTable, double, int, jsonb, serial, text, timestamptz } from './columns.ts';

/** One input a recovery candidate was derived from. */
export const SuggestionInput = defineTable('m10_recovery.suggestion_input', {
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
});
