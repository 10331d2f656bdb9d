import { defineTable, double, int, jsonb, serial, text, timestamptz } from './columns.ts';

/** One event in the life of a recovery candidate. */
export const SuggestionProvenance = defineTable('m10_recovery.suggestion_provenance', {
  id: serial().primary(),
  suggestion_id: int(),
  event_type: text(),
  details: jsonb().defaultRaw("'{}'"),
  rule_id: text().nullable(),
  action_id: int().nullable(),
  confidence_before: double().nullable(),
  confidence_after: double().nullable(),
  actor: text().defaultRaw("'system'"),
  actor_type: text().defaultRaw("'system'"),
  created_at: timestamptz().defaultRaw('now()'),
  duration_ms: int().nullable(),
});
