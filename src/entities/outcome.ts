import { defineTable, timestamptz, uuid } from './columns.ts';

/** Evidence that a leased transaction committed: written in it, right before its commit. */
export const Outcome = defineTable(
  'policy_sidecar.outcomes',
  {
    id: uuid().primary(),
    committed_at: timestamptz().defaultRaw('clock_timestamp()'),
  },
  {
    rows: { of: 'sidecar', rights: ['insert'] },
    changes: ['insert', 'delete'],
    indexes: { ix_outcomes_committed_at: ['committed_at'] },
  },
);
