import { bool, defineTable, double, int, jsonb, serial, text, textArray, timestamptz } from './columns.ts';
import { EVERYBODY } from './owner.ts';

/** An action that a recovery may take, and how often it helped. */
export const SuggestionAction = defineTable(
  'm10_recovery.suggestion_action',
  {
    id: serial().primary(),
    action_code: text(),
    name: text(),
    description: text().nullable(),
    action_type: text(),
    template: jsonb().defaultRaw("'{}'"),
    applies_to_error_codes: textArray().nullable().defaultRaw("'{}'"),
    applies_to_skills: textArray().nullable().defaultRaw("'{}'"),
    preconditions: jsonb().nullable().defaultRaw("'{}'"),
    success_rate: double().nullable().defaultRaw('0.0'),
    total_applications: int().nullable().defaultRaw('0'),
    successful_applications: int().nullable().defaultRaw('0'),
    is_automated: bool().nullable().defaultRaw('false'),
    requires_approval: bool().nullable().defaultRaw('true'),
    priority: int().nullable().defaultRaw('50'),
    is_active: bool().nullable().defaultRaw('true'),
    created_at: timestamptz().defaultRaw('now()'),
    updated_at: timestamptz().defaultRaw('now()'),
    created_by: text().nullable(),
    version: int().nullable().defaultRaw('1'),
  },
  {
    rows: EVERYBODY,
    changes: ['update'],
    uniques: { suggestion_action_action_code_key: ['action_code'] },
    checks: {
      suggestion_action_action_type_check:
        "action_type in ('retry', 'fallback', 'escalate', 'notify', 'reconfigure', 'rollback', 'manual', 'skip')",
      suggestion_action_success_rate_check: 'success_rate >= 0 and success_rate <= 1',
      suggestion_action_priority_check: 'priority >= 0 and priority <= 100',
    },
    indexes: {
      idx_sa_action_type: ['action_type'],
      idx_sa_active: { on: ['is_active'], where: 'is_active' },
      idx_sa_priority: { on: ['priority desc'], where: 'is_active' },
      idx_sa_type_priority: { on: ['action_type', 'priority desc'], where: 'is_active' },
      idx_sa_error_codes: { on: ['applies_to_error_codes'], using: 'gin' },
      idx_sa_skills: { on: ['applies_to_skills'], using: 'gin' },
    },
  },
);
