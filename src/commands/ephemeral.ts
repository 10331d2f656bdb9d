import { spawn } from 'node:child_process';
import { fstatSync, rmSync } from 'node:fs';
import { chmod, mkdtemp } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { loadConfig } from '../config.ts';
import { elsewhereFor } from '../embedded/data-folder.ts';
import { watchProcess } from '../embedded/ownership.ts';
import { EXIT } from '../exit.ts';
import { ConfigError } from '../setting-forms.ts';
import { exit, output, say } from './output.ts';
import { serve } from './serve.ts';

/** How often it is looked whether the process that wants the sidecar is still there. */
const LOOK_MS = 200;

/** Of data that no crash will ever be survived by. */
const NOTHING_TO_LOSE = { fsync: 'off', full_page_writes: 'off', synchronous_commit: 'off' };

/** Tells whether the process that started this one, with that number then, is still there. */
export const childOf = (parent: number) => (): boolean => process.ppid === parent;

/**
 * Tells whether the process that the flag `--parent` names is still there.
 *
 * @throws ConfigError where there is none.
 */
export const processNamed = (text: unknown): (() => boolean) => {
  if (!/^[1-9]\d*$/.test(String(text))) throw new ConfigError('--parent must be the number of a process');
  const isThere = watchProcess(Number(text));
  if (!isThere()) throw new ConfigError(`--parent ${text}: there is no such process`);
  return isThere;
};

/** Ends the process when it is not wanted any more: a pipe on standard input tells at once, `isWanted` a little later. */
const endUnwanted = (isWanted: () => boolean): NodeJS.Timeout => {
  const kind = fstatSync(0);
  if (kind.isFIFO() || kind.isSocket()) {
    process.stdin.on('end', () => exit.request()).on('error', () => exit.request());
    process.stdin.resume();
  }
  return setInterval(() => {
    if (!isWanted()) exit.request();
  }, LOOK_MS).unref();
};

/**
 * Removes folders when the third descriptor ends, which it does with the process that started it, however that ends. A server
 * that has its data in one is waited for, for half a minute; so is whatever still writes there.
 */
const REMOVER = `read -r _ <&3
for folder; do
  tries=300
  while [ -e "$folder" ] && [ $((tries -= 1)) -gt 0 ]; do
    kill -0 "$(head -n 1 "$folder/data/postmaster.pid")" || rm -rf "$folder"
    sleep 0.1
  done
done`;

/** Has folders removed even where this process is killed, or cut off. */
const removeAfterwards = (folders: readonly string[]): void => {
  const remover = spawn('/bin/sh', ['-c', REMOVER, 'sh', ...folders], {
    cwd: '/',
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
    // What ends this process by its group, as a terminal does, must not end it.
    detached: true,
  });
  remover.on('error', () => {});
  remover.unref();
  (remover.stdio[3] as Socket).on('error', () => {}).unref();
};

/**
 * `serve --ephemeral`: an embedded database in a folder that goes with the process, on free ports; one line of JSON says
 * where. It ends when it is not wanted any more: a fixture for tests in any language.
 *
 * @param isWanted whether who wants it is still there.
 * @throws ConfigError where flags name a database that stays.
 */
export const serveEphemeral = async (
  flags: readonly string[],
  env: NodeJS.ProcessEnv,
  isWanted: () => boolean,
): Promise<number> => {
  if (!isWanted()) return EXIT.done;
  const dataDir = resolve(await mkdtemp(join(tmpdir(), 'policy-sidecar-')));
  const folders = [dataDir, elsewhereFor(dataDir)];
  removeAfterwards(folders);
  const watch = endUnwanted(isWanted);
  try {
    // Root's PostgreSQL runs under another account.
    await chmod(dataDir, 0o755);
    const config = loadConfig(flags, {
      SIDECAR_DRAIN_TIMEOUT: '5s',
      SIDECAR_LOG_LEVEL: 'warn',
      ...env,
      // What a shell sets for another sidecar: its database, its standbys, its ports.
      DATABASE_URL: '',
      SIDECAR_REPLICA_URLS: '',
      SIDECAR_DATA_DIR: dataDir,
      SIDECAR_GRPC_LISTEN: '127.0.0.1:0',
      SIDECAR_HTTP_LISTEN: '127.0.0.1:0',
      SIDECAR_PROBE_LISTEN: 'off',
    });
    if (config.databaseUrl !== undefined || config.dataDir !== dataDir) {
      throw new ConfigError('--ephemeral has a database of its own, and takes neither --database-url nor --data-dir');
    }
    // Who has not heard where it is will never end it.
    output.onLost = () => exit.request();
    return await serve(
      config,
      ({ grpcAddress, httpAddress }, { url }) =>
        say(JSON.stringify({ grpc: grpcAddress, http: httpAddress ?? null, database: url, pid: process.pid })),
      NOTHING_TO_LOSE,
    );
  } finally {
    clearInterval(watch);
    for (const folder of folders) rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
};
