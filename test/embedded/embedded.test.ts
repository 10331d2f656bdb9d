import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, chown, link, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { startEmbedded } from '../../src/embedded/embedded.ts';
import { takeOwnership } from '../../src/embedded/ownership.ts';
import { copyDataFolder } from '../support/program.ts';

const HOLDER = join(import.meta.dirname, '..', 'support', 'embedded-holder.ts');
const CONTENDER = join(import.meta.dirname, '..', 'support', 'contender.ts');
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
  await copyDataFolder(folder);
  const held = await hold(folder);
  await expect(startEmbedded({ dataDir: folder })).rejects.toThrow(`in use by process ${held.child.pid}`);
  expect(await query(held.url, 'select 1 as a')).toEqual([{ a: 1 }]);
});

// Story: a sidecar that had ended, and whose parent never asked how, kept its folder from the next one.
test('a folder whose owner has ended is free, though nobody has asked how it ended', async () => {
  // What becomes of the shell asks for no child's end.
  const shell = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [pid] = await once(createInterface(shell.stdout), 'line');
  try {
    const birth = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[19];
    await writeFile(join(folder, 'sidecar.pid'), `${pid} ${birth}`);
    await expect(takeOwnership(folder)).rejects.toThrow(`in use by process ${pid}`);
    process.kill(Number(pid), 'SIGKILL');
    const disown = await vi.waitFor(() => takeOwnership(folder));
    expect(existsSync(`/proc/${pid}`)).toBe(true);
    await disown();
  } finally {
    process.kill(Number(pid), 'SIGKILL');
    shell.kill('SIGKILL');
  }
});

