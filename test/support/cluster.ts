import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { appendFile, chmod, cp, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Embedded, startEmbedded } from '../../src/embedded/embedded.ts';
import { copyDataFolder } from './program.ts';

/** A PostgreSQL of a test's own, which can be stopped, crashed and started again. */
export interface Cluster {
  readonly url: string;
  /** The same database, as superuser. */
  readonly adminUrl: string;
  /** Stops every process of it where it stands: it holds its connections and answers nothing. */
  freeze(): void;
  thaw(): void;
  /** Kills every process of it. Sooner or later it is started again by whoever keeps it. */
  crash(): void;
  /** A hot standby of it, made from its data while it is down for a moment, that follows it by way of a loopback port. */
  standby(by?: number): Promise<Cluster>;
  stop(): Promise<void>;
}

/** Process numbers of a server and its children, by the port on its command line. */
const processesOf = (port: string): number[] => {
  const parents = new Map<number, number>();
  let postmaster: number | undefined;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const [, rest = ''] = readFileSync(`/proc/${entry}/stat`, 'utf8').split(/\) /);
      parents.set(Number(entry), Number(rest.split(' ')[1]));
      const args = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
      if (args[0]?.endsWith('/postgres') && args.includes(`port=${port}`)) postmaster = Number(entry);
    } catch {
      // It has ended meanwhile.
    }
  }
  if (postmaster === undefined) return [];
  return [postmaster, ...[...parents].filter(([, parent]) => parent === postmaster).map(([pid]) => pid)];
};

const makeFolder = async (): Promise<string> => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-cluster-'));
  await chmod(folder, 0o755);
  return folder;
};

const clusterIn = async (folder: string, settings: Readonly<Record<string, string>>): Promise<Cluster> => {
  let postgres: Embedded = await startEmbedded({ dataDir: folder, settings });
  const { url, dataDir } = postgres;
  const admin = new URL(postgres.adminUrl);
  const { port } = new URL(url);
  const restart = async (): Promise<void> => {
    await postgres.stop();
    postgres = await startEmbedded({ dataDir: folder, settings: { ...settings, port } });
    keep();
  };
  // Its keeper gives up on a server that ends again and again, as it does under a test.
  const again = (): Promise<void> =>
    restart().catch(async () => {
      // Processes that were killed may hold its memory for a moment.
      await sleep(100);
      await again();
    });
  const keep = (): void => void postgres.failed.then(again);
  keep();
  const signal = (name: NodeJS.Signals): void => {
    for (const pid of processesOf(port)) {
      try {
        process.kill(pid, name);
      } catch {
        // It has ended meanwhile.
      }
    }
  };
  return {
    url,
    adminUrl: Object.assign(new URL(admin), { pathname: new URL(url).pathname }).href,
    freeze: () => signal('SIGSTOP'),
    thaw: () => signal('SIGCONT'),
    crash: () => signal('SIGKILL'),
    standby: async (by = Number(port)) => {
      const copy = await makeFolder();
      await postgres.stop();
      await cp(join(dataDir, 'data'), join(copy, 'data'), { recursive: true, preserveTimestamps: true });
      await cp(join(dataDir, 'password'), join(copy, 'password'));
      const { uid, gid } = await stat(join(dataDir, 'data'));
      await writeFile(join(copy, 'data', 'standby.signal'), '');
      const conninfo = `host=127.0.0.1 port=${by} user=${admin.username} password=${admin.password}`;
      await appendFile(join(copy, 'data', 'postgresql.auto.conf'), `primary_conninfo = '${conninfo}'\n`);
      execFileSync('chown', ['-R', `${uid}:${gid}`, join(copy, 'data')]);
      await chmod(join(copy, 'data'), 0o700);
      await restart();
      return clusterIn(copy, settings);
    },
    stop: async () => {
      signal('SIGCONT');
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
      await rm(dataDir, { recursive: true, force: true });
    },
  };
};

/** Starts a migrated PostgreSQL with settings of its own. */
export const startCluster = async (settings: Readonly<Record<string, string>> = {}): Promise<Cluster> => {
  const folder = await makeFolder();
  await copyDataFolder(folder);
  return clusterIn(folder, settings);
};
