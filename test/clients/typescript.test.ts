/** The client for TypeScript as a user has it: packed, installed elsewhere, and put to its own tests there. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, expect, inject, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const CLIENT = join('clients', 'typescript');

const scratch = mkdtempSync(join(tmpdir(), 'client-typescript-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const run = async (cwd: string, program: string, args: readonly string[]): Promise<string> => {
  const env = { ...process.env, NO_COLOR: '1', POLICY_SIDECAR_COMMAND: `${process.execPath} ${inject('program')}` };
  // What this run is told is not for those that it starts.
  for (const name of ['VITEST', 'VITEST_POOL_ID', 'VITEST_WORKER_ID', 'NODE_ENV', 'TEST'])
    Reflect.deleteProperty(env, name);
  try {
    return (await promisify(execFile)(program, [...args], { cwd, env, maxBuffer: 16 * 1024 * 1024 })).stdout;
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`);
  }
};

/** The package of the client, made from a copy of what is committed of it. */
const pack = async (): Promise<string> => {
  const checkout = join(scratch, 'checkout');
  for (const path of ['proto', 'buf.yaml', CLIENT])
    cpSync(join(ROOT, path), join(checkout, path), {
      recursive: true,
      filter: (from) => !/\/(?:dist|src\/gen)$/.test(from),
    });
  symlinkSync(join(ROOT, 'node_modules'), join(checkout, 'node_modules'));
  await run(join(checkout, CLIENT), 'npm', ['pack', '--silent', '--pack-destination', scratch]);
  return join(scratch, 'policy-sidecar-client-0.1.0.tgz');
};

/** Packages beside the client, as this checkout has them. */
const installed = (...names: readonly string[]): string[] => {
  const { devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  return names.map((name) => `${name}@${devDependencies[name]}`);
};

test('the packed client passes its own tests where it is installed', { timeout: 300_000 }, async ({ skip }) => {
  const folder = join(scratch, 'user');
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
  const packages = installed('@grpc/grpc-js', '@connectrpc/connect', '@connectrpc/connect-node');
  const tarball = await pack();
  try {
    await run(folder, 'npm', ['i', '--silent', '--prefer-offline', '--no-audit', '--no-fund', tarball, ...packages]);
  } catch (error) {
    const isReached = await run(scratch, 'npm', ['ping', '--fetch-retries=0', '--fetch-timeout=10000']).then(
      () => true,
      () => false,
    );
    if (isReached) throw error;
    console.log('skipped: the client for TypeScript, for npm does not reach its registry');
    return skip();
  }
  symlinkSync(join(ROOT, 'node_modules', 'vitest'), join(folder, 'node_modules', 'vitest'));
  for (const name of ['test', 'examples']) cpSync(join(ROOT, CLIENT, name), join(folder, name), { recursive: true });
  const { compilerOptions } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.json'), 'utf8'));
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['test', 'examples'] }));
  const [, report] = await Promise.all([
    run(folder, process.execPath, [join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', folder]),
    run(folder, process.execPath, [
      join(ROOT, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      '--root',
      folder,
      '--testTimeout=60000',
      '--hookTimeout=60000',
    ]),
  ]);
  expect(report).toMatch(/^ *Tests +\d+ passed \(\d+\)$/m);
});
