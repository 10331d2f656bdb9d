import { parseArgs } from 'node:util';
import { migrate } from './commands/migration.ts';
import { complain, errors, exit, output, say } from './commands/output.ts';
import { serve } from './commands/serve.ts';
import { token } from './commands/token.ts';
import { wait } from './commands/wait.ts';
import { loadConfig, settingsHelp } from './config.ts';
import { RpcError } from './contract/errors.ts';
import { BlockedError, isAway, ObstacleError, SchemaError, UnreachableError } from './database/migrate/migrate.ts';
import { RightsError, RoleError } from './database/migrate/serving-rights.ts';
import { TenantsError } from './database/migrate/tenant-policies.ts';
import { EmbeddedError } from './embedded/data-folder.ts';
import { EXIT } from './exit.ts';
import { GRPC_LISTEN } from './probe.ts';
import { AddressError, ConfigError, duration } from './setting-forms.ts';
import { VERSION } from './version.ts';

const HELP = `policy-sidecar: the data access of policy engines as gRPC services over PostgreSQL

Usage: policy-sidecar [serve] [settings]     serve until SIGINT or SIGTERM (default)
       policy-sidecar serve --ephemeral [--parent PID]  the same for tests: a database that goes with it, free ports, one
                                             line of JSON that says where; ends with its parent, or with the process PID
                                             where a wrapper such as npx or a shell is in between
       policy-sidecar migrate up [settings]      bring the database's schema up to date, and give the role that serves
                                                 (SIDECAR_SERVING_ROLE) the rights that it lacks
       policy-sidecar migrate status [settings]  show what is applied and what is pending; exits with 4 where something is
       policy-sidecar migrate check [settings]   show what would stop or change it, changing nothing; exits with 1 where
                                                 something would stop it
       policy-sidecar migrate tenants [settings]  make the role and the policies by which PostgreSQL keeps callers to the
                                                  rows of the tenants that the authorization file binds them to
       policy-sidecar doctor [settings]      show what database and configuration lack, each with what to do, changing
                                             nothing; exits with 1 where serving would fail
       policy-sidecar contract [--target host:port] [--http URL] [options]  put the scenarios of the contract to a sidecar
                                             that runs; exits with 1 where one does not hold. What they write is rolled
                                             back; with --allow-writes those run, too, that commit and clean up.
                                             Options: --junit FILE, --scenarios FOLDER, --only NAMES, --token TOKEN (or
                                             POLICY_SIDECAR_TOKEN), --ca FILE for TLS, --cert FILE, --key FILE
       policy-sidecar wait [--timeout 60s] [settings]  wait until a sidecar serves
       policy-sidecar health                 whether one does, by environment variables alone: a probe
       policy-sidecar token NAME             a new token for a caller, and its line for the tokens file
       policy-sidecar --help | -h | --version

Exit codes: 0 done; 1 the answer is no, or a fault of the program; 2 wrong use or setting; 3 the database cannot be
reached; 4 its schema is older; 5 an address cannot be had, another process has it; 6 something in the database is in a
migration's way, or a right is missing there; 130 a second signal.

Settings, as flag or environment variable (a flag wins):
${settingsHelp()}
`;

const firstLine = (text: string): string => text.trim().split('\n')[0]!;

const OBSTACLES = [BlockedError, TenantsError, ObstacleError, RightsError];

const NO_RIGHT = '42501';

const exitCodeOf = (error: Error): number | undefined => {
  if (isAway(error)) return EXIT.unreachable;
  if ((error as NodeJS.ErrnoException).code === NO_RIGHT) return EXIT.obstacle;
  if (error instanceof UnreachableError || error instanceof EmbeddedError) return EXIT.unreachable;
  if (error instanceof RpcError) return error.reason === 'DATABASE_UNAVAILABLE' ? EXIT.unreachable : EXIT.misuse;
  if (error instanceof SchemaError) return EXIT.olderSchema;
  if (error instanceof AddressError) return EXIT.address;
  if (error instanceof ConfigError || error instanceof RoleError) return EXIT.misuse;
  return OBSTACLES.some((kind) => error instanceof kind) ? EXIT.obstacle : undefined;
};

/** One line for whatever went wrong; a problem that it does not explain also names its place in the program. */
const explain = (error: unknown): number => {
  if (!(error instanceof Error)) return complain(firstLine(String(error)), EXIT.no);
  // Each line of it is a finding of its own.
  if (error instanceof ObstacleError) return complain(error.message, EXIT.obstacle);
  const [cause] = error instanceof AggregateError ? error.errors : [];
  const { code } = error as NodeJS.ErrnoException;
  const message = firstLine(error.message || cause?.message || code || error.name);
  const known = exitCodeOf(error);
  if (known !== undefined || code !== undefined) return complain(message, known ?? EXIT.misuse);
  const [place] = /(?<=\/)(?:src|dist)\/\S+:\d+:\d+/.exec(error.stack ?? '') ?? [];
  return complain(place === undefined ? message : `${message} (${error.name} at ${place})`, EXIT.no);
};

