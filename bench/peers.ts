/** The sidecar and its peers: how each is built and started. */
import { execFile } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SQL } from './calls.ts';
import type { Command } from './server.ts';

const run = promisify(execFile);
const root = join(import.meta.dirname, '..');
const folder = (peer: string): string => join(import.meta.dirname, 'peers', peer);

const PYTHON = join(folder('python'), 'build', 'venv', 'bin', 'python');

/** What every peer is told. */
const environment = (url: string): Record<string, string> => ({
  DATABASE_URL: url,
  ...Object.fromEntries(Object.entries(SQL).map(([name, sql]) => [`SQL_${name.toUpperCase()}`, sql])),
});

/** The sidecar, started as its users start it; `compileCache` is the folder of what Node has compiled before. */
export const sidecar = (url: string, compileCache: string): Command => ({
  name: 'sidecar',
  program: process.execPath,
  // As it is shipped.
  args: [join(root, 'dist', 'start.js'), 'serve', '--grpc-listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0'],
  env: { DATABASE_URL: url, NODE_COMPILE_CACHE: compileCache },
  health: true,
});

/** A peer in one or more variants. */
interface Peer {
  readonly name: string;
  /** The program without which there is no such peer. */
  readonly toolchain: string;
  /** The version of its toolchain; throws where there is none. */
  version(): Promise<string>;
  /** True where it was built before. */
  built(): boolean;
  build(): Promise<void>;
  commands(url: string): Command[];
}

const go: Peer = {
  name: 'go',
  toolchain: 'go',
  version: async () => (await run('go', ['env', 'GOVERSION'])).stdout.trim(),
  built: () => existsSync(join(folder('go'), 'build', 'peer')),
  build: async () => {
    const cwd = folder('go');
    const contract = ['--path', join(root, 'proto', 'hoc'), '--exclude-type', 'buf.validate'];
    await run(join(root, 'node_modules', '.bin', 'buf'), ['generate', root, ...contract], { cwd });
    await run('go', ['build', '-o', 'build/peer', '.'], { cwd });
  },
  commands: (url) => [
    { name: 'go', program: join(folder('go'), 'build', 'peer'), args: [], env: environment(url), health: true },
  ],
};

const python: Peer = {
  name: 'python',
  toolchain: 'python3.11',
  version: async () => (await run('python3.11', ['--version'])).stdout.trim().replace('Python ', ''),
  built: () => existsSync(join(folder('python'), 'build', 'stubs')),
  build: async () => {
    const cwd = folder('python');
    const stubs = join(cwd, 'build', 'stubs');
    await run('python3.11', ['-m', 'venv', 'build/venv'], { cwd });
    await run(PYTHON, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', 'requirements.txt'], {
      cwd,
    });
    await mkdir(stubs, { recursive: true });
    const files = globSync('{buf,hoc}/**/*.proto', { cwd: join(root, 'proto') });
    const out = [`-I${join(root, 'proto')}`, `--python_out=${stubs}`, `--grpc_python_out=${stubs}`];
    await run(PYTHON, ['-m', 'grpc_tools.protoc', ...out, ...files], { cwd });
  },
  commands: (url) =>
    ['asyncpg', 'sqlalchemy-core', 'sqlalchemy-orm'].map((name) => ({
      name,
      program: PYTHON,
      args: [join(folder('python'), 'server.py'), name],
      env: environment(url),
      health: false,
    })),
};

const mikroOrm: Peer = {
  name: 'mikro-orm',
  toolchain: 'MikroORM',
  version: async () => (createRequire(import.meta.url)('@mikro-orm/core/package.json') as { version: string }).version,
  built: () => true,
  build: async () => {},
  commands: (url) => [
    {
      name: 'mikro-orm',
      program: process.execPath,
      args: [join(folder('mikro-orm'), 'server.ts')],
      env: { ...environment(url), NODE_ENV: 'production' },
      health: false,
    },
  ],
};

const PEERS: readonly Peer[] = [go, python, mikroOrm];

export interface Built {
  readonly commands: Command[];
  /** Versions of the toolchains. */
  readonly versions: Record<string, string>;
  /** Why a peer is not there. */
  readonly skipped: Record<string, string>;
}

/** Builds what can be built; with `quick` only what was built before is taken. */
export const buildPeers = async (url: string, quick: boolean): Promise<Built> => {
  const built: Built = { commands: [], versions: {}, skipped: {} };
  for (const peer of PEERS) {
    try {
      built.versions[peer.name] = await peer.version();
    } catch {
      built.skipped[peer.name] = `there is no ${peer.toolchain}`;
      continue;
    }
    if (quick && !peer.built()) {
      built.skipped[peer.name] = 'not built before, and --quick builds nothing';
      continue;
    }
    try {
      if (!quick) await peer.build();
      built.commands.push(...peer.commands(url));
    } catch (error) {
      built.skipped[peer.name] = `it could not be built: ${(error as Error).message.slice(0, 500)}`;
    }
  }
  return built;
};

/** pgbench, from PATH or Debian's folder. */
export const pgbench: string | undefined = [
  ...(process.env['PATH'] ?? '').split(':'),
  ...globSync('/usr/lib/postgresql/*/bin'),
]
  .map((place) => join(place, 'pgbench'))
  .find((file) => existsSync(file));