test('kill -9: the server goes too, the next start has every committed row', async () => {
  await copyDataFolder(folder);
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
  await copyDataFolder(folder);
  const held = await hold(folder);
  await query(held.url, 'create table kept as select 1 as a');
  const pid = serverPid(folder);
  // Or it would start the server again.
  held.child.kill('SIGSTOP');
  const watchdog = parentOf(pid);
  const helpers = readFileSync(`/proc/${watchdog}/task/${watchdog}/children`, 'utf8').trim().split(' ').map(Number);
  for (const each of [watchdog, ...helpers]) if (each !== pid) process.kill(each, 'SIGKILL');
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

// Story: a start right after PostgreSQL was killed, as by the kernel for want of memory, was refused now and then: some of its
// processes had not noticed yet.
test('processes of a killed server that are still ending are waited for', async () => {
  await copyDataFolder(folder);
  const held = await hold(folder);
  // Or it would start the server again.
  held.child.kill('SIGSTOP');
  const pid = serverPid(folder);
  const [slow] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').map(Number);
  process.kill(slow!, 'SIGSTOP');
  try {
    process.kill(pid, 'SIGKILL');
    await kill(held.child);
    const starting = startEmbedded({ dataDir: folder });
    starting.catch(() => {});
    const log = (): string => readFileSync(join(folder, 'postgres.log'), 'utf8');
    await vi.waitFor(() => expect(log()).toContain('pre-existing shared memory block'));
    process.kill(slow!, 'SIGCONT');
    await (await starting).stop();
  } finally {
    if (existsSync(`/proc/${slow}`)) process.kill(slow!, 'SIGKILL');
  }
});

test('of several starts at once after a kill exactly one has the data', async () => {
  await copyDataFolder(folder);
  await kill((await hold(folder)).child);
  const answers = await Promise.all(Array.from({ length: 5 }, () => hold(folder)));
  const started = answers.filter(({ refused }) => refused === undefined);
  expect(started).toHaveLength(1);
  for (const { refused } of answers) {
    if (refused !== undefined) expect(refused).toMatch(/^the data folder .* is in use by process \d+$/);
  }
  expect(await query(started[0]!.url, 'select 1 as a')).toEqual([{ a: 1 }]);
});

// Story: of those who took a dead owner's claim away one might take that of a faster one for it, and before it was put back a
// third had the folder, too.
test("a folder whose owner was killed is one start's, however many come at the same moment", async () => {
  const contenders = Array.from({ length: 6 }, () => {
    const child = spawn(process.execPath, [CONTENDER], { stdio: ['pipe', 'pipe', 'inherit'] });
    return { child, lines: createInterface(child.stdout)[Symbol.asyncIterator]() };
  });
  const gone = spawnSync(process.execPath, ['--eval', '']).pid;
  for (let round = 0; round < 200; round += 1) {
    const own = join(folder, String(round));
    await mkdir(own);
    await writeFile(join(own, 'sidecar.pid'), `${gone} 1`);
    for (const { child } of contenders) child.stdin.write(`${own}\n`);
    const answers = await Promise.all(
      contenders.map(async ({ lines }) => JSON.parse((await lines.next()).value!) as { problem?: string }),
    );
    const problems = answers.flatMap(({ problem }) => problem ?? []);
    expect(problems).toHaveLength(5);
    for (const problem of problems) expect(problem).toMatch(/^the data folder .* is in use by process \d+$/);
  }
  for (const { child } of contenders) child.stdin.end();
});

// Story: in a container each sidecar has the number of the one before it.
test('a process whose like was killed while it took the folder takes it', async () => {
  const claim = join(folder, 'sidecar.pid');
  await writeFile(claim, `${process.pid} 1`);
  await link(claim, `${claim}.${process.pid}`);
  await (await takeOwnership(folder))();
  expect(await readdir(folder)).toEqual([]);
});

test('a stale lock file that names another process neither stops that process nor the start', async () => {
  await copyDataFolder(folder);
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

// Story: a start right after another was killed in its initdb failed, since that went on in the same folder.
test('an initdb that outlived its sidecar is ended by the next start', async () => {
  const child = spawn(process.execPath, [HOLDER, folder], { stdio: 'pipe' });
  holders.add(child);
  child.once('close', () => holders.delete(child));
  await vi.waitFor(() => expect(existsSync(join(folder, 'data.draft', 'base', '1'))).toBe(true), { interval: 5 });
  await kill(child);
  expect(existsSync(join(folder, 'data'))).toBe(false);
  const embedded = await startEmbedded({ dataDir: folder });
  expect(await query(embedded.url, 'select 1 as a')).toEqual([{ a: 1 }]);
  await embedded.stop();
});

test('PG* variables of the shell reach neither the server nor the clients of it', async () => {
  await copyDataFolder(folder);
  const variables = {
    PGSSLMODE: 'verify-full',
    PGOPTIONS: '-c no_such=1',
    PGDATESTYLE: 'nonsense',
    PGDATA: '/nowhere',
  };
  const held = await hold(folder, { env: { ...process.env, ...variables } });
  expect(held.refused).toBeUndefined();
  const environment = readFileSync(`/proc/${serverPid(folder)}/environ`, 'utf8').split('\0');
  expect(environment.filter((each) => each.startsWith('PG'))).toEqual([]);
});

test('a server that does not start is told by its first complaint, at once', async () => {
  await copyDataFolder(folder);
  const began = performance.now();
  await expect(startEmbedded({ dataDir: folder, settings: { shared_buffers: 'plenty' } })).rejects.toThrow(
    /does not start: invalid value for parameter "shared_buffers": "plenty" \(.*postgres\.log\)$/,
  );
  expect(performance.now() - began).toBeLessThan(4_000);
  // What an earlier start complained of is none of this one's business.
  await expect(startEmbedded({ dataDir: folder, settings: { work_mem: 'some' } })).rejects.toThrow(/"work_mem"/);
});

test('data of another version are refused with both versions', async () => {
  await copyDataFolder(folder);
  await writeFile(join(folder, 'data', 'PG_VERSION'), '12\n');
  await expect(startEmbedded({ dataDir: folder })).rejects.toThrow(/incompatible with server: .*12.*18/);
});

test('an initdb that fails is told by its first complaint', async () => {
  // Smaller than a file of the write-ahead log.
  const limited = ['-c', `ulimit -f 20000; exec "$0" "$@"`, process.execPath, HOLDER, folder];
  const child = spawn('/bin/sh', limited, { stdio: ['pipe', 'pipe', 'inherit'] });
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  await once(child, 'close');
  expect((JSON.parse(line) as Answer).refused).toMatch(/initdb failed: .*(File too large|could not)/);
  expect(existsSync(join(folder, 'data'))).toBe(false);
});

test.each([
  ['PG_VERSION', 'removed'],
  ['PG_VERSION', 'emptied'],
  ['password', 'removed'],
  ['password', 'emptied'],
])('data whose %s was %s are refused and left alone', async (name, how) => {
  await copyDataFolder(folder);
  const first = await startEmbedded({ dataDir: folder });
  await query(first.url, 'create table kept as select 1 as a');
  await first.stop();
  const path = join(folder, name === 'password' ? name : join('data', name));
  const content = await readFile(path, 'utf8');
  const { uid, gid } = await stat(path);
  if (how === 'removed') await rm(path);
  else await writeFile(path, '');
  await expect(startEmbedded({ dataDir: folder })).rejects.toThrow(`${path} is missing or empty`);
  expect(existsSync(path) && (await readFile(path, 'utf8'))).toBe(how === 'removed' ? false : '');
  await writeFile(path, content, { mode: 0o600 });
  await chown(path, uid, gid);
  const second = await startEmbedded({ dataDir: folder });
  expect(await query(second.url, 'select a from kept')).toEqual([{ a: 1 }]);
  await second.stop();
});

test('a wrong password is refused with the file to restore', async () => {
  await copyDataFolder(folder);
  await writeFile(join(folder, 'password'), 'another');
  await expect(startEmbedded({ dataDir: folder })).rejects.toThrow(
    /the password in .*password is not the one of .*data/,
  );
});

const foreignOwners = `select c.relname::text as name from pg_class c join pg_namespace n on n.oid = relnamespace
  where nspname in ('policy', 'policy_sidecar', 'public', 'kept') and pg_get_userbyid(relowner) <> 'policy_sidecar'
  union all select proname::text from pg_proc p join pg_namespace n on n.oid = pronamespace
  where nspname = 'kept' and pg_get_userbyid(proowner) <> 'policy_sidecar'
  union all select typname::text from pg_type t join pg_namespace n on n.oid = typnamespace
  where nspname = 'kept' and pg_get_userbyid(typowner) <> 'policy_sidecar'
  union all select nspname::text from pg_namespace
  where nspname in ('policy', 'policy_sidecar', 'kept') and pg_get_userbyid(nspowner) <> 'policy_sidecar'`;

test('the role of the sidecar owns its database, and is no superuser', async () => {
  const embedded = await startEmbedded({ dataDir: folder });
  try {
    await migrateUp(embedded.url);
    expect(
      await query(
        embedded.url,
        `select current_user::text as name, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
           pg_get_userbyid(datdba)::text as owner
         from pg_roles, pg_database where rolname = current_user and datname = current_database()`,
      ),
    ).toEqual([
      {
        name: 'policy_sidecar',
        rolsuper: false,
        rolcreatedb: false,
        rolcreaterole: false,
        rolreplication: false,
        rolbypassrls: false,
        owner: 'policy_sidecar',
      },
    ]);
    expect(await query(embedded.url, foreignOwners)).toEqual([]);
    await expect(query(embedded.url, `copy (select 1) to program 'true'`)).rejects.toThrow('permission denied');
  } finally {
    await embedded.stop();
  }
});

test('a folder in which the superuser owned everything is handed over', async () => {
  await copyDataFolder(folder);
  const before = await startEmbedded({ dataDir: folder });
  const inDatabase = new URL(before.adminUrl);
  inDatabase.pathname = '/policy_sidecar';
  await query(before.adminUrl, 'drop database policy_sidecar');
  await query(before.adminUrl, 'drop role policy_sidecar');
  await query(before.adminUrl, 'create database policy_sidecar');
  await migrateUp(inDatabase.href);
  await query(
    inDatabase.href,
    `create schema kept; create type kept.kind as enum ('a', 'b'); create type kept.pair as (a int, b text);
     create domain kept.short as varchar(3); create sequence kept.alone;
     create table kept."Odd name" (id serial primary key, at int generated always as identity, k kept.kind) partition by range (id);
     create table kept.part partition of kept."Odd name" for values from (0) to (10);
     create view kept.seen as select * from kept."Odd name"; create materialized view kept.stored as select 1 as a;
     create function kept.one(a int, b text default '') returns int language sql return 1;
     create procedure kept.two() language sql as ''; insert into kept."Odd name" (k) values ('a')`,
  );
  await before.stop();
  const embedded = await startEmbedded({ dataDir: folder });
  try {
    expect(await query(embedded.url, foreignOwners)).toEqual([]);
    expect(await query(embedded.url, `select current_user::text as name, id, k from kept.seen`)).toEqual([
      { name: 'policy_sidecar', id: 1, k: 'a' },
    ]);
    await query(embedded.url, 'drop schema kept, policy cascade');
  } finally {
    await embedded.stop();
  }
});

test('a server that ends while it serves is started again, with every committed row', async () => {
  await copyDataFolder(folder);
  const events: string[] = [];
  const embedded = await startEmbedded({ dataDir: folder, report: (event) => events.push(event) });
  try {
    await query(embedded.url, 'create table kept as select 1 as a');
    for (let time = 1; time <= 2; time += 1) {
      process.kill(serverPid(folder), 'SIGKILL');
      await vi.waitFor(() => expect(events.filter((each) => each.endsWith('started again'))).toHaveLength(time));
      expect(await query(embedded.url, 'select a from kept')).toEqual([{ a: 1 }]);
    }
    expect(events[0]).toMatch(/has ended: it is started again, attempt 1 of 5/);
  } finally {
    await embedded.stop();
  }
  expect(existsSync(lockFile(folder))).toBe(false);
});

test('a server that cannot be started again is told with why, and its folder is free again after the stop', async () => {
  await copyDataFolder(folder);
  const embedded = await startEmbedded({ dataDir: folder });
  const pid = serverPid(folder);
  await writeFile(join(folder, 'data', 'PG_VERSION'), '12\n');
  process.kill(pid, 'SIGKILL');
  expect((await embedded.failed).message).toMatch(/ended and could not be started again: .*incompatible with server/);
  await embedded.stop();
  await writeFile(join(folder, 'data', 'PG_VERSION'), '18\n');
  await (await startEmbedded({ dataDir: folder })).stop();
});

test('a stop while the server is being started again waits for it, and leaves nothing behind', async () => {
  await copyDataFolder(folder);
  const ended = Promise.withResolvers<void>();
  const embedded = await startEmbedded({ dataDir: folder, report: () => ended.resolve() });
  process.kill(serverPid(folder), 'SIGKILL');
  await ended.promise;
  await embedded.stop();
  expect(existsSync(lockFile(folder)) && isRunning(serverPid(folder))).toBe(false);
  await (await startEmbedded({ dataDir: folder })).stop();
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
  await copyDataFolder(join(folder, 'data-dir'));
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
