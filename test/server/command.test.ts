import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { migrationStatus } from '../../src/database/migrate.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { connectCaller, grpcCaller } from '../support/client.ts';
import { createDatabase, createEmptyDatabase } from '../support/postgres.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const LISTEN = { SIDECAR_GRPC_LISTEN: '127.0.0.1:0', SIDECAR_HTTP_LISTEN: '127.0.0.1:0' };

/** What the tests' own environment sets must not reach the command. */
const clean = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => name !== 'DATABASE_URL' && !name.startsWith('SIDECAR_')),
);

interface Command {
  readonly child: ChildProcess;
  /** What it has written so far. */
  readonly out: () => string;
  readonly err: () => string;
  /** Exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
  /** Waits for the call to try, the last thing a start prints; where it listens. */
  serving(): Promise<{ grpc: string; http: string }>;
}

let folder: string;
const running = new Set<ChildProcess>();

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-command-'));
  await chmod(folder, 0o755);
});

afterEach(async () => {
  for (const child of running) {
    child.kill('SIGTERM');
    await once(child, 'close');
  }
  await rm(folder, { recursive: true, force: true });
});

const launch = (program: string, args: readonly string[], env: Readonly<Record<string, string>>): Command => {
  const child = spawn(program, args, {
    cwd: ROOT,
    env: { ...clean, SIDECAR_DATA_DIR: join(folder, 'data-dir'), ...LISTEN, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const text = { out: '', err: '' };
  child.stdout.on('data', (chunk) => {
    text.out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    text.err += chunk;
  });
  const ended = once(child, 'close').then(([code, signal]) => {
    running.delete(child);
    return code ?? signal;
  });
  return {
    child,
    out: () => text.out,
    err: () => text.err,
    ended,
    serving: async () => {
      await expect.poll(() => text.out + text.err, { timeout: 20_000 }).toMatch(/curl -H .*\n/);
      return {
        grpc: /^gRPC\s+(\S+)/m.exec(text.out)?.[1] ?? '',
        http: /^HTTP\s+(\S+)/m.exec(text.out)?.[1] ?? '',
      };
    },
  };
};

const command = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Command =>
  launch(process.execPath, ['src/main.ts', ...args], env);

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
  test.each(['SIGTERM', 'SIGINT'] as const)(
    'on an embedded database: starts, answers, ends with 0 on %s',
    async (signal) => {
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

  test('`npm start` ends with 0 on SIGTERM and leaves nothing behind', async () => {
    const npm = launch('npm', ['start'], {});
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
    await expect.poll(sidecar.out, { timeout: 20_000 }).toContain(`-unix ${socket} `);
    expect(sidecar.out()).not.toContain('HTTP');
    expect((await stat(socket)).isSocket()).toBe(true);
    const caller = grpcCaller(`unix:${socket}`);
    await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
    caller.close();
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
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

describe('an older schema', () => {
  test('is refused with the command to run', async () => {
    const database = await createEmptyDatabase();
    const { code, err, out } = await finish([], { DATABASE_URL: database.url });
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(
      /^policy-sidecar: the database lacks 7 migration\(s\): run `.*migrate up`.*SIDECAR_MIGRATE=up\n$/,
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
});

describe('migrate', () => {
  test('status, then up by two processes at once, then nothing to do', async () => {
    const database = await createEmptyDatabase();
    const env = { DATABASE_URL: database.url };
    const before = await finish(['migrate', 'status'], env);
    expect(before.code).toBe(0);
    expect(before.out.match(/^pending {2}Migration\w+$/gm)).toHaveLength(7);
    const both = await Promise.all([finish(['migrate', 'up'], env), finish(['migrate', 'up'], env)]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(both.flatMap(({ out }) => out.split('\n').filter(Boolean)).sort()).toEqual([
      'applied Migration20261123000100_policy_schema',
      'applied Migration20261123000200_rules_limits_proposals',
      'applied Migration20261123000300_resolvers_recovery',
      'applied Migration20261123000400_sidecar',
      'applied Migration20261123000500_list_indexes',
      'applied Migration20261126000600_neutral_columns',
      'applied Migration20261126000700_creation_order',
      'nothing to apply',
    ]);
    const after = await finish(['migrate', 'status'], env);
    expect(after.out.match(/^applied {2}Migration\w+ {2}\d{4}-/gm)).toHaveLength(7);
    expect(after.out).not.toContain('pending');
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

  test('reads a connection string as the server does: parameters count', async () => {
    const database = await createEmptyDatabase();
    const { hostname, port, username, password, pathname } = new URL(database.url);
    const url = `postgresql://${username}@${pathname}?host=${hostname}&port=${port}&password=${password}`;
    const { code, out, err } = await finish(['migrate', 'up'], { DATABASE_URL: url });
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out.match(/^applied /gm)).toHaveLength(7);
    await database.drop();
  });
});

describe('one clear line and exit code 2', () => {
  test.each([
    [['--no-such-flag'], /--no-such-flag/],
    [['--pool-max', 'many'], /--pool-max must be a whole number/],
    [['frobnicate'], /unknown command: frobnicate/],
    [['migrate'], /`up`, `status` or `check`/],
    [['migrate', 'down'], /`up`, `status` or `check`/],
    [['--grpc-listen', '0.0.0.0:0'], /SIDECAR_TOKENS_FILE/],
    [['--database-url', 'postgresql://someone:secret@127.0.0.1:1/d'], /someone@127\.0\.0\.1:1\/d cannot be used/],
  ])('%j', async (args, line) => {
    const { code, out, err } = await finish(args);
    expect({ code, out }).toEqual({ code: 2, out: '' });
    expect(err).toMatch(line);
    expect(err).toMatch(/^policy-sidecar: [^\n]+\n$/);
    expect(err).not.toContain('secret');
  });

  test.each(['--grpc-listen', '--http-listen'])('%s on a port that is taken', async (flag) => {
    const database = await createDatabase();
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const { code, err } = await finish([flag, `127.0.0.1:${port}`], { DATABASE_URL: database.url });
    expect(code).toBe(2);
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
