import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, constants, existsSync, openSync, readFileSync, readSync } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { migrationStatus } from '../../src/database/migrate/migrate.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { makePlatform } from '../database/platform.ts';
import { connectCaller, grpcCaller } from '../support/client.ts';
import { type Command, endAll, type LaunchOptions, launch, startCommand } from '../support/command.ts';
import { watchLag } from '../support/lag.ts';
import { whileLocked } from '../support/locked.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, createEmptyDatabase } from '../support/postgres.ts';
import { copyDataFolder } from '../support/program.ts';
import { useFolder } from '../support/use.ts';

const folder = useFolder(beforeEach, afterEach);
afterEach(endAll);

const command = (
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  options: LaunchOptions = {},
): Command => startCommand(args, { SIDECAR_DATA_DIR: join(folder, 'data-dir'), ...env }, options);

/** Runs a command to its end. */
const finish = async (args: readonly string[], env: Readonly<Record<string, string>> = {}) => {
  const { ended, out, err } = command(args, env);
  return { code: await ended, out: out(), err: err() };
};

const query = async (url: string, text: string): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
};

describe('serve', () => {
  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    'on an embedded database: starts, answers, ends with 0 on %s',
    async (signal) => {
      if (signal !== 'SIGTERM') await copyDataFolder(join(folder, 'data-dir'));
      const sidecar = command([]);
      const { grpc, http } = await sidecar.serving();
      expect(sidecar.out()).toContain(`embedded PostgreSQL in ${join(folder, 'data-dir')}`);
      for (const caller of [grpcCaller(grpc), connectCaller(http)]) {
        const response = await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
        expect(response.riskCeilings).toHaveLength(4);
        caller.close();
      }
      const server = Number(readFileSync(join(folder, 'data-dir', 'data', 'postmaster.pid'), 'utf8').split('\n')[0]);
      sidecar.child.kill(signal);
      expect(await sidecar.ended).toBe(0);
      expect(existsSync(`/proc/${server}`)).toBe(false);
    },
  );

  const postmaster = (): number =>
    Number(readFileSync(join(folder, 'data-dir', 'data', 'postmaster.pid'), 'utf8').split('\n')[0]);

  test('an embedded database that is killed is started again, and calls are served again', async () => {
    await copyDataFolder(join(folder, 'data-dir'));
    const sidecar = command([], { PGSSLMODE: 'require', PGOPTIONS: '-c no_such=1', PGUSER: 'nobody' });
    const caller = grpcCaller((await sidecar.serving()).grpc);
    process.kill(postmaster(), 'SIGKILL');
    await expect.poll(sidecar.err, { timeout: 60_000 }).toMatch(/"level":"warn",.*PostgreSQL has been started again/);
    const answers = () => caller.unary(PolicyEngineService.method.fetchRiskCeilings, {}).then(() => true);
    await expect.poll(answers, { timeout: 60_000 }).toBe(true);
    caller.close();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
  });

  test('an embedded database that cannot be started again ends the command, with a line that says why', async () => {
    await copyDataFolder(join(folder, 'data-dir'));
    const sidecar = command(['--drain-timeout', '1s']);
    await sidecar.serving();
    await writeFile(join(folder, 'data-dir', 'data', 'PG_VERSION'), '12\n');
    process.kill(postmaster(), 'SIGKILL');
    expect(await sidecar.ended).toBe(3);
    const last = sidecar.err().trimEnd().split('\n').at(-1);
    expect(last).toMatch(
      /^policy-sidecar: the embedded PostgreSQL ended and could not be started again: .*incompatible/,
    );
  });

  test('an embedded database that has stopped answering does not hold the exit', async () => {
    await copyDataFolder(join(folder, 'data-dir'));
    const sidecar = command(['--drain-timeout', '1s']);
    await sidecar.serving();
    const server = postmaster();
    const backends = readFileSync(`/proc/${server}/task/${server}/children`, 'utf8').trim().split(' ').map(Number);
    for (const pid of [server, ...backends]) process.kill(pid, 'SIGSTOP');
    const lagMs = watchLag();
    const began = performance.now();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(1);
    expect(performance.now() - began).toBeLessThan(2_000 + 2 * lagMs());
    expect(sidecar.err()).toMatch(/^policy-sidecar: cut off/m);
    for (const pid of [...backends, server]) process.kill(pid, 'SIGCONT');
    await expect.poll(() => existsSync(`/proc/${server}`), { timeout: 10_000 }).toBe(false);
  });

  test('`npm start` ends with 0 on SIGTERM and leaves nothing behind', async () => {
    await copyDataFolder(join(folder, 'data-dir'));
    const npm = launch('npm', ['start'], { SIDECAR_DATA_DIR: join(folder, 'data-dir') });
    await npm.serving();
    const lock = join(folder, 'data-dir', 'data', 'postmaster.pid');
    expect(existsSync(lock)).toBe(true);
    npm.child.kill('SIGTERM');
    expect(await npm.ended).toBe(0);
    expect(existsSync(lock)).toBe(false);
    expect(existsSync(join(folder, 'data-dir', 'sidecar.pid'))).toBe(false);
  });

  test('on a DATABASE_URL: says which, without the password, and serves it', async () => {
    const database = await createDatabase();
    const url = new URL(database.url);
    url.searchParams.set('application_name', 'hidden');
    const sidecar = command(['serve'], { DATABASE_URL: url.href });
    await sidecar.serving();
    expect(sidecar.out()).toContain(`database  postgresql://${url.username}@${url.host}${url.pathname}\n`);
    expect(sidecar.out() + sidecar.err()).not.toContain(url.password);
    expect(existsSync(join(folder, 'data-dir'))).toBe(false);
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    await database.drop();
  });

  test('a socket file, HTTP off', async () => {
    const database = await createDatabase();
    const socket = join(folder, 'grpc.sock');
    const sidecar = command(['--grpc-listen', `unix:${socket}`, '--http-listen', 'off'], {
      DATABASE_URL: database.url,
    });
    await expect.poll(sidecar.out, { timeout: 60_000 }).toContain(`-unix ${socket} `);
    expect(sidecar.out()).not.toContain('HTTP');
    expect((await stat(socket)).isSocket()).toBe(true);
    const caller = grpcCaller(`unix:${socket}`);
    await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
    caller.close();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    await database.drop();
  });

  test.each(['on', 'off'])('with reflection %s, what it says to try can be called as it is', async (reflection) => {
    const database = await createDatabase();
    const sidecar = command([], { DATABASE_URL: database.url, SIDECAR_REFLECTION: reflection });
    const { grpc, http } = await sidecar.serving();
    const method = 'hoc.cus.policies.v1.PolicyEngineService/FetchRiskCeilings';
    const curl = `curl -H 'content-type: application/json' -d '{}' http://${http}/${method}`;
    const tries = sidecar.out().slice(sidecar.out().indexOf('try '));
    expect(tries).toBe(
      reflection === 'on'
        ? `try       grpcurl -plaintext ${grpc} ${method}\n          ${curl}\n`
        : // Without it grpcurl knows no method.
          `try       ${curl}\n`,
    );
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    await database.drop();
  });

  test('an open transaction is waited for as long as the drain lasts, and no longer', async () => {
    const database = await createDatabase();
    const sidecar = command(['--drain-timeout', '1s'], { DATABASE_URL: database.url });
    const caller = grpcCaller((await sidecar.serving()).grpc);
    await caller.unary(TransactionService.method.begin, { idleLease: { seconds: 60n, nanos: 0 } });
    const lagMs = watchLag();
    const began = performance.now();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    expect(performance.now() - began).toBeGreaterThan(1_000);
    expect(performance.now() - began).toBeLessThan(2_000 + 2 * lagMs());
    caller.close();
    await database.drop();
  });

  test('a second signal does not wait for the drain', async () => {
    const database = await createDatabase();
    const sidecar = command(['--drain-timeout', '60s'], { DATABASE_URL: database.url });
    const caller = grpcCaller((await sidecar.serving()).grpc);
    await caller.unary(TransactionService.method.begin, { idleLease: { seconds: 60n, nanos: 0 } });
    sidecar.child.kill('SIGTERM');
    await sleep(1_200);
    expect(sidecar.child.exitCode).toBeNull();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(130);
    caller.close();
    await database.drop();
  });
});

