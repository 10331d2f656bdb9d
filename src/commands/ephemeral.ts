import { fstatSync, rmSync } from 'node:fs';
import { chmod, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../config.ts';
import { exit, say } from './output.ts';
import { serve } from './serve.ts';

/** How often it is looked whether the parent is still there. */
const PARENT_MS = 200;

/** Ends the process with its parent, of which a pipe on standard input tells at once, and its number a little later. */
const endWithParent = (): NodeJS.Timeout => {
  const kind = fstatSync(0);
  if (kind.isFIFO() || kind.isSocket()) {
    process.stdin.on('end', () => exit.request()).on('error', () => exit.request());
    process.stdin.resume();
  }
  const parent = process.ppid;
  return setInterval(() => {
    if (process.ppid !== parent) exit.request();
  }, PARENT_MS).unref();
};

/**
 * `serve --ephemeral`: an embedded database in a folder that goes with the process, on free ports; one line of JSON says
 * where. It ends with its parent: a fixture for tests in any language.
 */
export const serveEphemeral = async (flags: readonly string[], env: NodeJS.ProcessEnv): Promise<number> => {
  const dataDir = await mkdtemp(join(tmpdir(), 'policy-sidecar-'));
  const watch = endWithParent();
  // A start that is cut off ends without a word to what waits for it.
  process.on('exit', () => rmSync(dataDir, { recursive: true, force: true, maxRetries: 3 }));
  try {
    // Root's PostgreSQL runs under another account.
    await chmod(dataDir, 0o755);
    const config = loadConfig(flags, {
      SIDECAR_DRAIN_TIMEOUT: '1s',
      SIDECAR_LOG_LEVEL: 'warn',
      ...env,
      DATABASE_URL: '',
      SIDECAR_DATA_DIR: dataDir,
      SIDECAR_GRPC_LISTEN: '127.0.0.1:0',
      SIDECAR_HTTP_LISTEN: '127.0.0.1:0',
    });
    return await serve(config, ({ grpcAddress, httpAddress }, { url }) =>
      say(JSON.stringify({ grpc: grpcAddress, http: httpAddress ?? null, database: url, pid: process.pid })),
    );
  } finally {
    clearInterval(watch);
  }
};
