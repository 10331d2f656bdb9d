import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { chown, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Account, EmbeddedError } from './data-folder.ts';
import { SUPERUSER } from './sidecar-role.ts';

const STOP_MS = 30_000;

/** The server that has the data open. Its command line is compared: by now its number may be another process's. */
export const postmasterPid = async (data: string): Promise<number | undefined> => {
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
export const stopOrphan = async (data: string): Promise<void> => {
  const pid = await postmasterPid(data);
  if (pid === undefined) return correctLockFile(data);
  process.kill(pid, 'SIGINT');
  for (const deadline = Date.now() + STOP_MS; (await postmasterPid(data)) === pid; await sleep(10)) {
    if (Date.now() > deadline) throw new EmbeddedError(`PostgreSQL (process ${pid}) does not stop`);
  }
};

/** Of what a program has said the line that tells why, with its detail; the first such line is the cause of the others. */
export const whyOf = (said: string): string | undefined => {
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

/** Each initdb that works on the folder, where the kernel tells of processes. */
const initdbsOf = async (folder: string): Promise<number[]> => {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [program, ...args] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      return program!.endsWith('/initdb') && args.includes(folder);
    }),
  );
  return pids.filter((_, at) => found[at]).map(Number);
};

/** Ends an initdb whose sidecar was killed: it would go on in the folder that another makes anew. */
const stopInitdb = async (draft: string): Promise<void> => {
  for (const deadline = Date.now() + STOP_MS; ; await sleep(10)) {
    const pids = await initdbsOf(draft);
    if (pids.length === 0) return;
    if (Date.now() > deadline) throw new EmbeddedError(`initdb (process ${pids[0]}) does not stop`);
    for (const pid of pids) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }
};

export const initialise = async (
  bin: string,
  data: string,
  account: Account | undefined,
  password: string,
): Promise<void> => {
  // Built beside its place and moved there whole: a start that is cut short leaves nothing half made.
  const draft = `${data}.draft`;
  const passwordFile = `${data}.password`;
  await stopInitdb(draft);
  // What that had started notices a moment later.
  await rm(draft, { recursive: true, force: true, maxRetries: 10 });
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

export interface Server {
  /** Settles when it has ended. */
  readonly ended: Promise<void>;
  readonly hasEnded: () => boolean;
  /** Asks for a fast shutdown. */
  release(): void;
}

export const launch = (
  program: string,
  args: readonly string[],
  logPath: string,
  account: Account | undefined,
): Server => {
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
