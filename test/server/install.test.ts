import { execFile, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, launch } from '../support/command.ts';
import { createDatabase } from '../support/postgres.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** What no checkout brings. */
const MADE = new Set(['node_modules', '.git', '.sidecar', join('src', 'gen')]);
const INSTALL_MS = 300_000;

let checkout: string;
beforeAll(async () => {
  checkout = await mkdtemp(join(tmpdir(), 'policy-sidecar-install-'));
  await chmod(checkout, 0o755);
  await cp(ROOT, checkout, { recursive: true, filter: (from) => !MADE.has(relative(ROOT, from)) });
});
afterAll(async () => {
  await endAll();
  await rm(checkout, { recursive: true, force: true });
});

test(
  'a production install of a checkout serves a call',
  async ({ skip }) => {
    const args = ['ci', '--omit=dev', '--prefer-offline', '--no-audit', '--no-fund'];
    try {
      // The PATH of `npm test` leads to this checkout's own programs.
      const PATH = process.env['PATH']!.split(':').filter((folder) => !folder.includes('node_modules'));
      await promisify(execFile)('npm', args, { cwd: checkout, env: { ...process.env, PATH: PATH.join(':') } });
    } catch (error) {
      const { stderr } = error as { stderr: string };
      if (!/\b(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENOTCACHED)\b/.test(stderr)) throw error;
      console.log('no package registry can be reached: the production install is skipped');
      skip();
    }
    expect(existsSync(join(checkout, 'node_modules', 'vitest'))).toBe(false);
    const database = await createDatabase();
    const sidecar = launch('npm', ['start'], { DATABASE_URL: database.url }, { cwd: checkout });
    const caller = grpcCaller((await sidecar.serving()).grpc);
    const { riskCeilings } = await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
    expect(riskCeilings).toHaveLength(4);
    caller.close();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    await database.drop();
  },
  INSTALL_MS,
);

test('a Node that cannot read the program says in one line which one can', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-strip-types', 'src/start.js'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^policy-sidecar: Node 22\.18 or newer is needed, and this is v\d+\.\d+\.\d+: [^\n]+\n$/);
});
