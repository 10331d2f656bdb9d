import { type Config, loadConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import type { ConnectionLimits } from '../../src/server/connections.ts';
import { type Sidecar, startServer } from '../../src/server/sidecar.ts';
import { type Caller, connectCaller, grpcCaller } from './client.ts';
import { type PgBouncerOptions, startPgBouncer } from './pgbouncer.ts';
import { createDatabase, openPool } from './postgres.ts';

/** A server of this process on a database of its own. */
export interface TestSidecar {
  readonly grpc: Caller;
  readonly connect: Caller;
  /** Both, to run a test over either. */
  readonly callers: readonly Caller[];
  readonly url: string;
  readonly server: Sidecar;
  /** Lines of the log so far, parsed. */
  log(): Readonly<Record<string, unknown>>[];
  /** Runs SQL beside the server, each statement committed by itself. */
  sql<R extends object = Record<string, unknown>>(text: string, values?: unknown[]): Promise<R[]>;
  stop(): Promise<void>;
  /** What is left to do when the test has stopped the server itself. */
  discard(): Promise<void>;
}

/** `session` or `transaction`: every server reaches its database through a pooler of its own in that mode. */
const POOLER = process.env['TEST_POOLER'] as PgBouncerOptions['mode'] | undefined;

/** Starts a server on a fresh, migrated database, or on one that another test server owns. */
export const startTestSidecar = async (
  overrides: Partial<Config> = {},
  url?: string,
  limits?: ConnectionLimits,
): Promise<TestSidecar> => {
  await using behind = new AsyncDisposableStack();
  const database = url === undefined ? behind.adopt(await createDatabase(), ({ drop }) => drop()) : { url };
  const config: Config = {
    ...loadConfig([], {}),
    grpcListen: '127.0.0.1:0',
    httpListen: '127.0.0.1:0',
    drainTimeoutMs: 200,
    ...overrides,
  };
  const lines: string[] = [];
  const log = createLog(config.logLevel, { write: (line) => lines.push(line) });
  const pooler =
    POOLER &&
    behind.adopt(
      await startPgBouncer({
        url: database.url,
        mode: POOLER,
        settings: { default_pool_size: 60, server_login_retry: 0.1 },
      }),
      ({ stop }) => stop(),
    );
  const options = { url: pooler?.url ?? database.url, log, ...(limits ? { limits } : {}) };
  const server = await startServer(config, options);
  const logged = (errorId: string): string | undefined => lines.find((line) => line.includes(errorId))?.trimEnd();
  const pool = behind.adopt(openPool(database.url, 4), (opened) => opened.end());
  const connect = behind.adopt(connectCaller(server.httpAddress!, true, logged), ({ close }) => close());
  const grpc = behind.adopt(grpcCaller(server.grpcAddress, logged), ({ close }) => close());
  const left = behind.move();
  const discard = (): Promise<void> => left.disposeAsync();
  return {
    grpc,
    connect,
    callers: [grpc, connect],
    url: database.url,
    server,
    log: () => lines.map((line) => JSON.parse(line)),
    sql: async (text, values) => (await pool.query(text, values)).rows,
    stop: async () => {
      grpc.close();
      await server.stop();
      await discard();
    },
    discard,
  };
};
