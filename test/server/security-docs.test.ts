import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { drivers } from '../../src/drivers/drivers.ts';
import { authorizationReading } from '../../src/server/authorization.ts';
import { driverEndpoints } from '../../src/server/endpoint.ts';
import { tokenIdentity } from '../../src/server/identity.ts';
import { readOnce } from '../../src/server/watched.ts';

const ROOT = join(import.meta.dirname, '..', '..');

test('the authorization file of docs/security.md is one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'docs-'));
  const path = join(folder, 'authorization.json');
  const [, example] = /```json\n(\{\n.*?)```/s.exec(readFileSync(join(ROOT, 'docs/security.md'), 'utf8')) ?? [];
  await writeFile(path, example!);
  const grants = readOnce(authorizationReading(path, drivers({} as never).flatMap(driverEndpoints)));
  expect(grants.explain('engine-a', 'PolicyEngineService/InsertEvaluation')?.allowed).toBe(true);
  expect(grants.explain('dashboard', 'PolicyEngineService/InsertEvaluation')?.allowed).toBe(false);
  await rm(folder, { recursive: true });
});

test('the lines of the README make a token that is let in', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'docs-'));
  const [, make, add] =
    /^\$ (token=.*)\n\$ (echo .* >> tokens)$/m.exec(readFileSync(join(ROOT, 'README.md'), 'utf8')) ?? [];
  const token = execFileSync('sh', ['-c', `${make}\n${add}\necho "$token"`], { cwd: folder, encoding: 'utf8' }).trim();
  const identity = tokenIdentity(join(folder, 'tokens'), undefined as never);
  expect(identity.caller(`Bearer ${token}`, undefined)).toBe('engine-a');
  identity.close();
  await rm(folder, { recursive: true });
});
