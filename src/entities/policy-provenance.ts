import { defineTable, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { NOBODY } from './owner.ts';

/** Who changed which policy, when and why. */
export const PolicyProvenance = defineTable(
  'policy.policy_provenance',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    policy_id: uuid(),
    policy_type: varchar(50),
    action: varchar(50),
    changed_by: varchar(128),
    changed_at: timestamptz().defaultRaw('now()'),
    previous_value: jsonb().nullable(),
    new_value: jsonb().nullable(),
    policy_version: varchar(50),
    reason: text().nullable(),
  },
  {
    rows: NOBODY,
    changes: ['insert'],
    indexes: {
      ix_provenance_policy_id: ['policy_id'],
      ix_provenance_changed_at: ['changed_at'],
      ix_provenance_action: ['action'],
      ix_provenance_changed_at_id: ['changed_at desc', 'id desc'],
      ix_provenance_version_changed_at: ['policy_version', 'changed_at desc', 'id desc'],
    },
  },
);
