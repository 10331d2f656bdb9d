import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, inject, test, vi } from 'vitest';
import { elsewhereFor } from '../../src/embedded/data-folder.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { useFolder } from '../support/use.ts';

const folder = useFolder(beforeEach, afterEach);
/** Processes that a test would leave behind where it fails. */
const strays = new Set<number>();
afterEach(async () => {
  for (const pid of strays) if (existsSync(`/proc/${pid}`)) process.kill(pid, 'SIGKILL');
  strays.clear();
  await endAll();
});

/** What is left of sidecars in a temporary folder; Node leaves a cache of its own there. */
const left = (temporary = folder): string[] =>
  readdirSync(temporary).filter((name) => name.startsWith('policy-sidecar-'));

const ephemeral = (args: readonly string[] = [], temporary = folder): Command =>
  startCommand(['serve', '--ephemeral', ...args], { TMPDIR: temporary });

/** Waits until it serves. */
const serving = ({ out }: Command): Promise<void> => vi.waitFor(() => expect(out()).toMatch(/^\{"grpc":.*\}\n$/));

test.each(['standard input ends', 'the parent is killed'])(
  'an ephemeral sidecar leaves nothing when %s',
  async (how) => {
    const killed = how === 'the parent is killed';
    const line = `exec "${process.execPath}" ${inject('program')} serve --ephemeral`;
    // The shell stays in between as the parent, and keeps the input open.
    const script = killed ? `"${process.execPath}" ${inject('program')} serve --ephemeral </dev/zero & cat` : line;
    const shell = spawn('sh', ['-c', script], {
      env: { ...process.env, TMPDIR: folder },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const [text] = await once(createInterface({ input: shell.stdout }), 'line');
    const { grpc, http, database, pid } = JSON.parse(text);
    expect(http).toMatch(/^127\.0\.0\.1:\d+$/);
    expect(database).toMatch(/^postgresql:\/\/policy_sidecar:/);
    const caller = grpcCaller(grpc);
    expect((await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).riskCeilings).toHaveLength(4);
    caller.close();
    if (killed) shell.kill('SIGKILL');
    else shell.stdin.end();
    await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false));
    expect(left()).toEqual([]);
  },
);

// Story: it served the database that was named, or a folder that stays without its durability.
test.each(['--database-url=postgresql://someone:secret@127.0.0.1:1/real', '--data-dir=/dev/null/mine'])(
  'it takes no database that stays: %s',
  async (flag) => {
    const { ended, out, err } = ephemeral([flag]);
    expect({ code: await ended, out: out(), err: err() }).toEqual({
      code: 2,
      out: '',
      err: 'policy-sidecar: --ephemeral has a database of its own, and takes neither --database-url nor --data-dir\n',
    });
    expect(left()).toEqual([]);
  },
);

// Story: a shell that had the settings of another sidecar gave it that one's port for probes, and its standbys.
test('what the environment says of another sidecar is not for it', async () => {
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const sidecar = startCommand(['serve', '--ephemeral'], {
    TMPDIR: folder,
    DATABASE_URL: 'postgresql://someone@127.0.0.1:1/real',
    SIDECAR_REPLICA_URLS: 'postgresql://someone@127.0.0.1:1/real',
    SIDECAR_PROBE_LISTEN: `127.0.0.1:${(taken.address() as AddressInfo).port}`,
    SIDECAR_LOG_LEVEL: 'warn',
  });
  await serving(sidecar);
  expect(sidecar.err()).toBe('');
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  taken.close();
});

// Story: who had started it was asked when all of it was loaded. A parent that had died by then was never missed, and what it had
// started served for ever.
test('a parent that dies while the program is loaded is missed', async () => {
  const slow = `import { writeSync } from 'node:fs';
    import { registerHooks } from 'node:module';
    const parent = process.ppid;
    const clock = new Int32Array(new SharedArrayBuffer(4));
    registerHooks({
      load: (url, context, next) => {
        if (!url.endsWith('/main.js')) return next(url, context);
        writeSync(1, process.pid + '\\n');
        while (process.ppid === parent) Atomics.wait(clock, 0, 0, 10);
        return next(url, context);
      },
    });`;
  const loading = ['--import', `data:text/javascript,${encodeURIComponent(slow)}`];
  const args = [
    '-c',
    '"$@" </dev/zero & cat',
    'sh',
    process.execPath,
    ...loading,
    inject('program'),
    'serve',
    '--ephemeral',
  ];
  const shell = spawn('sh', args, { env: { ...process.env, TMPDIR: folder }, stdio: ['pipe', 'pipe', 'inherit'] });
  const [pid] = await once(createInterface({ input: shell.stdout }), 'line');
  strays.add(Number(pid));
  shell.kill('SIGKILL');
  await vi.waitFor(() => expect(existsSync(`/proc/${pid}`)).toBe(false));
  expect(left()).toEqual([]);
});

// Story: a parent that died while the database was made took along whoever was to read where it is, and what it had started served on
// for nobody.
test('where nobody is left to be told where it is, it ends', async () => {
  const sidecar = ephemeral();
  sidecar.child.stdout!.destroy();
  expect({ code: await sidecar.ended, err: sidecar.err() }).toEqual({ code: 0, err: '' });
  expect(left()).toEqual([]);
});

// Story: npx, or a shell, in between outlives the process that is killed, and so did what it had started.
test('the process that --parent names ends it, even one whose end nobody has asked for yet', async () => {
  // What becomes of the shell asks for no child's end.
  const shell = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 600'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [pid] = await once(createInterface({ input: shell.stdout }), 'line');
  for (const each of [shell.pid!, Number(pid)]) strays.add(each);
  const sidecar = ephemeral(['--parent', pid]);
  await serving(sidecar);
  process.kill(Number(pid), 'SIGKILL');
  expect({ code: await sidecar.ended, err: sidecar.err() }).toEqual({ code: 0, err: '' });
  expect(existsSync(`/proc/${pid}`)).toBe(true);
  expect(left()).toEqual([]);
});

// Story: PostgreSQL ended with a sidecar that was killed, and its data stayed, 40 MB for each.
test('one that is killed takes its data along, after PostgreSQL has ended', async () => {
  const sidecar = ephemeral();
  await serving(sidecar);
  const [name] = left();
  const [server] = readFileSync(join(folder, name!, 'data', 'postmaster.pid'), 'utf8').split('\n');
  sidecar.child.kill('SIGKILL');
  expect(await sidecar.ended).toBe('SIGKILL');
  await vi.waitFor(() => expect(left()).toEqual([]));
  await vi.waitFor(() => expect(existsSync(`/proc/${server}`)).toBe(false));
});

// Story: root's PostgreSQL runs under an account that did not reach the temporary folder, its data went to /var/lib, and stayed there.
test.skipIf(process.getuid?.() !== 0)('data that had to go elsewhere go, too', async () => {
  const closed = join(folder, 'closed');
  await mkdir(closed, { mode: 0o700 });
  const sidecar = ephemeral([], closed);
  await serving(sidecar);
  const [name] = left(closed);
  const elsewhere = elsewhereFor(join(closed, name!));
  expect(existsSync(join(elsewhere, 'data'))).toBe(true);
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  expect([existsSync(elsewhere), left(closed)]).toEqual([false, []]);
});
