import { readFileSync, statSync } from 'node:fs';
import { chmod, mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { chooseBase, EmbeddedError, elsewhereFor, hasData, passwordFor, unprivilegedAccount } from './data-folder.ts';
import { takeOwnership } from './ownership.ts';
import { initialise, launch, postmasterPid, type Server, stopOrphan, whyOf } from './postmaster.ts';
import { choosePrograms } from './programs.ts';
import { DATABASE, prepare, ROLE, SUPERUSER, withClient } from './sidecar-role.ts';
import { trimLog } from './trim-log.ts';

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

/** How long a server may recover before it accepts connections. */
const START_MS = 60_000;
/** How long a server may take to open its data at all. */
const NO_SERVER_MS = 5_000;

/** What a server says while processes of the one before it, which was killed, have not ended yet. */
const PREDECESSOR = /pre-existing shared memory block/;
/** How long they may take. */
const PREDECESSOR_MS = 10_000;

/** Pauses before a server that has ended is started again, one an attempt. */
const RESTART_AFTER_MS = [0, 100, 500, 2_000, 5_000];
/** After that long a server that ends is not one that cannot live. */
const STEADY_MS = 60_000;

const freePort = (): Promise<number> =>
  new Promise((resolvePort, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolvePort(port));
    });
  });

/** How often the server's log is looked at that may have become too long, milliseconds. */
const TRIM_MS = 60_000;

/** Errors of a connection to a server that is still starting. */
const mayPass = ({ code, message }: NodeJS.ErrnoException): boolean =>
  code === undefined ? /terminated|timeout/.test(message) : ['ECONNREFUSED', 'ECONNRESET', '57P03'].includes(code);

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
      max_prepared_transactions: '64',
      ...settings,
    };
    const args = ['-D', data, ...Object.entries(options).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
    const urlOf = (user: string, database: string): string =>
      `postgresql://${user}:${password}@127.0.0.1:${port}/${database}`;
    const adminUrl = urlOf(SUPERUSER, 'postgres');

    /** Starts the server, and waits until it lets somebody in. */
    const start = async (): Promise<Server> => {
      await trimLog(logPath);
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

    const startAfterPredecessor = async (): Promise<Server> => {
      for (const began = Date.now(); ; await sleep(100)) {
        try {
          return await start();
        } catch (error) {
          if (!PREDECESSOR.test((error as Error).message) || Date.now() - began > PREDECESSOR_MS) throw error;
        }
      }
    };

    let server = await startAfterPredecessor();
    const trimming = setInterval(() => {
      trimLog(logPath).catch((error: Error) => report(`${logPath} cannot be kept short: ${error.message}`));
    }, TRIM_MS).unref();
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
      clearInterval(trimming);
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
