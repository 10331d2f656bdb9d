/** The Java client: its own tests against the program as it ships, with stubs that its build makes of the contract. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, inject, test } from 'vitest';
import { SCENARIOS, scenarioFiles } from '../support/scenarios.ts';
import { succeeds } from '../support/toolchain.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** Stays, with the compiled stubs in it, which are a thousand files and a minute. */
const FOLDER = join(ROOT, 'node_modules', '.cache', 'client-java');
const CLIENT = join(FOLDER, 'clients', 'java');

const maven = async (...args: readonly string[]): Promise<string> => {
  const env = {
    ...process.env,
    POLICY_SIDECAR_COMMAND: `${process.execPath} ${inject('program')}`,
    POLICY_SIDECAR_SCENARIOS: SCENARIOS,
    // A compiler that runs once is slower for being optimised.
    MAVEN_OPTS: '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC',
  };
  const options = { cwd: CLIENT, env, timeout: 540_000, maxBuffer: 1 << 26 };
  return (await promisify(execFile)('mvn', ['-B', '-ntp', ...args], options)).stdout;
};

/** Lays the client and the contract there, over the stubs of before. */
const lay = (): void => {
  for (const name of ['pom.xml', 'client', 'examples']) rmSync(join(CLIENT, name), { recursive: true, force: true });
  mkdirSync(CLIENT, { recursive: true });
  const options = {
    recursive: true,
    preserveTimestamps: true,
    filter: (path: string) => !path.endsWith('/target'),
  };
  rmSync(join(FOLDER, 'proto'), { recursive: true, force: true });
  cpSync(join(ROOT, 'proto'), join(FOLDER, 'proto'), options);
  cpSync(join(ROOT, 'clients', 'java'), CLIENT, options);
};

test('the Java client does what it promises, told by its own tests', { timeout: 600_000 }, async ({ skip }) => {
  if (!(await succeeds('mvn', '-version'))) {
    console.log('skipped: the Java client, for there is no mvn');
    return skip();
  }
  lay();
  let said: string;
  try {
    said = await maven('test');
  } catch (error) {
    const { stdout } = error as { stdout?: string };
    if (!/Could not transfer/.test(stdout ?? '')) throw new Error(stdout, { cause: error });
    console.log('skipped: the Java client, for mvn does not reach its artifacts');
    return skip();
  }
  expect(said).toContain(`scenarios: ${scenarioFiles().length} passed, 0 skipped\n`);
  expect(Number(/Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0\n/.exec(said)?.[1])).toBeGreaterThan(20);
});