// Story: the line of the start had its version twice, which strict readers of JSON refuse.
test('no line of the log of a server from start to end has a key twice', async () => {
  await copyDataFolder(join(folder, 'data-dir'));
  const sidecar = command([]);
  await sidecar.serving();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  const lines = sidecar
    .err()
    .split('\n')
    .filter((line) => line.startsWith('{'));
  expect(lines.map((line) => JSON.parse(line).msg)).toEqual(expect.arrayContaining(['started', 'stopped']));
  for (const line of lines) expect(JSON.stringify(JSON.parse(line))).toBe(line);
});

describe('nobody reads', () => {
  /** A pipe, as a shell or a container runtime makes them: `read` and `write` are its two ends. */
  const makePipe = (): { read: number; write: number } => {
    const path = join(folder, 'pipe');
    execFileSync('mkfifo', [path]);
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return { read, write: openSync(path, constants.O_WRONLY) };
  };

  const callOften = async (address: string, times: number): Promise<void> => {
    const caller = grpcCaller(address);
    for (let made = 0; made < times; made += 100) {
      const calls = Array.from({ length: 100 }, () => caller.unary(PolicyEngineService.method.fetchRiskCeilings, {}));
      await Promise.all(calls);
    }
    caller.close();
  };

  /** Ends by SIGTERM within the drain time and a second; an exit that takes longer is killed and told. */
  const terminate = async ({ child, ended }: Command): Promise<unknown> => {
    child.kill('SIGTERM');
    const killer = setTimeout(() => child.kill('SIGKILL'), 3_000);
    const code = await ended;
    clearTimeout(killer);
    return code;
  };

  const withDrain = ['--drain-timeout', '2s'];

  test.each(['a pipe', 'a socket'])('the log, %s whose reader has gone: calls and the exit go on', async (kind) => {
    const database = await createDatabase();
    const pipe = kind === 'a pipe' ? makePipe() : undefined;
    const sidecar = command(withDrain, { DATABASE_URL: database.url }, { stderr: pipe?.write });
    const { grpc } = await sidecar.serving();
    if (pipe) for (const end of [pipe.read, pipe.write]) closeSync(end);
    sidecar.child.stderr?.destroy();
    await callOften(grpc, 200);
    expect(await terminate(sidecar)).toBe(0);
    await database.drop();
  });

  test('the log, a pipe whose reader is stuck: calls and the exit go on, and what was dropped is told', async () => {
    const database = await createDatabase();
    const { read, write } = makePipe();
    const sidecar = command(withDrain, { DATABASE_URL: database.url }, { stderr: write });
    closeSync(write);
    const { grpc } = await sidecar.serving();
    const times = 6_000;
    await callOften(grpc, times);
    const taken = Buffer.alloc(1 << 20);
    let log = '';
    const drain = (): string => {
      try {
        for (let bytes = -1; bytes !== 0; ) {
          bytes = readSync(read, taken);
          log += taken.toString('utf8', 0, bytes);
        }
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
      }
      return log;
    };
    await expect.poll(drain, { timeout: 5_000 }).toContain('"dropped":');
    const lines = log.trimEnd().split('\n');
    const told = lines.map((line) => JSON.parse(line)).reduce((sum, { dropped = 0 }) => sum + dropped, 0);
    expect(lines.filter((line) => line.includes('FetchRiskCeilings')).length + told).toBe(times);
    await callOften(grpc, 500);
    expect(await terminate(sidecar)).toBe(0);
    closeSync(read);
    await database.drop();
  });

  test('the output, closed at once: it serves, and ends with 0', async () => {
    const database = await createDatabase();
    const address = `127.0.0.1:${await freePort()}`;
    const sidecar = command([...withDrain, '--grpc-listen', address], { DATABASE_URL: database.url });
    sidecar.child.stdout?.destroy();
    const serves = () => callOften(address, 100).then(() => true);
    await expect.poll(serves, { timeout: 60_000 }).toBe(true);
    expect(await terminate(sidecar)).toBe(0);
    expect(sidecar.err()).not.toContain('EPIPE');
    await database.drop();
  });

  test('what a command prints, by a reader that has left: no complaint', async () => {
    const { child, ended, err } = command(['--help']);
    child.stdout?.destroy();
    expect(await ended).toBe(0);
    expect(err()).toBe('');
  });
});

