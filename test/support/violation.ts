import { randomUUID } from 'node:crypto';
import { jsonToValue } from '../../src/database/values.ts';

/** A row to write where it does not matter which: `InsertViolation` depends on no other row. */
export const violation = (violationId: string = randomUUID()) => ({
  violationId,
  violationType: 'x',
  severity: 0.5,
  description: 'd',
  evidence: jsonToValue({}),
  routedToGovernor: false,
  detectedAt: { seconds: 1n, nanos: 0 },
});

/** Such a row, of which some does matter. */
export const violationWith = (fields: Partial<ReturnType<typeof violation>>) => ({ ...violation(), ...fields });
