import { conflictResolver } from './conflict-resolver.ts';
import type { Driver } from './driver.ts';
import { policyArbitrator } from './policy-arbitrator.ts';
import { policyEngine } from './policy-engine/index.ts';
import { policyGraph } from './policy-graph.ts';
import { policyProposalRead } from './policy-proposal-read.ts';
import { policyProposalWrite } from './policy-proposal-write.ts';
import { policyRead } from './policy-read.ts';
import { policyRules } from './policy-rules.ts';
import { policyRulesRead } from './policy-rules-read.ts';
import { proposalsRead } from './proposals-read.ts';
import { recoveryMatcher } from './recovery-matcher/index.ts';
import type { Services } from './recovery-matcher/services.ts';
import { recoveryWrite } from './recovery-write.ts';
import { scopeResolver } from './scope-resolver.ts';
import { symbolTable } from './symbol-table.ts';

/**
 * All drivers, in the order in which reflection lists them.
 *
 * @param services what they use of the world outside the database.
 */
export const drivers = (services: Services): readonly Driver[] => [
  policyEngine,
  policyGraph,
  policyProposalRead,
  policyProposalWrite,
  policyRead,
  policyRules,
  policyRulesRead,
  proposalsRead,
  recoveryMatcher(services),
  recoveryWrite,
  policyArbitrator,
  scopeResolver,
  conflictResolver,
  symbolTable,
];