describe('an older schema', () => {
  test('is refused with the command to run', async () => {
    const database = await createEmptyDatabase();
    const { code, err, out } = await finish([], { DATABASE_URL: database.url });
    expect({ code, out }).toEqual({ code: 4, out: '' });
    expect(err).toMatch(
      /^policy-sidecar: the database lacks 8 migration\(s\): run `.*migrate up`.*SIDECAR_MIGRATE=up\n$/,
    );
    expect(await query(database.url, `select from pg_namespace where nspname = 'policy_sidecar'`)).toHaveLength(0);
    await database.drop();
  });

  test('is brought up to date with SIDECAR_MIGRATE=up', async () => {
    const database = await createEmptyDatabase();
    const sidecar = command([], { DATABASE_URL: database.url, SIDECAR_MIGRATE: 'up' });
    await sidecar.serving();
    expect((await migrationStatus(database.url)).pending).toEqual([]);
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
    await database.drop();
  });

  test('with SIDECAR_MIGRATE=up ends the start with 6 where something in the database is in the way', async () => {
    const database = await createEmptyDatabase();
    await query(database.url, `create table alembic_version as select text '1_first' as version_num`);
    const { code, err } = await finish([], { DATABASE_URL: database.url, SIDECAR_MIGRATE: 'up' });
    expect({ code, err }).toEqual({
      code: 6,
      err: expect.stringContaining('bring them to their newest revision first'),
    });
    expect((await migrationStatus(database.url)).pending).toHaveLength(8);
    await database.drop();
  });
});

