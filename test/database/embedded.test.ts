import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { startEmbedded } from '../../src/database/embedded.ts';

const HOLDER = join(import.meta.dirname, '..', 'support', 'embedded-holder.ts');
const NOBODY = { uid: 65_534, gid: 65_534 };
const isRoot = process.getuid?.() === 0;
/** True where root can show what an ordinary user gets: the account must be able to read this checkout. */
const canBeNobody =
  isRoot && spawnSync(process.execPath, ['--check', HOLDER], { ...NOBODY, stdio: 'ignore' }).status === 0;

let folder: string;
const holders = new Set<ChildProcessWithoutNullStreams>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-embedded-'));
  await chmod(folder, 0o755);
});

afterEach(async () => {
  await Promise.all(
    [...holders].map(async (child) => {
      const closed = once(child, 'close');
      child.stdin.end();
      await closed;
    }),
  );
  await rm(folder, { recursive: true, force: true });
});

interface Answer {
  readonly url: string;
  readonly dataDir: string;
  readonly refused?: string;
}

const hold = async (dataDir: string, account: object = {}) => {
  const child = spawn(process.execPath, [HOLDER, dataDir], { stdio: 'pipe', ...account });
  holders.add(child);
  child.once('close', () => holders.delete(child));
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  return { child, ...(JSON.parse(line) as Answer) };
};

const query = async (url: string, text: string): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
};

const lockFile = (dataDir: string): string => join(dataDir, 'data', 'postmaster.pid');
const serverPid = (dataDir: string): number => Number(readFileSync(lockFile(dataDir), 'utf8').split('\n')[0]);
const parentOf = (pid: number): number =>
  Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[1]);
const isRunning = (pid: number): boolean =>
  existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';

const kill = async (child: ChildProcessWithoutNullStreams): Promise<void> => {
  const closed = once(child, 'close');
  child.kill('SIGKILL');
  await closed;
};

