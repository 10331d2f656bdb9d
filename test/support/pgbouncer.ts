import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { freePort } from './port.ts';

/** A PgBouncer of one test. */
export interface PgBouncer {
  /** The given connection string, through the pooler; any other database of that server is reached the same way. */
  readonly url: string;
  /** `1.18.0` */
  readonly version: string;
  /** Process id of the pooler. */
  readonly pid: number;
  /** What it has logged so far. */
  log(): string;
  /** Cuts off its clients; waits for its end. */
  stop(): Promise<void>;
}

/** What to start. */
export interface PgBouncerOptions {
  /** The server behind it: host, port, user and password count, and the user may read `pg_shadow`. */
  readonly url: string;
  readonly mode: 'session' | 'transaction';
  /** Settings of `[pgbouncer]` besides the defaults, by name. */
  readonly settings?: Readonly<Record<string, string | number>>;
  /** Default: a free one. */
  readonly port?: number;
}

const START_MS = 10_000;

/** Debian puts the program where an ordinary user's path does not lead. */
const env = { ...process.env, PATH: [process.env['PATH'], '/usr/sbin', '/usr/local/sbin'].join(delimiter) };

/** The program; TEST_PGBOUNCER names one of another version. */
const PROGRAM = process.env['TEST_PGBOUNCER'] ?? 'pgbouncer';

const installedVersion = (): string | undefined => {
  try {
    return /PgBouncer (\S+)/.exec(execFileSync(PROGRAM, ['--version'], { env, encoding: 'utf8' }))?.[1];
  } catch {
    return undefined;
  }
};

const version = installedVersion();

/** True where there is a PgBouncer to start. A test file that is skipped for want of one says so in a line. */
export const pgBouncerAvailable = version !== undefined;

/** PgBouncer refuses to run as root. */
const account = (): { uid: number; gid: number } | undefined => {
  if (process.getuid?.() !== 0) return undefined;
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((each) => each.startsWith('nobody:'));
  const [, , uid, gid] = line?.split(':') ?? [];
  return { uid: Number(uid), gid: Number(gid) };
};

/** Waits on its standard input, which ends with the process that started it, however that ends. */
const WATCHDOG = `"$0" "$@" & pooler=$!; echo $pooler; (read -r _; kill -KILL $pooler) 2>/dev/null <&3 & wait $pooler`;

const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;

const answers = async (url: string): Promise<boolean> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('select 1');
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
};

/**
 * Starts a real PgBouncer on a free loopback port before a PostgreSQL; it ends with this process at the latest. Nothing is
 * set that its defaults leave open, but for the mode: startup parameters it does not know are refused.
 *
 * @throws Error with what it logged, when it does not start.
 */
export const startPgBouncer = async ({ url, mode, settings = {}, ...at }: PgBouncerOptions): Promise<PgBouncer> => {
  if (version === undefined) throw new Error(`${PROGRAM} is not installed`);
  const server = new pg.Client({ connectionString: url });
  const user = server.user ?? '';
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-pgbouncer-'));
  const owner = account();
  const place = async (name: string, lines: readonly string[]): Promise<string> => {
    const path = join(folder, name);
    await writeFile(path, `${lines.join('\n')}\n`, { mode: 0o600 });
    if (owner) await chown(path, owner.uid, owner.gid);
    return path;
  };
  await chmod(folder, 0o700);
  if (owner) await chown(folder, owner.uid, owner.gid);
  const port = at.port ?? (await freePort());
  const users = await place('users.txt', [`${quoted(user)} ${quoted(server.password ?? '')}`]);
  const all = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    // Who is not in the file is asked of the server itself, so that every role of a test gets through.
    auth_type: 'scram-sha-256',
    auth_file: users,
    auth_user: user,
    pool_mode: mode,
    ...settings,
  };
  const config = await place('pgbouncer.ini', [
    '[databases]',
    `* = host=${server.host} port=${server.port}`,
    '[pgbouncer]',
    ...Object.entries(all).map(([name, value]) => `${name} = ${value}`),
  ]);
  const child = spawn('/bin/sh', ['-c', WATCHDOG, PROGRAM, config], {
    cwd: '/',
    env,
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
    ...owner,
  });
  const said = { out: '', err: '' };
  child.stdout!.on('data', (chunk) => {
    said.out += chunk;
  });
  child.stderr!.on('data', (chunk) => {
    said.err += chunk;
  });
  const lifeline = child.stdio[3] as Writable;
  lifeline.on('error', () => {});
  const ended = once(child, 'close');
  const stop = async (): Promise<void> => {
    lifeline.end();
    await ended;
    await rm(folder, { recursive: true, force: true });
  };
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String(port);
  for (const began = Date.now(); !(await answers(through.href)); await sleep(20)) {
    if (child.exitCode === null && Date.now() - began < START_MS) continue;
    await stop();
    throw new Error(`PgBouncer does not start: ${said.err}`);
  }
  return { url: through.href, version, pid: Number(said.out), log: () => said.err, stop };
};