test('health and wait ask the probe listener where there is one', async () => {
  const database = await createDatabase();
  const env = { DATABASE_URL: database.url, SIDECAR_PROBE_LISTEN: `127.0.0.1:${await freePort()}` };
  // Nobody listens for gRPC where they would ask without it.
  const asking = { ...env, SIDECAR_GRPC_LISTEN: 'unix:/no/socket' };
  const none = await finish(['health'], asking);
  expect(none).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^policy-sidecar: not serving: .*ECONNREFUSED.*\n$/),
  });
  const waiting = finish(['wait', '--timeout', '2m'], asking);
  const sidecar = command([], env);
  expect(await waiting).toEqual({ code: 0, out: '', err: '' });
  expect(await finish(['health'], asking)).toEqual({ code: 0, out: '', err: '' });
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  await database.drop();
});

describe('migrate', () => {
  test('status, then up by two processes at once, then nothing to do', async () => {
    const database = await createEmptyDatabase();
    const env = { DATABASE_URL: database.url };
    const before = await finish(['migrate', 'status'], env);
    expect(before.code).toBe(4);
    expect(before.out.match(/^pending {2}Migration\w+$/gm)).toHaveLength(8);
    const both = await Promise.all([finish(['migrate', 'up'], env), finish(['migrate', 'up'], env)]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(both.flatMap(({ out }) => out.split('\n').filter(Boolean)).sort()).toEqual([
      'applied Migration20261123000100_policy_schema',
      'applied Migration20261123000200_rules_limits_proposals',
      'applied Migration20261123000300_resolvers_recovery',
      'applied Migration20261123000400_sidecar',
      'applied Migration20261123000500_list_indexes',
      'applied Migration20261125000100_outcomes',
      'applied Migration20261126000600_neutral_columns',
      'applied Migration20261126000700_creation_order',
      'nothing to apply',
    ]);
    const after = await finish(['migrate', 'status'], env);
    expect(after.out.match(/^applied {2}Migration\w+ {2}\d{4}-/gm)).toHaveLength(8);
    expect({ code: after.code, out: after.out }).toEqual({ code: 0, out: expect.not.stringContaining('pending') });
    await database.drop();
  });

  test('check says what would change and what would stop it, which ends `up` and a start with 6', async () => {
    const database = await createEmptyDatabase();
    await makePlatform(database.url);
    const env = { DATABASE_URL: database.url };
    const changes = await finish(['migrate', 'check'], env);
    expect(changes).toMatchObject({ code: 0, err: '' });
    expect(changes.out).toMatch(/public\.recovery_candidates\.confidence .*real becomes double precision/);
    await query(database.url, `update public.policy_precedence set failure_mode = 'open' where id = 1`);
    const broken = /public\.policy_precedence .*ck_policy_precedence_failure_mode/;
    const stops = await finish(['migrate', 'check'], env);
    expect(stops).toMatchObject({ code: 1, out: expect.stringMatching(broken), err: '' });
    for (const [args, setting] of [
      [['migrate', 'up'], {}],
      [[], { SIDECAR_MIGRATE: 'up' }],
    ] as const) {
      const refused = await finish(args, { ...env, ...setting });
      expect(refused).toMatchObject({ code: 6, out: '', err: expect.stringMatching(broken) });
    }
    expect((await migrationStatus(database.url)).executed).toEqual([]);
    await query(database.url, `update public.policy_precedence set failure_mode = 'fail_open' where id = 1`);
    expect(await finish(['migrate', 'up'], env)).toMatchObject({ code: 0 });
    expect(await finish(['migrate', 'check'], env)).toEqual({ code: 0, out: 'nothing to change\n', err: '' });
    await database.drop();
  });

  test('what a newer program applied is shown and left alone', async () => {
    const database = await createDatabase();
    await query(
      database.url,
      `insert into policy_sidecar.migrations (name, executed_at) values ('Migration99990101000000_later', now())`,
    );
    const { out } = await finish(['migrate', 'status'], { DATABASE_URL: database.url });
    expect(out).toMatch(/^newer {4}Migration99990101000000_later$/m);
    expect((await finish(['migrate', 'up'], { DATABASE_URL: database.url })).out).toBe('nothing to apply\n');
    await database.drop();
  });

  // Story: said `schema "policy" does not exist`, with the exit code of wrong use.
  test('tenants of a schema that is older is refused with the command to run', async () => {
    const database = await createEmptyDatabase();
    expect(await finish(['migrate', 'tenants'], { DATABASE_URL: database.url })).toEqual({
      code: 4,
      out: '',
      err: 'policy-sidecar: the database lacks 8 migration(s): run `policy-sidecar migrate up`, or set SIDECAR_MIGRATE=up\n',
    });
    await database.drop();
  });

  // Story: a database that was restarted meanwhile was told as wrong use.
  test('a database that ends the connection in the midst of the work is told as one that cannot be reached', async () => {
    const database = await createDatabase();
    const person = new pg.Client({ connectionString: database.url });
    await person.connect();
    await whileLocked(person, 'lock table policy.evaluations', async () => {
      const { ended, err } = command(['migrate', 'tenants'], { DATABASE_URL: database.url });
      await vi.waitFor(async () => {
        const ended = await query(
          database.url,
          `select pg_terminate_backend(pid) from pg_stat_activity
           where datname = current_database() and state = 'active' and query like 'lock table only policy.evaluations %'`,
        );
        expect(ended).toHaveLength(1);
      });
      expect({ code: await ended, err: err() }).toEqual({
        code: 3,
        err: expect.stringMatching(/^policy-sidecar: terminating connection due to administrator command$/m),
      });
    });
    await person.end();
    await database.drop();
  });

  // Story: the same of a role that may not look into the sidecar's own schema.
  test.each(['status', 'check', 'up'])('%s, as a role that may not see what is applied', async (action) => {
    const database = await createDatabase();
    const role = `stranger_${randomUUID().slice(0, 8)}`;
    await query(database.url, `create role ${role} login password 'stranger'`);
    const url = Object.assign(new URL(database.url), { username: role, password: 'stranger' }).href;
    expect(await finish(['migrate', action], { DATABASE_URL: url })).toEqual({
      code: 6,
      out: '',
      err: 'policy-sidecar: permission denied for schema policy_sidecar\n',
    });
    await query(database.url, `drop role ${role}`);
    await database.drop();
  });

  test('reads a connection string as the server does: parameters count', async () => {
    const database = await createEmptyDatabase();
    const { hostname, port, username, password, pathname } = new URL(database.url);
    const url = `postgresql://${username}@${pathname}?host=${hostname}&port=${port}&password=${password}`;
    const { code, out, err } = await finish(['migrate', 'up'], { DATABASE_URL: url });
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out.match(/^applied /gm)).toHaveLength(8);
    await database.drop();
  });
});