test('data outlive a restart, settings are durable, text sorts by bytes', async () => {
  const first = await startEmbedded({ dataDir: folder });
  await query(first.url, 'create table kept as select 1 as a');
  await first.stop();
  expect(existsSync(lockFile(folder))).toBe(false);
  const second = await startEmbedded({ dataDir: folder });
  try {
    expect(await query(second.url, 'select a from kept')).toEqual([{ a: 1 }]);
    expect(
      await query(
        second.url,
        `select current_setting('fsync') as fsync, current_setting('synchronous_commit') as synchronous_commit,
           current_setting('full_page_writes') as full_page_writes, pg_encoding_to_char(encoding) as encoding, datcollate
         from pg_database where datname = current_database()`,
      ),
    ).toEqual([{ fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', encoding: 'UTF8', datcollate: 'C' }]);
  } finally {
    await second.stop();
  }
});

test('only who can read the password file gets in', async () => {
  const embedded = await startEmbedded({ dataDir: folder });
  try {
    const wrong = new URL(embedded.url);
    wrong.password = 'wrong';
    await expect(query(wrong.href, 'select 1')).rejects.toMatchObject({ code: '28P01' });
    expect((await stat(join(embedded.dataDir, 'password'))).mode & 0o777).toBe(0o600);
    expect((await stat(join(embedded.dataDir, 'data'))).mode & 0o777).toBe(0o700);
    expect(await query(embedded.url, `select current_setting('listen_addresses') as at`)).toEqual([
      { at: '127.0.0.1' },
    ]);
  } finally {
    await embedded.stop();
  }
});

test('a folder in use is refused with the process that has it', async () => {
  const held = await hold(folder);
  await expect(startEmbedded({ dataDir: folder })).rejects.toThrow(`in use by process ${held.child.pid}`);
  expect(await query(held.url, 'select 1 as a')).toEqual([{ a: 1 }]);
});

test('kill -9: the server goes too, the next start has every committed row', async () => {
  const held = await hold(folder);
  await query(held.url, 'create table kept (a int)');
  for (let a = 1; a <= 20; a++) await query(held.url, `insert into kept values (${a})`);
  const pid = serverPid(folder);
  await kill(held.child);
  await expect.poll(() => isRunning(pid), { timeout: 10_000 }).toBe(false);
  const next = await startEmbedded({ dataDir: folder });
  try {
    expect(await query(next.url, 'select count(*)::int as n from kept')).toEqual([{ n: 20 }]);
  } finally {
    await next.stop();
  }
});

test('a server that outlived its sidecar and its watchdog is stopped by the next start', async () => {
  const held = await hold(folder);
  await query(held.url, 'create table kept as select 1 as a');
  const pid = serverPid(folder);
  process.kill(parentOf(pid), 'SIGKILL');
  await kill(held.child);
  expect(isRunning(pid)).toBe(true);
  const next = await startEmbedded({ dataDir: folder });
  try {
    expect(isRunning(pid)).toBe(false);
    expect(await query(next.url, 'select a from kept')).toEqual([{ a: 1 }]);
  } finally {
    await next.stop();
  }
});

test('of several starts at once after a kill exactly one has the data', async () => {
  await kill((await hold(folder)).child);
  const answers = await Promise.all(Array.from({ length: 5 }, () => hold(folder)));
  const started = answers.filter(({ refused }) => refused === undefined);
  expect(started).toHaveLength(1);
  for (const { refused } of answers) {
    if (refused !== undefined) expect(refused).toMatch(/^the data folder .* is in use by process \d+$/);
  }
  expect(await query(started[0]!.url, 'select 1 as a')).toEqual([{ a: 1 }]);
});

test('a stale lock file that names another process neither stops that process nor the start', async () => {
  const first = await startEmbedded({ dataDir: folder });
  await query(first.url, 'create table kept as select 1 as a');
  const lock = await readFile(lockFile(folder), 'utf8');
  await first.stop();
  const { uid, gid } = await stat(join(folder, 'data'));
  const bystander = spawn('sleep', ['60'], { stdio: 'ignore', ...(isRoot ? { uid, gid } : {}) });
  try {
    await writeFile(lockFile(folder), lock.replace(/^\d+/, String(bystander.pid)));
    await chown(lockFile(folder), uid, gid);
    const second = await startEmbedded({ dataDir: folder });
    expect(await query(second.url, 'select a from kept')).toEqual([{ a: 1 }]);
    await second.stop();
    expect(isRunning(bystander.pid!)).toBe(true);
  } finally {
    bystander.kill('SIGKILL');
  }
});

test('an initdb that was cut short is begun again', async () => {
  await mkdir(join(folder, 'data.draft'), { recursive: true });
  await writeFile(join(folder, 'data.draft', 'PG_VERSION'), '18\n');
  await writeFile(join(folder, 'password'), 'from-then', { mode: 0o600 });
  const embedded = await startEmbedded({ dataDir: folder });
  expect(await query(embedded.url, 'select 1 as a')).toEqual([{ a: 1 }]);
  await embedded.stop();
});

test.runIf(isRoot)('root in a private folder: the data are elsewhere, the same place every time', async () => {
  await chmod(folder, 0o700);
  const dataDir = join(folder, 'data-dir');
  const first = await startEmbedded({ dataDir });
  try {
    expect(first.dataDir).toMatch(/^\/var\/lib\/policy-sidecar\/[\da-f]{16}$/);
    await query(first.url, 'create table kept as select 1 as a');
    await first.stop();
    // A folder that opens up later must not look like an empty database.
    await chmod(folder, 0o755);
    const second = await startEmbedded({ dataDir });
    expect(second.dataDir).toBe(first.dataDir);
    expect(await query(second.url, 'select a from kept')).toEqual([{ a: 1 }]);
    await second.stop();
  } finally {
    await rm(first.dataDir, { recursive: true, force: true });
  }
});

test.runIf(isRoot)('root never starts empty beside data that its helper account can no longer reach', async () => {
  await (await startEmbedded({ dataDir: join(folder, 'data-dir') })).stop();
  await chmod(folder, 0o700);
  await expect(startEmbedded({ dataDir: join(folder, 'data-dir') })).rejects.toThrow('may not pass through');
});

test.runIf(canBeNobody)('an ordinary user runs it as itself; root then keeps the owner', async () => {
  const dataDir = join(folder, 'theirs');
  await mkdir(dataDir);
  await chown(dataDir, NOBODY.uid, NOBODY.gid);
  const held = await hold(dataDir, NOBODY);
  expect(held.refused).toBeUndefined();
  await query(held.url, 'create table kept as select 1 as a');
  expect((await stat(join(dataDir, 'data'))).uid).toBe(NOBODY.uid);
  await kill(held.child);
  const next = await startEmbedded({ dataDir });
  expect(await query(next.url, 'select a from kept')).toEqual([{ a: 1 }]);
  expect((await stat(`/proc/${serverPid(dataDir)}`)).uid).toBe(NOBODY.uid);
  await next.stop();
});
