import type { Driver } from './driver.ts';
import { policyGraph } from './policy-graph.ts';

/** All drivers, in the order in which reflection lists them. */
export const drivers: readonly Driver[] = [policyGraph];
