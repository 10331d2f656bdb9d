import { defineTable, double, int, jsonb, serial, text, timestamptz } from './columns.ts';

/** One event in the life of a recovery candidate. */
export const SuggestionProvenance = defineTable(
  'm10_recovery.suggestion_provenance',
  {
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
  },
  {
    rows: { of: 'parent', column: 'suggestion_id', parent: 'public.recovery_candidates' },
    changes: ['insert'],
    foreignKeys: {
      fk_sp_suggestion: { on: 'suggestion_id', to: 'public.recovery_candidates', onDelete: 'cascade' },
      suggestion_provenance_action_id_fkey: { on: 'action_id', to: 'm10_recovery.suggestion_action' },
    },
    checks: {
      suggestion_provenance_event_type_check:
        "event_type in ('created', 'input_added', 'rule_evaluated', 'action_selected', 'confidence_updated', 'approved', 'rejected', 'executed', 'success', 'failure', 'rolled_back', 'manual_override')",
      suggestion_provenance_actor_type_check: "actor_type in ('system', 'human', 'agent')",
    },
    indexes: {
      idx_sp_suggestion_id: ['suggestion_id'],
      idx_sp_event_type: ['event_type'],
      idx_sp_created_at: ['created_at desc'],
      idx_sp_actor: ['actor'],
      idx_sp_rule_id: { on: ['rule_id'], where: 'rule_id is not null' },
      idx_sp_suggestion_created_at: ['suggestion_id', 'created_at desc'],
      idx_sp_event_created_at: ['event_type', 'created_at desc'],
    },
  },
);
