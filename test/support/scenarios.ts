import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** The folder of the scenarios that the clients' own runners put to a sidecar. */
export const SCENARIOS = join(import.meta.dirname, '..', '..', 'scenarios');

/** Names of its scenarios, so that a runner leaves none out. */
export const scenarioFiles = (): string[] => readdirSync(SCENARIOS).filter((file) => !file.endsWith('.schema.json'));
