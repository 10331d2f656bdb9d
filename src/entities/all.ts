import { BusinessRule } from './business-rule.ts';
import { DefaultGuardrail } from './default-guardrail.ts';
import { EthicalConstraint } from './ethical-constraint.ts';
import { Evaluation } from './evaluation.ts';
import { FailureCatalogEntry } from './failure-catalog-entry.ts';
import { FailureMatch } from './failure-match.ts';
import { Limit } from './limit.ts';
import { LimitIntegrity } from './limit-integrity.ts';
import { Outcome } from './outcome.ts';
import { PatternFeedback } from './pattern-feedback.ts';
import { Policy } from './policy.ts';
import { PolicyConflict } from './policy-conflict.ts';
import { PolicyDependency } from './policy-dependency.ts';
import { PolicyEnforcement } from './policy-enforcement.ts';
import { PolicyPrecedence } from './policy-precedence.ts';
import { PolicyProposal } from './policy-proposal.ts';
import { PolicyProvenance } from './policy-provenance.ts';
import { PolicyRule } from './policy-rule.ts';
import { PolicyRuleIntegrity } from './policy-rule-integrity.ts';
import { PolicyScope } from './policy-scope.ts';
import { PolicySetVersion } from './policy-set-version.ts';
import { ProposalVersion } from './proposal-version.ts';
import { ProxyCall } from './proxy-call.ts';
import { PrunedUntil } from './pruned-until.ts';
import { RecoveryCandidate } from './recovery-candidate.ts';
import { RecoveryCandidateAudit } from './recovery-candidate-audit.ts';
import { RiskCeiling } from './risk-ceiling.ts';
import { SafetyRule } from './safety-rule.ts';
import { Secret } from './secret.ts';
import { Snapshot } from './snapshot.ts';
import { StoredRequest } from './stored-request.ts';
import { SuggestionAction } from './suggestion-action.ts';
import { SuggestionInput } from './suggestion-input.ts';
import { SuggestionProvenance } from './suggestion-provenance.ts';
import { TemporalMetricEvent } from './temporal-metric-event.ts';
import { TemporalMetricWindow } from './temporal-metric-window.ts';
import { TemporalPolicy } from './temporal-policy.ts';
import { Tenant } from './tenant.ts';
import { Violation } from './violation.ts';
import { WorkItem } from './work-item.ts';

/** All entities. */
export const entities = [
  BusinessRule,
  DefaultGuardrail,
  EthicalConstraint,
  Evaluation,
  FailureCatalogEntry,
  FailureMatch,
  Limit,
  LimitIntegrity,
  Outcome,
  PatternFeedback,
  Policy,
  PolicyConflict,
  PolicyDependency,
  PolicyEnforcement,
  PolicyPrecedence,
  PolicyProposal,
  PolicyProvenance,
  PolicyRule,
  PolicyRuleIntegrity,
  PolicyScope,
  PolicySetVersion,
  ProposalVersion,
  ProxyCall,
  PrunedUntil,
  RecoveryCandidate,
  RecoveryCandidateAudit,
  RiskCeiling,
  SafetyRule,
  Secret,
  Snapshot,
  StoredRequest,
  SuggestionAction,
  SuggestionInput,
  SuggestionProvenance,
  TemporalMetricEvent,
  TemporalMetricWindow,
  TemporalPolicy,
  Tenant,
  Violation,
  WorkItem,
];
