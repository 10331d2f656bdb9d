import { randomUUID } from 'node:crypto';
import type { Client, Stubs } from '@policy-sidecar/client/grpc';
import { fromDate, now, toValue } from '@policy-sidecar/client/messages';

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

/** One of a tenant, detected so many seconds after a moment; its text is too long for many to be on their way at once. */
export const longViolation = (tenantId: string, seconds: number) => ({
  ...violation(),
  tenantId,
  description: 'long '.repeat(800),
  detectedAt: fromDate(new Date(1_700_000_000_000 + 1_000 * seconds)),
});

/** Writes that many of a tenant, and gives their ids, newest first. */
export const writeRows = async (client: Client, tenantId: string, count: number): Promise<string[]> => {
  const rows = Array.from({ length: count }, (_, index) => longViolation(tenantId, -2 * index));
  for (let at = 0; at < count; at += 600) {
    await client.execute(rows.slice(at, at + 600).map((value) => ({ request: { case: 'insertViolation', value } })));
  }
  return rows.map(({ violationId }) => violationId);
};
