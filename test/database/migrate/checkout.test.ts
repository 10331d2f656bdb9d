import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { migrations } from '../../../migrations/index.ts';
import { createEmptyDatabase } from '../../support/postgres.ts';
import { connected } from '../catalog.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');

test('a checkout in a folder of any name applies what it says', async () => {
  const empty = await createEmptyDatabase();
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar (1) [x] {y}? *'));
  try {
    for (const part of ['src', 'migrations', 'package.json'])
      await cp(join(ROOT, part), join(folder, part), { recursive: true });
    await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    const child = spawn(process.execPath, [join(folder, 'src/start.js'), 'migrate', 'up'], {
      env: { ...process.env, DATABASE_URL: empty.url },
    });
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(out.match(/^applied /gm)).toHaveLength(Object.keys(migrations).length);
    const rows = await connected(
      empty.url,
      async (client) => (await client.query('select from policy_sidecar.requests')).rows,
    );
    expect(rows).toEqual([]);
  } finally {
    await rm(folder, { recursive: true, force: true });
    await empty.drop();
  }
});
