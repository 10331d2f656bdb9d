/**
 * The Python client: installed from a copy of its folder into a fresh environment, its own tests against the program as it
 * ships, its types.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, inject, test } from 'vitest';
import { SCENARIOS, scenarioFiles } from '../support/scenarios.ts';
import { succeeds } from '../support/toolchain.ts';
import { useFolder } from '../support/use.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** What has been fetched; the client itself is installed anew beside it. */
const VENV = join(ROOT, 'node_modules', '.cache', 'client-python');
/** The longest that a command may take, for it may have to fetch what it needs. */
const FETCH_MS = 240_000;

const folder = useFolder();

const shell = async (line: string): Promise<string> => {
  const env = {
    ...process.env,
    POLICY_SIDECAR_COMMAND: `'${process.execPath}' '${inject('program')}'`,
    POLICY_SIDECAR_PROTO: join(folder, 'proto'),
    POLICY_SIDECAR_SCENARIOS: SCENARIOS,
    POLICY_SIDECAR_GOLDEN: join(ROOT, 'test', 'golden'),
    PYTHONPATH: join(folder, 'site'),
    MYPYPATH: join(folder, 'site'),
  };
  const options = { cwd: join(folder, 'clients', 'python'), env, timeout: FETCH_MS };
  return (await promisify(execFile)('bash', ['-euc', line], options)).stdout;
};

/** Why there is no environment with the client in it; undefined where there is one. */
const missing = async (): Promise<string | undefined> => {
  for (const part of ['proto', 'clients/python'])
    cpSync(join(ROOT, part), join(folder, part), {
      recursive: true,
      filter: (path) => !/\/(_gen|build|[^/]+\.egg-info|__pycache__)$/.test(path),
    });
  try {
    await shell('python3 -c "import sys, venv; sys.exit(sys.version_info < (3, 10))"');
  } catch {
    return 'there is no Python 3.10 or newer';
  }
  try {
    if (!existsSync(VENV)) await shell(`python3 -m venv '${VENV}'`);
    await shell(`'${VENV}/bin/pip' install -q -r tests/requirements.txt`);
  } catch (error) {
    if (await succeeds(join(VENV, 'bin', 'pip'), 'index', 'versions', 'grpcio')) throw error;
    return 'pip does not reach its packages';
  }
  await shell(`'${VENV}/bin/pip' install -q --no-build-isolation --no-deps --target '${folder}/site' .`);
  return undefined;
};

test('the Python client is installed from its folder, passes its tests and is typed', { timeout: 300_000 }, async ({
  skip,
}) => {
  const why = await missing();
  if (why) {
    console.log(`skipped: the client for Python, for ${why}`);
    return skip();
  }
  const [tests, types] = await Promise.allSettled([
    shell(`'${VENV}/bin/python' -m pytest -q --tb=short -p no:cacheprovider`),
    shell(`cd tests && '${VENV}/bin/mypy' --strict --cache-dir '${VENV}/mypy' -p policy_sidecar`),
  ]);
  const said = (one: PromiseSettledResult<string>): string =>
    one.status === 'fulfilled' ? one.value : `${one.reason.stdout}\n${one.reason.stderr}`;
  expect(said(tests)).toContain(`scenarios: ${scenarioFiles().length} passed, 0 skipped\n`);
  expect(said(tests)).toMatch(/^\d+ passed in [^\n]*$/m);
  expect(said(types)).toMatch(/^Success: no issues found/m);
});
