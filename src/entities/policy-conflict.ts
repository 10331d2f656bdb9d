import { bool, defineTable, double, text, timestamptz, uuid, varchar, varcharArray } from './columns.ts';

/** Two policies that contradict each other, and how that was settled. */
export const PolicyConflict = defineTable('policy.policy_conflicts', {
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
});
