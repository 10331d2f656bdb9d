import { bool, defineTable, int, jsonb, text, timestamptz, uuid, varchar } from './columns.ts';

/** A version of a proposal's rule; not to be mistaken for a version of the policy set. */
export const ProposalVersion = defineTable(
  'public.policy_versions',
  {
    id: uuid().primary().defaultRaw('gen_random_uuid()'),
    proposal_id: uuid(),
    version: int(),
    rule_snapshot: jsonb(),
    created_at: timestamptz().defaultRaw('now()'),
    created_by: varchar(255).nullable(),
    change_reason: text().nullable(),
    is_current: bool().defaultRaw('false'),
  },
  {
    rows: { of: 'parent', column: 'proposal_id', parent: 'public.policy_proposals' },
    changes: ['insert'],
    foreignKeys: { policy_versions_proposal_id_fkey: { on: 'proposal_id', to: 'public.policy_proposals' } },
    uniqueIndexes: { uq_policy_versions_current: { on: ['proposal_id'], where: 'is_current' } },
    indexes: {
      ix_policy_versions_proposal_version: ['proposal_id', 'version'],
      ix_policy_versions_current: { on: ['is_current'], where: 'is_current' },
    },
  },
);
