import { type Config, ConfigError, loadConfig, settingsHelp } from './config.ts';
import {
  BlockedError,
  findingText,
  migrateCheck,
  migrateUp,
  migrationStatus,
  ObstacleError,
  UnreachableError,
} from './database/migrate/migrate.ts';
import { readTarget } from './database/target.ts';
import { EmbeddedError } from './embedded/embedded.ts';
import { Exit } from './exit.ts';
import { createLog, standardError, standardOutput } from './log.ts';
import { healthRoutes, listenProbes } from './server/probes.ts';
import type { Sidecar } from './server/sidecar.ts';

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

const output = standardOutput();
const errors = standardError();
const exit = new Exit(() => {
  errors.write('policy-sidecar: cut off, since it had not ended in time\n');
  errors.flushSync();
});

const say = (line: string): void => output.write(`${line}\n`);

/** News of what takes long, apart from what came of it. */
const tell = (line: string): void => errors.write(`${line}\n`);

const complain = (line: string): number => {
  errors.write(`policy-sidecar: ${line}\n`);
  return 2;
};

const USER_ERRORS = [BlockedError, ConfigError, EmbeddedError, ObstacleError, UnreachableError];

const firstLine = (text: string): string => text.trim().split('\n')[0]!;

/** One line for whatever went wrong; a problem that it does not explain also names its place in the program. */
const explain = (error: unknown): number => {
  if (!(error instanceof Error)) return complain(firstLine(String(error)));
  const [cause] = error instanceof AggregateError ? error.errors : [];
  const { code, address, port } = error as NodeJS.ErrnoException & { address?: string; port?: number };
  if (code === 'EADDRINUSE' && address !== undefined)
    return complain(`${address}:${port} is in use by another process`);
  // Each line of it is a finding of its own.
  if (error instanceof ObstacleError) return complain(error.message);
  const message = firstLine(error.message || cause?.message || code || error.name);
  if (code !== undefined || USER_ERRORS.some((type) => error instanceof type)) return complain(message);
  if (/^No address added out of total/.test(message)) return complain(`the gRPC listener cannot be bound: ${message}`);
  const [place] = /(?<=\/)src\/\S+:\d+:\d+/.exec(error.stack ?? '') ?? [];
  return complain(place === undefined ? message : `${message} (${error.name} at ${place})`);
};

interface Source {
  readonly url: string;
  readonly description: string;
  /** Settles when it has gone for good, with why. */
  readonly failed: Promise<Error>;
  close(): Promise<void>;
}

/** The configured database, or the embedded one. */
const openSource = async ({ databaseUrl, dataDir }: Config, report?: (event: string) => void): Promise<Source> => {
  if (databaseUrl !== undefined) {
    const failed = new Promise<never>(() => {});
    return { url: databaseUrl, description: readTarget(databaseUrl).description, failed, close: async () => {} };
  }
  const { startEmbedded } = await import('./embedded/embedded.ts');
  const embedded = await startEmbedded({ dataDir, ...(report ? { report } : {}) });
  return {
    url: embedded.url,
    description: `embedded PostgreSQL in ${embedded.dataDir}`,
    failed: embedded.failed,
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

const EXAMPLE = 'hoc.cus.policies.v1.PolicyEngineService/FetchRiskCeilings';

/** Calls to try, one for each listener. */
const trial = ({ tokensFile, tlsCert, tlsClientCa }: Config, { grpcAddress, httpAddress }: Sidecar): string[] => {
  const token = tokensFile ? `-H 'authorization: Bearer <token>' ` : '';
  const tls = tlsClientCa ? '<authority> -cert <file> -key <file>' : '<authority>';
  const isFile = (address: string): boolean => address.startsWith('unix:');
  const grpcTls = tlsCert && !isFile(grpcAddress) ? `-cacert ${tls}` : '-plaintext';
  const lines = [`try       grpcurl ${grpcTls} ${token}${grpcAddress.replace(/^unix:/, '-unix ')} ${EXAMPLE}`];
  if (httpAddress !== undefined) {
    const httpTls = tlsCert && !isFile(httpAddress) ? ` --cacert ${tls.replaceAll(' -', ' --')}` : '';
    const where = isFile(httpAddress)
      ? `--unix-socket ${httpAddress.slice('unix:'.length)} http://localhost`
      : `${httpTls ? 'https' : 'http'}://${httpAddress}`;
    lines.push(`          curl ${token}-H 'content-type: application/json' -d '{}'${httpTls} ${where}/${EXAMPLE}`);
  }
  return lines;
};

const serve = async (config: Config): Promise<number> => {
  const log = createLog(config.logLevel, errors);
  exit.onSignal(config.drainTimeoutMs);
  const { probeListen } = config;
  let whyNot = (): string | undefined => 'it is being started';
  // Who watches over the process is answered from its beginning to its end, however long the database takes.
  const probes = probeListen
    ? await listenProbes(
        probeListen,
        healthRoutes(() => whyNot()),
      )
    : undefined;
  let source: Source | undefined;
  try {
    source = await openSource(config, (event) => log.warn(event));
    await ensureSchema(config, source.url);
    // A listener that cannot be bound is told in one line; this library would add a second.
    process.env['GRPC_VERBOSITY'] ??= 'NONE';
    const { startServer } = await import('./server/sidecar.ts');
    const server = await startServer(config, { url: source.url, log });
    whyNot = () => server.whyNot;
    if (probes) say(`probes    ${probes.address} (/live, /ready)`);
    say(`gRPC      ${server.grpcAddress}`);
    if (server.httpAddress) say(`HTTP      ${server.httpAddress} (Connect, gRPC-Web, JSON)`);
    say(`database  ${source.description}`);
    for (const line of trial(config, server)) say(line);
    let problem: Error | undefined;
    void source.failed.then((error) => {
      problem = error;
      exit.request();
    });
    await exit.requested;
    log.info('draining');
    await server.stop();
    log.info('stopped');
    return problem ? complain(problem.message) : 0;
  } finally {
    await source?.close();
    await probes?.close();
  }
};

const run = async (argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> => {
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

/** What a reader of the output gets to take the rest of it. */
const LAST_LINES_MS = 200;

/** Runs the command, and ends the process with its exit code: 0, or 2 with one line on standard error. */
export const main = async (argv: readonly string[], env: NodeJS.ProcessEnv): Promise<never> => {
  // Node itself would write these in a way that waits for the reader.
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) => errors.write(`${name}: ${message}\n`));
  process.on('uncaughtException', (error) => {
    errors.write(`${error.stack}\n`);
    errors.flushSync();
    void exit.leave(1);
  });
  const code = await run(argv, env);
  await Promise.all([output.settle(LAST_LINES_MS), errors.settle(LAST_LINES_MS)]);
  return exit.leave(code);
};
