import { PolicyEngineService } from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { driver } from '../driver.ts';
import { configurationRpcs } from './configuration.ts';
import { conflictRpcs } from './conflicts.ts';
import { dependencyRpcs } from './dependencies.ts';
import { evaluationRpcs } from './evaluations.ts';
import { integrityRpcs } from './integrity.ts';
import { metricEventRpcs } from './metric-events.ts';
import { metricMaintenanceRpcs } from './metric-maintenance.ts';
import { metricSumRpcs } from './metric-sums.ts';
import { provenanceRpcs } from './provenance.ts';
import { snapshotRpcs } from './snapshots.ts';
import { temporalPolicyRpcs } from './temporal-policies.ts';
import { versionRpcs } from './versions.ts';
import { violationRpcs } from './violations.ts';

/** `PolicyEngineDriver`: what a policy engine reads before it decides and writes after it has decided. */
export const policyEngine = driver(PolicyEngineService, {
  ...configurationRpcs,
  ...evaluationRpcs,
  ...violationRpcs,
  ...versionRpcs,
  ...provenanceRpcs,
  ...dependencyRpcs,
  ...conflictRpcs,
  ...temporalPolicyRpcs,
  ...metricEventRpcs,
  ...metricSumRpcs,
  ...metricMaintenanceRpcs,
  ...integrityRpcs,
  ...snapshotRpcs,
});
