import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');

test('a Node that cannot read the program says in one line which one can', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--no-strip-types', 'src/start.js'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^policy-sidecar: Node 22\.18 or newer is needed, and this is v\d+\.\d+\.\d+: [^\n]+\n$/);
});
