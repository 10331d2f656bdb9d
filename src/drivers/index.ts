import type { Driver } from './driver.ts';
import { policyEngine } from './policy-engine/index.ts';

/** All drivers, in the order in which reflection lists them. */
export const drivers: readonly Driver[] = [policyEngine];
