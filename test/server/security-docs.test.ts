import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { drivers } from '../../src/drivers/drivers.ts';
import { authorizationReading } from '../../src/server/authorization.ts';
import { driverEndpoints } from '../../src/server/endpoint.ts';
import { DECISIVE } from '../../src/server/headers.ts';
import { tokenIdentity } from '../../src/server/identity.ts';
import { readOnce } from '../../src/server/watched-file.ts';
import { PageTokens } from '../../src/statements/page-tokens.ts';

const ROOT = join(import.meta.dirname, '..', '..');

test('the authorization file of docs/security.md is one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'docs-'));
  const path = join(folder, 'authorization.json');
  const [, example] = /```json\n(\{\n.*?)```/s.exec(readFileSync(join(ROOT, 'docs/security.md'), 'utf8')) ?? [];
  await writeFile(path, example!);
  const grants = readOnce(authorizationReading(path, drivers({} as never).flatMap(driverEndpoints(new PageTokens()))));
  expect(grants.explain('engine-a', 'PolicyEngineService/InsertEvaluation')?.allowed).toBe(true);
  expect(grants.explain('dashboard', 'PolicyEngineService/InsertEvaluation')?.allowed).toBe(false);
  await rm(folder, { recursive: true });
});

test('docs/security.md tells web pages every header that decides what a call does', () => {
  const [, list] = /lets them send the headers that calls have, (.*?), and see those/s.exec(
    readFileSync(join(ROOT, 'docs/security.md'), 'utf8'),
  )!;
  expect([...DECISIVE].filter((name) => !list!.includes(`\`${name}\``))).toEqual([]);
});

test('the token of the README is let in by its line, and so is a new one', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'docs-'));
  const made = execFileSync(process.execPath, [inject('program'), 'token', 'engine-a'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  for (const text of [readFileSync(join(ROOT, 'README.md'), 'utf8'), made]) {
    const [, token, line] = /^token {2}(\S+)\nline {3}(.*)$/m.exec(text) ?? [];
    await writeFile(join(folder, 'tokens'), `${line}\n`);
    const identity = tokenIdentity(join(folder, 'tokens'), undefined as never);
    expect(identity.caller(`Bearer ${token}`, undefined)).toBe('engine-a');
    identity.close();
  }
  await rm(folder, { recursive: true });
});

test('a name that the tokens file would refuse gets no token', () => {
  const refused = (name: string): string => {
    try {
      return execFileSync(process.execPath, [inject('program'), 'token', name], {
        cwd: ROOT,
        encoding: 'utf8',
        stdio: 'pipe',
      });
    } catch (error) {
      return (error as { stderr: string }).stderr;
    }
  };
  for (const name of ['a b', 'a:', 'é', '#a', 'x'.repeat(129)])
    expect(refused(name)).toMatch(/^policy-sidecar: token takes/);
});
