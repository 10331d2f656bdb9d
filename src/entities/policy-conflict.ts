import { bool, defineTable, double, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';
import { NOBODY } from './owner.ts';

/** Two policies that contradict each other, and how that was settled. */
export const PolicyConflict = defineTable(
  'policy.policy_conflicts',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    policy_a: varchar(128),
    policy_b: varchar(128),
    conflict_type: varchar(50),
    severity: double().defaultRaw('0.5'),
    description: text(),
    affected_action_types: varcharArray().nullable(),
    resolved: bool().defaultRaw('false'),
    resolution: text().nullable(),
    resolved_by: varchar(128).nullable(),
    resolved_at: timestamptz().nullable(),
    detected_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: NOBODY,
    changes: ['insert', 'update'],
    indexes: {
      ix_conflicts_resolved: ['resolved'],
      ix_conflicts_severity: ['severity'],
      ix_conflicts_resolved_pair: { on: ['policy_a collate "C"', 'policy_b collate "C"'], where: 'resolved' },
      ix_conflicts_detected_at: ['detected_at', 'id'],
      ix_conflicts_unresolved_detected_at: { on: ['detected_at', 'id'], where: 'not resolved' },
    },
  },
);
