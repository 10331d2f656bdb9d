import { defineTable, text, timestamptz } from './columns.ts';
import { NOBODY } from './owner.ts';

/** Until when the rows of a table that is pruned may be missing. */
export const PrunedUntil = defineTable(
  'policy_sidecar.pruned_until',
  {
    name: text().primary(),
    until: timestamptz(),
  },
  { rows: NOBODY, changes: ['insert', 'update'] },
);
