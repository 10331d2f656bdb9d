import { Migration20261123000100_policy_schema } from './Migration20261123000100_policy_schema.ts';
import { Migration20261123000200_rules_limits_proposals } from './Migration20261123000200_rules_limits_proposals.ts';
import { Migration20261123000300_resolvers_recovery } from './Migration20261123000300_resolvers_recovery.ts';
import { Migration20261123000400_sidecar } from './Migration20261123000400_sidecar.ts';
import { Migration20261123000500_list_indexes } from './Migration20261123000500_list_indexes.ts';
import { Migration20261125000100_outcomes } from './Migration20261125000100_outcomes.ts';
import { Migration20261126000600_neutral_columns } from './Migration20261126000600_neutral_columns.ts';
import { Migration20261126000700_creation_order } from './Migration20261126000700_creation_order.ts';

/** The migrations of this program, oldest first; named one by one, since a compiled program has no folder to look into. */
export const migrations = {
  Migration20261123000100_policy_schema,
  Migration20261123000200_rules_limits_proposals,
  Migration20261123000300_resolvers_recovery,
  Migration20261123000400_sidecar,
  Migration20261123000500_list_indexes,
  Migration20261125000100_outcomes,
  Migration20261126000600_neutral_columns,
  Migration20261126000700_creation_order,
};
