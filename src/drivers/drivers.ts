import { conflictResolver } from './conflict-resolver/conflict-resolver.ts';
import type { Driver } from './driver.ts';
import { policyArbitrator } from './policy-arbitrator/policy-arbitrator.ts';
import { policyEngine } from './policy-engine/policy-engine.ts';
import { policyGraph } from './policy-graph.ts';
import { policyProposalRead } from './policy-proposal-read.ts';
import { policyProposalWrite } from './policy-proposal-write.ts';
import { policyRead } from './policy-read.ts';
import { policyRules } from './policy-rules.ts';
import { policyRulesRead } from './policy-rules-read.ts';
import { proposalsRead } from './proposals-read.ts';
import { recoveryMatcher } from './recovery-matcher/recovery-matcher.ts';
import type { Services } from './recovery-matcher/services.ts';
import { recoveryWrite } from './recovery-write/recovery-write.ts';
import { scopeResolver } from './scope-resolver/scope-resolver.ts';
import { symbolTable } from './symbol-table/symbol-table.ts';

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