/** Takes options that only one command knows out of its flags. */
const own = (flags: readonly string[], options: Record<string, { type: 'string' | 'boolean' }>) => {
  const { values, tokens } = parseArgs({ args: [...flags], options, strict: false, tokens: true });
  const taken = new Set(
    tokens.flatMap((token) => {
      if (token.kind !== 'option' || !Object.hasOwn(options, token.name)) return [];
      const next = token.value !== undefined && !token.inlineValue;
      return next ? [token.index, token.index + 1] : [token.index];
    }),
  );
  return { values, rest: flags.filter((_, index) => !taken.has(index)) };
};

const WAIT = '60s';

const timeoutOf = (text: unknown): number => {
  try {
    return duration(String(text));
  } catch (error) {
    throw new ConfigError(`--timeout ${(error as Error).message}`);
  }
};

const CONTRACT_OPTIONS = {
  ...Object.fromEntries(
    ['target', 'http', 'token', 'ca', 'cert', 'key', 'junit', 'scenarios', 'only'].map((name) => [
      name,
      { type: 'string' } as const,
    ]),
  ),
  'allow-writes': { type: 'boolean' } as const,
};

/** `contract`: what it stands on is loaded for it alone. */
const putContract = async (flags: readonly string[], env: NodeJS.ProcessEnv): Promise<number> => {
  const { values, rest } = own(flags, CONTRACT_OPTIONS);
  if (rest.length > 0) throw new ConfigError(`unknown option of contract: ${rest[0]}`);
  const text = (name: string): string | undefined => {
    const value = values[name];
    if (value === true || value === '') throw new ConfigError(`--${name} needs a value`);
    return value as string | undefined;
  };
  const { contract } = await import('./commands/contract-check.ts');
  return contract({
    target: text('target') ?? GRPC_LISTEN,
    http: text('http'),
    token: text('token') ?? env['POLICY_SIDECAR_TOKEN'],
    tls: { ca: text('ca'), cert: text('cert'), key: text('key') },
    junit: text('junit'),
    folder: text('scenarios'),
    only: text('only')
      ?.split(',')
      .map((name) => name.trim()),
    allowWrites: values['allow-writes'] === true,
  });
};

const run = async (argv: readonly string[], env: NodeJS.ProcessEnv, parent: number): Promise<number> => {
  if (argv.includes('--help') || argv.includes('-h')) {
    say(HELP);
    return EXIT.done;
  }
  if (argv.includes('--version')) {
    say(`policy-sidecar ${VERSION} (Node ${process.version})`);
    return EXIT.done;
  }
  const words = argv.findIndex((word) => word.startsWith('-'));
  const [command = 'serve', action, ...rest] = words === -1 ? argv : argv.slice(0, words);
  const flags = words === -1 ? [] : argv.slice(words);
  try {
    if (command === 'migrate' && rest.length === 0) return await migrate(action, loadConfig(flags, env));
    if (command === 'token' && rest.length === 0 && flags.length === 0) return token(action);
    if (action === undefined) {
      switch (command) {
        case 'serve': {
          const { values, rest: settings } = own(flags, { ephemeral: { type: 'boolean' } });
          if (!values['ephemeral']) return await serve(loadConfig(settings, env));
          const { childOf, processNamed, serveEphemeral } = await import('./commands/ephemeral.ts');
          const { values: named, rest: others } = own(settings, { parent: { type: 'string' } });
          const isWanted = named['parent'] === undefined ? childOf(parent) : processNamed(named['parent']);
          return await serveEphemeral(others, env, isWanted);
        }
        case 'doctor': {
          // What it stands on is loaded for it alone, too.
          const { doctor } = await import('./commands/doctor.ts');
          return await doctor(loadConfig(flags, env));
        }
        case 'contract':
          return await putContract(flags, env);
        case 'wait': {
          const { values, rest: settings } = own(flags, { timeout: { type: 'string' } });
          return await wait(loadConfig(settings, env), timeoutOf(values['timeout'] ?? WAIT));
        }
      }
    }
    throw new ConfigError(`unknown command: ${argv.join(' ')}`);
  } catch (error) {
    return explain(error);
  }
};

/** What a reader of the output gets to take the rest of it. */
const LAST_LINES_MS = 200;

/**
 * Runs the command, and ends the process with its exit code and, where something went wrong, one line on standard error.
 *
 * @param parent number of the process that started this one.
 */
export const main = async (argv: readonly string[], env: NodeJS.ProcessEnv, parent: number): Promise<never> => {
  // Node itself would write these in a way that waits for the reader.
  process.removeAllListeners('warning');
  process.on('warning', ({ name, message }) => errors.write(`${name}: ${message}\n`));
  process.on('uncaughtException', (error) => {
    errors.write(`${error.stack}\n`);
    errors.flushSync();
    void exit.leave(EXIT.no);
  });
  const code = await run(argv, env, parent);
  await Promise.all([output.settle(LAST_LINES_MS), errors.settle(LAST_LINES_MS)]);
  return exit.leave(code);
};
