import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { startEmbedded } from '../../src/embedded/embedded.ts';
import { LOG_BYTES, trimLog } from '../../src/embedded/trim-log.ts';
import { copyDataFolder } from '../support/program.ts';

// Story: it grew for as long as the folder was used.
test('the log of a server stays short, from its start and while it writes', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-log-'));
  await chmod(folder, 0o755);
  await copyDataFolder(folder);
  const server = await startEmbedded({ dataDir: folder, settings: { log_statement: 'all', fsync: 'off' } });
  const log = join(server.dataDir, 'postgres.log');
  const say = async (word: string): Promise<void> => {
    const client = new pg.Client({ connectionString: server.url });
    await client.connect();
    await client.query(`select '${word}'`);
    await client.end();
  };
  await say('before');
  expect(await readFile(log, 'utf8')).toContain('before');
  await trimLog(log, 10);
  await say('after');
  expect(await readFile(log, 'utf8')).toContain('after');
  expect(await readFile(log, 'utf8')).not.toContain('before');
  expect(await readFile(`${log}.1`, 'utf8')).toContain('before');
  expect((await stat(`${log}.1`)).mode & 0o777).toBe(0o600);
  await trimLog(log);
  expect(await readFile(log, 'utf8')).toContain('after');
  await server.stop();

  await writeFile(log, Buffer.alloc(LOG_BYTES + 1, 'x'));
  const again = await startEmbedded({ dataDir: folder });
  expect((await stat(log)).size).toBeLessThan(1_000_000);
  expect((await stat(`${log}.1`)).size).toBe(LOG_BYTES + 1);
  await again.stop();
  await rm(folder, { recursive: true, force: true });
});
