import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config.ts';
import { EXIT } from '../exit.ts';
import { askHealth, whyNotAskable } from '../probe.ts';
import { ConfigError } from '../setting-forms.ts';
import { complain } from './output.ts';

const STEP_MS = 100;
const ASK_MS = 1_000;

/**
 * `wait`: waits until a sidecar of these settings serves, `timeoutMs` at most.
 *
 * @throws ConfigError where that could not be seen.
 */
export const wait = async (config: Config, timeoutMs: number): Promise<number> => {
  const misuse = whyNotAskable(config);
  if (misuse !== undefined) throw new ConfigError(misuse);
  for (const deadline = Date.now() + timeoutMs; ; await sleep(STEP_MS)) {
    const left = Math.max(1, Math.min(ASK_MS, deadline - Date.now()));
    const problem = await askHealth(config, left);
    if (problem === undefined) return EXIT.done;
    if (Date.now() >= deadline) return complain(`no sidecar serves: ${problem}`, EXIT.no);
  }
};