describe('one clear line, and an exit code that says what kind of problem it is', () => {
  test.each([
    [['--no-such-flag'], /--no-such-flag/],
    [['--pool-max', 'many'], /--pool-max must be a whole number/],
    [['frobnicate'], /unknown command: frobnicate/],
    [['migrate'], /`up`, `status`, `check` or `tenants`/],
    [['migrate', 'down'], /`up`, `status`, `check` or `tenants`/],
    [['--grpc-listen', '0.0.0.0:0'], /SIDECAR_TOKENS_FILE/],
    [['--database-url', 'postgresql://someone:secret@127.0.0.1:1/d'], /someone@127\.0\.0\.1:1\/d cannot be used/, 3],
    [['serve', '--ephemeral', '--parent', 'me'], /--parent must be the number of a process/],
    [['--ephemeral', '--parent'], /--parent must be the number of a process/],
    [['--ephemeral', '--parent', '2147483647'], /--parent 2147483647: there is no such process/],
    [['--parent', '1'], /--parent/],
    [['token'], /takes the name of a caller/],
    [['token', 'a b'], /takes the name of a caller/],
    [['wait', '--timeout', 'soon'], /--timeout must be a duration/],
    [['wait', '--timeout', '200ms', '--grpc-listen', 'unix:/no/socket'], /no sidecar serves: connect ENOENT/, 1],
  ] as [string[], RegExp, number?][])('%j', async (args, line, expected = 2) => {
    const { code, out, err } = await finish(args);
    expect({ code, out }).toEqual({ code: expected, out: '' });
    expect(err).toMatch(line);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    expect(err).not.toContain('secret');
  });

  test.each([
    ['DATABASE_URL', 'postgresql://u:p#secret@127.0.0.1/d', /DATABASE_URL has a user or password .* percent-encoded/],
    ['DATABASE_URL', 'postgresql://u:p%zzsecret@127.0.0.1/d', /DATABASE_URL has a user or password .* percent-encoded/],
    ['DATABASE_URL', 'postgresql://u:p@secret@127.0.0.1:1/d', /u@127\.0\.0\.1:1\/d cannot be used/, 3],
    ['DATABASE_URL', 'postgresql://u:secret@127.0.0.1:5432x/d', /DATABASE_URL must have a port/],
    [
      'DATABASE_URL',
      'postgresql://u:secret@no-such-host.invalid/d',
      /u@no-such-host\.invalid:5432\/d cannot be used/,
      3,
    ],
    [
      'DATABASE_URL',
      'postgresql://127.0.0.1/d?sslmode=verify-full&sslrootcert=/no/file',
      /\/no\/file cannot be read: ENOENT/,
    ],
    ['DATABASE_URL', 'postgresql://127.0.0.1/d?sslmode=require&sslcert=/no/file', /\/no\/file cannot be read: ENOENT/],
    ['DATABASE_URL', 'postgresql://127.0.0.1/d?sslmode=require&sslkey=/no/file', /\/no\/file cannot be read: ENOENT/],
    ['SIDECAR_DATA_DIR', '/dev/null', /\/dev\/null/],
    ['SIDECAR_DRAIN_TIMEOUT', '10', /SIDECAR_DRAIN_TIMEOUT must be a duration such as/],
    ['SIDECAR_DRAIN_TIMEOUT', '0s', /SIDECAR_DRAIN_TIMEOUT must be between 1ms and/],
  ] as [string, string, RegExp, number?][])('%s=%s', async (variable, value, line, expected = 2) => {
    const { code, out, err } = await finish([], { [variable]: value });
    expect({ code, out }).toEqual({ code: expected, out: '' });
    expect(err).toMatch(line);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    expect(err).not.toContain('secret');
  });

  test.each([
    ['that is missing', undefined, /tokens file .*tokens cannot be read \(ENOENT\)/],
    ['with a bad line', `# comment\ngood: ${'a'.repeat(64)}\nbad: line\n`, /tokens file .*tokens is no good: line 3 /],
  ])('a tokens file %s', async (_, text, line) => {
    const database = await createDatabase();
    const path = join(folder, 'tokens');
    if (text !== undefined) await writeFile(path, text);
    const { code, err } = await finish(['--tokens-file', path], { DATABASE_URL: database.url });
    expect(code).toBe(2);
    expect(err).toMatch(line);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    await database.drop();
  });

  test.each([
    ['authorization', 'no.json', undefined, /the authorization file \S+no\.json cannot be read \(ENOENT\)/],
    [
      'authorization',
      'a.json',
      '{"identities": []}',
      /the authorization file \S+a\.json is no good: identities must be obj/,
    ],
    ['audit', 'no/audit', undefined, /the audit file \S+no\/audit cannot be written \(ENOENT\)/],
  ])('an unusable file of --%s is told by its name: %s', async (flag, name, text, line) => {
    const database = await createDatabase();
    const path = join(folder, name);
    if (text !== undefined) await writeFile(path, text);
    const value = flag === 'audit' ? `file:${path}` : path;
    const { code, err } = await finish([`--${flag}`, value], { DATABASE_URL: database.url });
    expect(code).toBe(2);
    expect(err).toMatch(line);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    await database.drop();
  });

  test.each([
    ['--grpc-listen', '192.0.2.1:50051'],
    ['--http-listen', '192.0.2.1:50052'],
    ['--grpc-listen', 'no-such-host.invalid:50051'],
    ['--http-listen', 'no-such-host.invalid:50052'],
    ['--grpc-listen', 'unix:/no/such/folder/socket'],
  ])('%s %s, which is no address of this machine', async (flag, address) => {
    const database = await createDatabase();
    const args = [flag, address, '--allow-unauthenticated', 'on'];
    const { code, err } = await finish(args, { DATABASE_URL: database.url });
    expect(code).toBe(5);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    await database.drop();
  });

  test.each(['--grpc-listen', '--http-listen'])('%s on a port that is taken', async (flag) => {
    const database = await createDatabase();
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const { code, err } = await finish([flag, `127.0.0.1:${port}`], { DATABASE_URL: database.url });
    expect(code).toBe(5);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    expect(err).toContain(String(port));
    taken.close();
    await database.drop();
  });
});

test('--help lists every setting', async () => {
  const { code, out, err } = await finish(['--help']);
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(out).toContain('migrate up');
  expect(out).toContain('SIDECAR_TRANSACTION_IDLE_LEASE_MAX');
});
