import { bytea, defineTable, text } from './columns.ts';
import { NOBODY } from './owner.ts';

/** A key of the sidecar's own. */
export const Secret = defineTable(
  'policy_sidecar.secrets',
  {
    name: text().primary(),
    value: bytea(),
  },
  { rows: NOBODY },
);
