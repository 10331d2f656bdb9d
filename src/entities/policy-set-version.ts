import { bool, defineTable, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';
import { NOBODY } from './owner.ts';

/** A version of the whole policy set; not to be mistaken for a version of a proposal. */
export const PolicySetVersion = defineTable(
  'policy.policy_versions',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    version: varchar(50),
    policy_hash: varchar(64),
    signature: varchar(512).nullable(),
    created_by: varchar(128),
    created_at: timestamptz().defaultRaw('now()'),
    description: text().nullable(),
    policies_snapshot: jsonb().defaultRaw("'{}'"),
    risk_ceilings_snapshot: jsonb().defaultRaw("'{}'"),
    safety_rules_snapshot: jsonb().defaultRaw("'{}'"),
    ethical_constraints_snapshot: jsonb().defaultRaw("'{}'"),
    business_rules_snapshot: jsonb().defaultRaw("'{}'"),
    temporal_policies_snapshot: jsonb().defaultRaw("'{}'"),
    parent_version: varchar(50).nullable(),
    is_active: bool().defaultRaw('false'),
    rolled_back_at: timestamptz().nullable(),
    rolled_back_by: varchar(128).nullable(),
  },
  {
    rows: NOBODY,
    changes: ['insert', 'update'],
    indexes: {
      ix_policy_versions_version: ['version'],
      ix_policy_versions_active: ['is_active'],
      ix_policy_versions_created_at: ['created_at'],
      ix_policy_versions_created_at_id: ['created_at desc', 'id desc'],
    },
  },
);
