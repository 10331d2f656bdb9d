import { type Config, ConfigError, loadConfig, settingsHelp } from './config.ts';
import { EmbeddedError } from './database/embedded.ts';
import {
  BlockedError,
  findingText,
  migrateCheck,
  migrateUp,
  migrationStatus,
  ObstacleError,
  UnreachableError,
} from './database/migrate.ts';
import { describeDatabase } from './database/url.ts';
import { createLog } from './log.ts';

const HELP = `policy-sidecar: the data access of policy engines as gRPC services over PostgreSQL

Usage: policy-sidecar [serve] [settings]     serve until SIGINT or SIGTERM (default)
       policy-sidecar migrate up [settings]      bring the database's schema up to date
       policy-sidecar migrate status [settings]  show what is applied and what is pending
       policy-sidecar migrate check [settings]   show what would stop or change it, changing nothing; exits with 1 where
                                                 something would stop it
       policy-sidecar --help | -h

Settings, as flag or environment variable (a flag wins):
${settingsHelp()}
`;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

/** News of what takes long, apart from what came of it. */
const tell = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

const complain = (line: string): number => {
  process.stderr.write(`policy-sidecar: ${line}\n`);
  return 2;
};

const USER_ERRORS = [BlockedError, ConfigError, EmbeddedError, ObstacleError, UnreachableError];

/** A problem that a few lines explain; anything else keeps its stack. */
const explain = (error: unknown): number => {
  if (USER_ERRORS.some((type) => error instanceof type)) return complain((error as Error).message);
  const { code, message, address, port } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  if (code === 'EADDRINUSE') return complain(`${address}:${port} is in use by another process`);
  if (code !== undefined) return complain(message.split('\n')[0] || code);
  if (/^No address added out of total/.test(message)) return complain(`the gRPC listener cannot be bound: ${message}`);
  throw error;
};

interface Source {
  readonly url: string;
  readonly description: string;
  close(): Promise<void>;
}

/** The configured database, or the embedded one. */
const openSource = async ({ databaseUrl, dataDir }: Config): Promise<Source> => {
  if (databaseUrl !== undefined) {
    return { url: databaseUrl, description: describeDatabase(databaseUrl), close: async () => {} };
  }
  const { startEmbedded } = await import('./database/embedded.ts');
  const embedded = await startEmbedded({ dataDir });
  return {
    url: embedded.url,
    description: `embedded PostgreSQL in ${embedded.dataDir}`,
    close: () => embedded.stop(),
  };
};

const migrate = async (action: string | undefined, config: Config): Promise<number> => {
  if (action !== 'up' && action !== 'status' && action !== 'check') {
    return complain('migrate takes `up`, `status` or `check`');
  }
  const source = await openSource(config);
  try {
    if (action === 'up') {
      const applied = await migrateUp(source.url, { say: tell, onApplied: (name) => say(`applied ${name}`) });
      if (applied.length === 0) say('nothing to apply');
      return 0;
    }
    if (action === 'check') {
      const findings = await migrateCheck(source.url);
      for (const finding of findings) say(findingText(finding));
      if (findings.length === 0) say('nothing to change');
      return findings.some(({ level }) => level === 'stop') ? 1 : 0;
    }
    const { executed, pending, unknown } = await migrationStatus(source.url);
    for (const { name, at } of executed) say(`applied  ${name}  ${at}`);
    for (const name of pending) say(`pending  ${name}`);
    for (const name of unknown) say(`newer    ${name}`);
    return 0;
  } finally {
    await source.close();
  }
};

/** A schema older than the program is only touched where the user has said so, or where nobody else uses it. */
const ensureSchema = async (config: Config, url: string): Promise<void> => {
  const { pending } = await migrationStatus(url);
  if (pending.length === 0) return;
  if (config.databaseUrl !== undefined && !config.migrate) {
    throw new ConfigError(
      `the database lacks ${pending.length} migration(s): run \`policy-sidecar migrate up\`, or set SIDECAR_MIGRATE=up`,
    );
  }
  await migrateUp(url, { say: tell });
};

/** npm passes a Ctrl-C on to a process that the terminal has signalled already: so close together is no second wish. */
const ECHO_MS = 1_000;

/** Settles at the first SIGINT or SIGTERM; a later one is for somebody who will not wait. */
const stopRequested = (): Promise<void> =>
  new Promise((resolve) => {
    let first: number | undefined;
    const onSignal = (): void => {
      if (first !== undefined && performance.now() - first > ECHO_MS) process.exit(130);
      first ??= performance.now();
      resolve();
    };
    process.on('SIGINT', onSignal);
    process.on('SIGTERM', onSignal);
  });

const EXAMPLE = 'hoc.cus.policies.v1.PolicyEngineService/FetchRiskCeilings';

const serve = async (config: Config): Promise<number> => {
  const log = createLog(config.logLevel);
  const stopped = stopRequested();
  const source = await openSource(config);
  try {
    await ensureSchema(config, source.url);
    // A listener that cannot be bound is told in one line; this library would add a second.
    process.env['GRPC_VERBOSITY'] ??= 'NONE';
    const { startServer } = await import('./server/sidecar.ts');
    const server = await startServer(config, { url: source.url, log });
    say(`gRPC      ${server.grpcAddress}`);
    if (server.httpAddress) say(`HTTP      ${server.httpAddress} (Connect, gRPC-Web, JSON)`);
    say(`database  ${source.description}`);
    const token = config.tokensFile ? `-H 'authorization: Bearer <token>' ` : '';
    say(`try       grpcurl -plaintext ${token}${server.grpcAddress.replace(/^unix:/, '-unix ')} ${EXAMPLE}`);
    if (server.httpAddress) {
      say(`          curl ${token}-H 'content-type: application/json' -d '{}' http://${server.httpAddress}/${EXAMPLE}`);
    }
    await stopped;
    log.info('draining');
    await server.stop();
    log.info('stopped');
    return 0;
  } finally {
    await source.close();
  }
};

/**
 * Runs the command.
 *
 * @returns the exit code: 0, 1 for a check that something does not pass, or 2 with the reason on standard error.
 */
export const main = async (argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> => {
  if (argv.includes('--help') || argv.includes('-h')) {
    say(HELP);
    return 0;
  }
  const words = argv.findIndex((word) => word.startsWith('-'));
  const [command = 'serve', action, ...rest] = words === -1 ? argv : argv.slice(0, words);
  const flags = words === -1 ? [] : argv.slice(words);
  try {
    if (command === 'migrate' && rest.length === 0) return await migrate(action, loadConfig(flags, env));
    if (command !== 'serve' || action !== undefined) return complain(`unknown command: ${argv.join(' ')}`);
    return await serve(loadConfig(flags, env));
  } catch (error) {
    return explain(error);
  }
};
