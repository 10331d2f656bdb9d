import { bool, defineTable, int, text, timestamptz, uuid, varchar } from './columns.ts';
import { NOBODY } from './owner.ts';

/** An edge between two policies, by name. */
export const PolicyDependency = defineTable(
  'policy.policy_dependencies',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    source_policy: varchar(128),
    target_policy: varchar(128),
    dependency_type: varchar(50),
    resolution_strategy: varchar(50).defaultRaw("'source_wins'"),
    priority: int().defaultRaw('100'),
    description: text().nullable(),
    is_active: bool().defaultRaw('true'),
    created_at: timestamptz().defaultRaw('now()'),
  },
  {
    rows: NOBODY,
    changes: ['insert', 'update'],
    indexes: {
      ix_dependencies_source: ['source_policy'],
      ix_dependencies_target: ['target_policy'],
      ix_dependencies_type: ['dependency_type'],
      ix_dependencies_active_created_at: { on: ['created_at', 'id'], where: 'is_active' },
    },
  },
);
