import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, launch } from '../support/command.ts';
import { buildCheckout, type Checkout, OUTSIDE } from '../support/package.ts';
import { createEmptyDatabase } from '../support/postgres.ts';

/** A Node to run the package with; default: the one of the tests. */
const NODE = process.env['TEST_PACKAGE_NODE'] ?? process.execPath;
const env = { PATH: `${dirname(NODE)}:${OUTSIDE}` };

let checkout: Checkout;
let folder: string;
beforeAll(async () => {
  checkout = await buildCheckout();
  const { stdout } = await checkout.run('npm', ['pack', '--json']);
  folder = join(checkout.scratch, 'elsewhere');
  const [{ filename }] = Object.values(JSON.parse(stdout)) as { filename: string }[] as [{ filename: string }];
  const args = ['i', '--prefix', folder, '--omit=optional', '--no-audit', '--no-fund', '--prefer-offline'];
  await checkout.run('npm', [...args, join(checkout.path, filename)]);
});
afterAll(async () => {
  await endAll();
  await checkout.remove();
});

const sidecar = (...args: string[]) =>
  promisify(execFile)('npx', ['--no-install', 'policy-sidecar', ...args], {
    cwd: folder,
    env: { ...process.env, ...env },
  });

test('it holds the compiled program, the contract and the licences, and brings nothing else along', async () => {
  const installed = join(folder, 'node_modules', 'policy-sidecar');
  const files = await readdir(installed, { recursive: true });
  for (const file of ['dist/start.js', 'dist/migrations.js', 'dist/THIRD-PARTY.txt', 'LICENSE', 'README.md']) {
    expect(files).toContain(file);
  }
  expect(files).toContain('proto/hoc/cus/policies/v1/transaction.proto');
  expect(files.filter((file) => /\.ts$|^test|^src|^bench/.test(file))).toEqual([]);
  expect(await readdir(join(folder, 'node_modules'))).toEqual(
    expect.not.arrayContaining(['vitest', 'pg', '@mikro-orm']),
  );
});

test('an installed package tells what it is, migrates a database and serves it', async () => {
  expect((await sidecar('--version')).stdout).toMatch(/^policy-sidecar \d+\.\d+\.\d+ \(Node v\d+\.\d+\.\d+\)\n$/);
  expect((await sidecar('--help')).stdout).toContain('policy-sidecar migrate up');
  const database = await createEmptyDatabase();
  const options = { cwd: folder };
  const migrate = launch(
    'npx',
    ['--no-install', 'policy-sidecar', 'migrate', 'up'],
    { ...env, DATABASE_URL: database.url },
    options,
  );
  expect(await migrate.ended).toBe(0);
  expect(migrate.out().match(/^applied /gm)).toHaveLength(8);
  const served = launch(
    'npx',
    ['--no-install', 'policy-sidecar', 'serve'],
    { ...env, DATABASE_URL: database.url },
    options,
  );
  const caller = grpcCaller((await served.serving()).grpc);
  expect((await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).riskCeilings).toHaveLength(4);
  caller.close();
  served.child.kill('SIGTERM');
  expect(await served.ended).toBe(0);
  await database.drop();
});

test('`npm ci --omit=dev` of a checkout asks for no tool that it does not bring', async () => {
  const args = ['ci', '--omit=dev', '--omit=optional', '--prefer-offline', '--no-audit', '--no-fund'];
  const clone = await buildCheckout({ bare: true });
  await clone.run('npm', args);
  expect(existsSync(join(clone.path, 'node_modules', '@bufbuild'))).toBe(false);
  await clone.remove();
});
