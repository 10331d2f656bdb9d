import { randomUUID } from 'node:crypto';
import type { Stubs } from '@policy-sidecar/client/grpc';
import { now, toValue } from '@policy-sidecar/client/messages';

/** A violation that depends on no other row. */
export const violation = (violationId: string = randomUUID()) => ({
  violationId,
  violationType: 'business_rule_violation',
  severity: 0.5,
  description: 'found by a test',
  evidence: toValue({ rule: 'r1', limits: [1, 2] }),
  routedToGovernor: false,
  detectedAt: now(),
});

/** Whether it is there for whoever asks. */
export const isThere = async (stubs: Stubs, violationId: string): Promise<boolean> =>
  (await stubs.policyEngine.fetchViolationById({ violationId })).violation !== undefined;
