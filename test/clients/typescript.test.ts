/** The client for TypeScript as a user has it: packed, installed elsewhere, and put to its own tests there. */
import { execFile } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, inject, test, vi } from 'vitest';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { browserAvailable, startBrowser } from '../support/browser.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { succeeds } from '../support/toolchain.ts';
import { useFolder } from '../support/use.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CLIENT = join('clients', 'typescript');

const scratch = useFolder();
if (!browserAvailable) console.log('no Chromium here: the client for TypeScript is not tried in a web page');

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

const folder = join(scratch, 'user');
/** Why it cannot be installed here; undefined where it is. */
let missing: string | undefined;

beforeAll(async () => {
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ name: 'user', private: true, type: 'module' }));
  const packages = installed('@grpc/grpc-js', '@connectrpc/connect', '@connectrpc/connect-node');
  const tarball = await pack();
  try {
    await run(folder, 'npm', ['i', '--silent', '--prefer-offline', '--no-audit', '--no-fund', tarball, ...packages]);
  } catch (error) {
    if (await succeeds('npm', 'ping', '--fetch-retries=0', '--fetch-timeout=10000')) throw error;
    missing = 'npm does not reach its packages';
    console.log(`skipped: the client for TypeScript, for ${missing}`);
  }
}, 300_000);

test('the packed client passes its own tests where it is installed', { timeout: 300_000 }, async ({ skip }) => {
  if (missing) return skip();
  symlinkSync(join(ROOT, 'node_modules', 'vitest'), join(folder, 'node_modules', 'vitest'));
  for (const name of ['test', 'examples']) cpSync(join(ROOT, CLIENT, name), join(folder, name), { recursive: true });
  const { compilerOptions } = JSON.parse(readFileSync(join(ROOT, 'tsconfig.json'), 'utf8'));
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['test', 'examples'] }));
  const modules = join(ROOT, 'node_modules');
  const patience = ['--testTimeout=60000', '--hookTimeout=60000'];
  const [, report] = await Promise.all([
    run(folder, process.execPath, [join(modules, 'typescript', 'bin', 'tsc'), '-p', folder]),
    run(folder, process.execPath, [join(modules, 'vitest', 'vitest.mjs'), 'run', '--root', folder, ...patience]),
  ]);
  expect(report).toMatch(/^ *Tests +\d+ passed \(\d+\)$/m);
});

test.skipIf(!browserAvailable)('a web page has transactions, which end with it', async ({ skip }) => {
  if (missing) return skip();
  const browser = await startBrowser(() => {}, join(folder, 'node_modules', '@policy-sidecar', 'client', 'dist'));
  const sidecar = await startTestSidecar({ httpOrigins: [browser.origin] });
  const said = await browser.run(`
    const { createConnectTransport } = await import('@connectrpc/connect-web');
    const { connect, ConstraintError } = await import('@policy-sidecar/client/connect');
    const { now, toValue } = await import('@policy-sidecar/client/messages');
    const client = connect(createConnectTransport({ baseUrl: 'http://${sidecar.server.httpAddress}' }));
    const violation = () => ({
      violationId: crypto.randomUUID(), violationType: 'x', severity: 0.5, description: 'of a page', evidence: toValue({}),
      routedToGovernor: false, detectedAt: now(),
    });
    const count = async () => (await client.policyEngine.fetchViolations({})).violations.length;
    const row = violation();
    await client.transaction((tx) => tx.policyEngine.insertViolation(row));
    const committed = await count();
    const failed = await client.run(async (tx) => {
      await tx.policyEngine.insertViolation(violation());
      await tx.policyEngine.insertViolation(row);
    }).catch((error) => error instanceof ConstraintError && error.reason);
    let streamed = 0;
    for await (const _each of client.policyEngine.streamViolations({})) streamed += 1;
    await client.singleUse.policyEngine.insertViolation(violation());
    const left = await client.transaction({ label: 'left by a page' });
    await left.policyEngine.insertViolation(violation());
    return { committed, failed, streamed, seen: await count() };
  `);
  expect(said).toEqual({ committed: 1, failed: 'UNIQUE_VIOLATION', streamed: 1, seen: 2 });
  // The browser is gone.
  await vi.waitFor(async () => {
    const { transactions } = await sidecar.grpc.unary(TransactionService.method.list, {});
    expect(transactions).toEqual([]);
  });
  await sidecar.stop();
  await browser.close();
});
