import { parseArgs } from 'node:util';
import { readTarget } from './database/target.ts';
import { LOG_LEVELS } from './log.ts';
import { GRPC_LISTEN } from './probe.ts';

/** Everything that can be set, checked and complete. Times are milliseconds. */
export interface Config {
  /** PostgreSQL to use; undefined: the embedded one. */
  readonly databaseUrl: string | undefined;
  /** How long a start waits for a database that is not there yet. */
  readonly databaseWaitMs: number;
  readonly dataDir: string;
  /** `host:port` or `unix:/path`. */
  readonly grpcListen: string;
  /** `host:port` or `unix:/path`; undefined: no HTTP listener. */
  readonly httpListen: string | undefined;
  /** Names that requests may call the HTTP port by; `*` is any. */
  readonly httpHosts: readonly string[];
  /** Origins of the web pages that may call. */
  readonly httpOrigins: readonly string[];
  /** `host:port` that answers probes; undefined: none. */
  readonly probeListen: string | undefined;
  /** Permission bits of socket files. */
  readonly socketMode: number;
  readonly poolMax: number;
  readonly poolQueue: number;
  readonly poolWaitMs: number;
  readonly transactionsMax: number;
  readonly transactionQueue: number;
  readonly transactionIdleLeaseMs: number;
  readonly transactionIdleLeaseMaxMs: number;
  readonly transactionFirstUseMs: number;
  readonly transactionTotalLeaseMs: number;
  readonly transactionTotalLeaseMaxMs: number;
  /** Longest a call without a deadline, or a statement, may take. */
  readonly callTimeoutMs: number;
  /** Longest wait for a lock in the database. */
  readonly lockTimeoutMs: number;
  /** What stands between this process and PostgreSQL. */
  readonly pooler: 'auto' | 'none' | 'session' | 'transaction';
  readonly requestRetentionMs: number;
  readonly drainTimeoutMs: number;
  /** Whether new calls are served during the drain until their callers are gone, or only what is open may finish. */
  readonly drain: 'finish' | 'linger';
  /** Calls under way on one connection. */
  readonly connectionStreams: number;
  /** How long a connection takes new calls; undefined: for ever. */
  readonly connectionAgeMs: number | undefined;
  /** How long a connection without a call stays open. */
  readonly connectionIdleMs: number;
  readonly maxMessageBytes: number;
  /** What the requests under way may hold together. */
  readonly maxRequestBytes: number;
  readonly reflection: boolean;
  readonly logLevel: string;
  /** The share of calls without an error that are logged. */
  readonly logSample: number;
  readonly tokensFile: string | undefined;
  readonly allowUnauthenticated: boolean;
  /** File that says who may do what; undefined: who is let in may do everything. */
  readonly authorizationFile: string | undefined;
  /** Calls that one caller may make in a second; undefined: any number. */
  readonly callsPerSecond: number | undefined;
  /** Calls that one caller may have under way; undefined: any number. */
  readonly callsAtOnce: number | undefined;
  /** Where writes are audited: in the log, or in a file; undefined: nowhere. */
  readonly audit: 'log' | { readonly file: string } | undefined;
  /** True to audit the requests themselves, too. */
  readonly auditPayloads: boolean;
  /** Files (PEM) that the listeners speak TLS with: both, or none. */
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** File (PEM) of the authorities whose certificates callers must have; undefined: callers need none. */
  readonly tlsClientCa: string | undefined;
  /** True to bring an older schema up to date at the start. */
  readonly migrate: boolean;
  /** Redis to share suggestions through; undefined: each process has its own. */
  readonly redisUrl: string | undefined;
  /** Key of the language model; undefined: there is none. */
  readonly anthropicApiKey: string | undefined;
  readonly llmUrl: string;
  readonly llmModel: string;
  /** Base URL of the embedding endpoint; undefined: there is none. */
  readonly embeddingUrl: string | undefined;
  readonly embeddingKey: string | undefined;
  readonly embeddingModel: string;
}

/** A setting that is no good; the message is one line for the user. */
export class ConfigError extends Error {}

/** An address that cannot be listened on; the message is one line for the user. */
export class AddressError extends ConfigError {}

/** Reads one setting's text. */
type Parse<T> = (text: string) => T;

/** Numbers by what they count, told apart as long as they are parsed. */
type Ms = number & { readonly counts: 'ms' };
type Count = number & { readonly counts: 'things' };
type Mode = number & { readonly counts: 'permissions' };

/** What the parser of a setting must make. */
type Parsed<K extends keyof Config> = Config[K] extends number
  ? K extends `${string}Ms`
    ? Ms
    : K extends `${string}Mode`
      ? Mode
      : Count
  : Config[K];

interface Setting<T> {
  readonly variable: string;
  readonly fallback: string;
  readonly form: string;
  readonly meaning: string;
  readonly parse: Parse<T>;
}

/** A setting for every key, each with a parser for that key. */
export type Settings = { readonly [K in keyof Config]: Setting<Parsed<K>> };

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Past 2^31-1 milliseconds a timer fires at once, and so it does for nothing. */
const LONGEST_DAYS = 24;

/** `500ms`, `30s`, `5m`, `24h`, `7d` -> milliseconds. */
export const duration: Parse<Ms> = (text) => {
  const [, amount, unit] = /^(\d{1,10})(ms|s|m|h|d)$/.exec(text) ?? [];
  if (!amount || !unit) throw new ConfigError('must be a duration such as 500ms, 30s, 5m, 24h or 7d');
  const ms = Number(amount) * UNITS[unit]!;
  if (ms < 1 || ms > LONGEST_DAYS * UNITS['d']!) throw new ConfigError(`must be between 1ms and ${LONGEST_DAYS}d`);
  return ms as Ms;
};

/** A duration that may be none. */
const durationOrOff: Parse<Ms> = (text) => (text === 'off' ? (0 as Ms) : duration(text));

const LARGEST = 2_147_483_647;

const wholeNumber =
  (least: number): Parse<Count> =>
  (text) => {
    if (!/^\d{1,10}$/.test(text) || Number(text) < least || Number(text) > LARGEST) {
      throw new ConfigError(`must be a whole number from ${least} to ${LARGEST}`);
    }
    return Number(text) as Count;
  };

const oneOf =
  <T>(choices: Readonly<Record<string, T>>): Parse<T> =>
  (text) => {
    if (!Object.hasOwn(choices, text)) throw new ConfigError(`must be one of ${Object.keys(choices).join(', ')}`);
    return choices[text] as T;
  };

const share: Parse<Count> = (text) => {
  if (!/^(?:0|1|0?\.\d{1,9})$/.test(text)) throw new ConfigError('must be a share from 0 to 1 such as 0.01');
  return Number(text) as Count;
};

const onOff = oneOf({ on: true, off: false });

const HOST_PORT = /^(\[[\da-fA-F:.]+\]|[^:\s/]+):(\d{1,5})$/;

const hostPort: Parse<string> = (text) => {
  const [, , port] = HOST_PORT.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) throw new ConfigError('must be host:port');
  return text;
};

const socketOrPort: Parse<string> = (text) => (/^unix:\/.+/.test(text) ? text : hostPort(text));

const fileMode: Parse<Mode> = (text) => {
  if (!/^0?[0-7]{3}$/.test(text)) throw new ConfigError('must be an octal file mode such as 0660');
  return Number.parseInt(text, 8) as Mode;
};

const listOf =
  (one: Parse<string>): Parse<readonly string[]> =>
  (text) =>
    text
      .split(',')
      .map((each) => each.trim())
      .filter((each) => each !== '')
      .map(one);

const hostName: Parse<string> = (text) => {
  if (text !== '*' && !/^[a-z\d_-]+(\.[a-z\d_-]+)*$/i.test(text)) {
    throw new ConfigError('must be names without ports, separated by commas, or *');
  }
  return text;
};

const origin: Parse<string> = (text) => {
  if (!/^https?:/.test(text) || !URL.canParse(text) || new URL(text).origin !== text) {
    throw new ConfigError('must be origins such as https://console.example:8443, separated by commas');
  }
  return text;
};

const numberOrOff: Parse<number | undefined> = (text) => (text === 'off' ? undefined : wholeNumber(1)(text));

const auditPlace: Parse<Config['audit']> = (text) => {
  if (text === 'off') return undefined;
  if (text === 'log') return 'log';
  const [, file] = /^file:(.+)$/.exec(text) ?? [];
  if (file === undefined) throw new ConfigError('must be log, file:/path or off');
  return { file };
};

const optional: Parse<string | undefined> = (text) => (text === '' ? undefined : text);

const folder: Parse<string> = (text) => {
  if (text === '') throw new ConfigError('must name a folder');
  return text;
};

const isPort = (text: string): boolean =>
  text === '' || (/^\d{1,5}$/.test(text) && Number(text) > 0 && Number(text) < 65_536);

const UNENCODED =
  'has a user or password with a character that must be percent-encoded (# as %23, / as %2F, ? as %3F, @ as %40, % as %25)';

const problemOf = (url: string): Error | undefined => {
  try {
    readTarget(url);
    return undefined;
  } catch (error) {
    return error as Error;
  }
};

const databaseUrl: Parse<string | undefined> = (text) => {
  if (text === '') return undefined;
  if (!/^postgres(ql)?:\/\//.test(text)) throw new ConfigError('must be a postgresql:// URL');
  const [, authority = '', path = '', query = ''] = /^[a-z]+:\/\/([^/?#]*)([^?#]*)\??(.*)$/s.exec(text) ?? [];
  // A slash in a password ends it, and what was meant as the host is taken for the database.
  if (/%(?![\da-fA-F]{2})/.test(authority) || (path.includes('@') && !authority.includes('@'))) {
    throw new ConfigError(UNENCODED);
  }
  const problem = problemOf(text);
  if (problem && text.includes('@') && !authority.includes('@')) throw new ConfigError(UNENCODED);
  const port = /:([^:@\]]*)$/.exec(authority)?.[1] ?? '';
  if (![port, new URLSearchParams(query).get('port') ?? ''].every(isPort)) {
    throw new ConfigError('must have a port from 1 to 65535');
  }
  if (problem) throw new ConfigError(problem.message);
  return text;
};

const filled: Parse<string> = (text) => {
  if (text === '') throw new ConfigError('must not be empty');
  return text;
};

const httpUrl: Parse<string> = (text) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new ConfigError('must be an http:// or https:// URL without credentials and query');
  }
  return text;
};

const redisUrl: Parse<string | undefined> = (text) => {
  if (text === '') return undefined;
  if (!URL.canParse(text) || !/^rediss?:$/.test(new URL(text).protocol)) {
    throw new ConfigError('must be a redis:// or rediss:// URL');
  }
  return text;
};

/** Settings whose text may hold a password or a key: no message repeats it. */
const SECRET: ReadonlySet<keyof Config> = new Set([
  'databaseUrl',
  'redisUrl',
  'anthropicApiKey',
  'llmUrl',
  'embeddingUrl',
  'embeddingKey',
] as const);

const setting = <T>(
  variable: string,
  fallback: string,
  form: string,
  meaning: string,
  parse: Parse<T>,
): Setting<T> => ({ variable, fallback, form, meaning, parse });

/** All settings, in the order of `--help`. */
export const SETTINGS: Settings = {
  databaseUrl: setting('DATABASE_URL', '', 'postgresql://…', 'PostgreSQL to use; empty: an embedded one', databaseUrl),
  databaseWaitMs: setting(
    'SIDECAR_DATABASE_WAIT',
    'off',
    'duration | off',
    'how long a start waits for a database that is not there yet, answering NOT_SERVING',
    durationOrOff,
  ),
  dataDir: setting(
    'SIDECAR_DATA_DIR',
    '.sidecar',
    'folder',
    'data of the embedded PostgreSQL, kept between runs',
    folder,
  ),
  grpcListen: setting('SIDECAR_GRPC_LISTEN', GRPC_LISTEN, 'host:port | unix:/path', 'where gRPC listens', socketOrPort),
  httpListen: setting(
    'SIDECAR_HTTP_LISTEN',
    '127.0.0.1:50052',
    'host:port | unix:/path | off',
    'where Connect, gRPC-Web and JSON listen',
    (text) => (text === 'off' ? undefined : socketOrPort(text)),
  ),
  httpHosts: setting(
    'SIDECAR_HTTP_HOSTS',
    'localhost',
    'names',
    'names that HTTP requests may call this server by, beside addresses and the name it listens at; *: any',
    listOf(hostName),
  ),
  httpOrigins: setting(
    'SIDECAR_HTTP_ORIGINS',
    '',
    'origins',
    'origins of web pages that may call, such as https://console.example; empty: none may',
    listOf(origin),
  ),
  probeListen: setting(
    'SIDECAR_PROBE_LISTEN',
    'off',
    'host:port | off',
    'where /live, /ready and /metrics are answered in plain HTTP',
    (text) => (text === 'off' ? undefined : hostPort(text)),
  ),
  socketMode: setting('SIDECAR_SOCKET_MODE', '0660', 'octal', 'who may use socket files', fileMode),
  poolMax: setting(
    'SIDECAR_POOL_MAX',
    '10',
    'number',
    'connections for calls outside open transactions',
    wholeNumber(1),
  ),
  poolQueue: setting('SIDECAR_POOL_QUEUE', '256', 'number', 'calls that may wait for a connection', wholeNumber(0)),
  poolWaitMs: setting('SIDECAR_POOL_WAIT', '2s', 'duration', 'longest wait for a connection', duration),
  transactionsMax: setting(
    'SIDECAR_TRANSACTIONS_MAX',
    '20',
    'number',
    'open transactions, each with a connection',
    wholeNumber(1),
  ),
  transactionQueue: setting(
    'SIDECAR_TRANSACTION_QUEUE',
    '64',
    'number',
    'calls that may wait inside one transaction',
    wholeNumber(1),
  ),
  transactionIdleLeaseMs: setting(
    'SIDECAR_TRANSACTION_IDLE_LEASE',
    '30s',
    'duration',
    'idle lease of a transaction that asks for none',
    duration,
  ),
  transactionIdleLeaseMaxMs: setting(
    'SIDECAR_TRANSACTION_IDLE_LEASE_MAX',
    '5m',
    'duration',
    'longest idle lease granted',
    duration,
  ),
  transactionFirstUseMs: setting(
    'SIDECAR_TRANSACTION_FIRST_USE',
    '10s',
    'duration',
    'longest idle lease before the first use, since the answer to its beginning may have been lost',
    duration,
  ),
  transactionTotalLeaseMs: setting(
    'SIDECAR_TRANSACTION_TOTAL_LEASE',
    '5m',
    'duration',
    'total lease of a transaction that asks for none',
    duration,
  ),
  transactionTotalLeaseMaxMs: setting(
    'SIDECAR_TRANSACTION_TOTAL_LEASE_MAX',
    '1h',
    'duration',
    'longest total lease granted',
    duration,
  ),
  callTimeoutMs: setting(
    'SIDECAR_CALL_TIMEOUT',
    '60s',
    'duration',
    'longest a call without a deadline, or a statement, may take',
    duration,
  ),
  lockTimeoutMs: setting('SIDECAR_LOCK_TIMEOUT', '5s', 'duration', 'longest wait for a lock in the database', duration),
  pooler: setting(
    'SIDECAR_POOLER',
    'auto',
    'auto | none | session | transaction',
    'what stands before PostgreSQL; auto looks, and takes any pooler for one that shares sessions',
    oneOf<Config['pooler']>({ auto: 'auto', none: 'none', session: 'session', transaction: 'transaction' }),
  ),
  requestRetentionMs: setting(
    'SIDECAR_REQUEST_RETENTION',
    '24h',
    'duration',
    'how long outcomes and answers to a request-id are kept',
    duration,
  ),
  drainTimeoutMs: setting(
    'SIDECAR_DRAIN_TIMEOUT',
    '10s',
    'duration',
    'what open transactions and calls get at shutdown',
    duration,
  ),
  drain: setting(
    'SIDECAR_DRAIN',
    'finish',
    'finish | linger',
    'what is served meanwhile: what is open, or all calls until there is no connection left',
    oneOf<Config['drain']>({ finish: 'finish', linger: 'linger' }),
  ),
  connectionStreams: setting(
    'SIDECAR_CONNECTION_STREAMS',
    '1000',
    'number',
    'calls under way on one HTTP/2 connection; a client keeps back what goes beyond',
    wholeNumber(1),
  ),
  connectionAgeMs: setting(
    'SIDECAR_CONNECTION_AGE',
    'off',
    'duration | off',
    'how long a connection takes new calls, give or take a tenth; calls under way end by themselves',
    (text) => (text === 'off' ? undefined : duration(text)),
  ),
  connectionIdleMs: setting(
    'SIDECAR_CONNECTION_IDLE',
    '5m',
    'duration',
    'how long a connection without a call stays open',
    duration,
  ),
  maxMessageBytes: setting('SIDECAR_MAX_MESSAGE_BYTES', '4194304', 'bytes', 'largest request', wholeNumber(1024)),
  maxRequestBytes: setting(
    'SIDECAR_MAX_REQUEST_BYTES',
    '67108864',
    'bytes',
    'what all requests under way may hold together',
    wholeNumber(1024),
  ),
  reflection: setting('SIDECAR_REFLECTION', 'on', 'on | off', 'serve gRPC reflection', onOff),
  logLevel: setting(
    'SIDECAR_LOG_LEVEL',
    'info',
    LOG_LEVELS.join(' | '),
    'least serious log line written',
    oneOf(Object.fromEntries(LOG_LEVELS.map((level) => [level, level]))),
  ),
  logSample: setting(
    'SIDECAR_LOG_SAMPLE',
    '1',
    'share',
    'share of the calls without an error that have a log line, such as 0.01; errors always have one',
    share,
  ),
  tokensFile: setting(
    'SIDECAR_TOKENS_FILE',
    '',
    'file',
    'bearer tokens, lines of `name: sha256-of-token`; empty: no tokens',
    optional,
  ),
  allowUnauthenticated: setting(
    'SIDECAR_ALLOW_UNAUTHENTICATED',
    'off',
    'on | off',
    'allow listeners beyond loopback without tokens or client certificates',
    onOff,
  ),
  authorizationFile: setting(
    'SIDECAR_AUTHORIZATION',
    '',
    'file',
    'who may read and write what, as docs/security.md says; empty: who is let in may do everything',
    optional,
  ),
  callsPerSecond: setting(
    'SIDECAR_CALLS_PER_SECOND',
    'off',
    'number | off',
    'calls that one caller may make in a second',
    numberOrOff,
  ),
  callsAtOnce: setting(
    'SIDECAR_CALLS_AT_ONCE',
    'off',
    'number | off',
    'calls that one caller may have under way',
    numberOrOff,
  ),
  audit: setting('SIDECAR_AUDIT', 'off', 'log | file:/path | off', 'where writes are audited', auditPlace),
  auditPayloads: setting(
    'SIDECAR_AUDIT_PAYLOADS',
    'off',
    'on | off',
    'audit the requests of writes, too, with all that they hold',
    onOff,
  ),
  tlsCert: setting(
    'SIDECAR_TLS_CERT',
    '',
    'file',
    'certificate (PEM) and those between it and its authority, with which host:port listeners speak TLS; empty: they do not',
    optional,
  ),
  tlsKey: setting('SIDECAR_TLS_KEY', '', 'file', 'its key (PEM)', optional),
  tlsClientCa: setting(
    'SIDECAR_TLS_CLIENT_CA',
    '',
    'file',
    'authorities (PEM) whose certificates callers must have; empty: callers need none',
    optional,
  ),
  migrate: setting(
    'SIDECAR_MIGRATE',
    'off',
    'up | off',
    'bring an older schema up to date at the start',
    oneOf({ up: true, off: false }),
  ),
  redisUrl: setting('REDIS_URL', '', 'redis://…', 'where suggestions are shared; empty: kept per process', redisUrl),
  anthropicApiKey: setting(
    'ANTHROPIC_API_KEY',
    '',
    'key',
    'key of the language model that advises on failures; empty: none does',
    optional,
  ),
  llmUrl: setting('SIDECAR_LLM_URL', 'https://api.anthropic.com', 'http://…', 'base URL of that model', httpUrl),
  llmModel: setting('SIDECAR_LLM_MODEL', 'claude-sonnet-4-20250514', 'name', 'its name', filled),
  embeddingUrl: setting(
    'SIDECAR_EMBEDDING_URL',
    '',
    'http://…',
    'base URL of an OpenAI-compatible endpoint for embeddings, …/v1; empty: known failures are not compared',
    (text) => (text === '' ? undefined : httpUrl(text)),
  ),
  embeddingKey: setting('SIDECAR_EMBEDDING_KEY', '', 'key', 'its key; empty: none is sent', optional),
  embeddingModel: setting('SIDECAR_EMBEDDING_MODEL', 'text-embedding-3-small', 'name', 'its model', filled),
};

/** `SIDECAR_POOL_MAX` -> `pool-max`. */
const flagOf = ({ variable }: Pick<Setting<unknown>, 'variable'>): string =>
  variable
    .replace(/^SIDECAR_/, '')
    .toLowerCase()
    .replaceAll('_', '-');

const LOOPBACK = /^(?:unix:|127\.\d+\.\d+\.\d+:|localhost:|\[::1\]:)/;

const refuseOpenDoors = (config: Config): void => {
  if (config.tokensFile !== undefined || config.tlsClientCa !== undefined || config.allowUnauthenticated) return;
  for (const listen of [config.grpcListen, config.httpListen]) {
    if (listen !== undefined && !LOOPBACK.test(listen)) {
      throw new ConfigError(
        `${listen} is reachable from other machines: set SIDECAR_TOKENS_FILE or SIDECAR_TLS_CLIENT_CA, or SIDECAR_ALLOW_UNAUTHENTICATED=on`,
      );
    }
  }
};

const refuseHalfTls = ({ tlsCert, tlsKey, tlsClientCa }: Config): void => {
  if ((tlsCert === undefined) !== (tlsKey === undefined)) {
    throw new ConfigError('SIDECAR_TLS_CERT and SIDECAR_TLS_KEY go together');
  }
  if (tlsClientCa !== undefined && tlsCert === undefined) {
    throw new ConfigError('SIDECAR_TLS_CLIENT_CA goes with SIDECAR_TLS_CERT and SIDECAR_TLS_KEY');
  }
};

/**
 * Reads the configuration: a flag wins over its environment variable, which wins over the default. An empty variable
 * is an unset one.
 *
 * @throws ConfigError with one line that names the setting.
 */
export const loadConfig = (argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Config => {
  const options = Object.fromEntries(
    Object.values(SETTINGS).map((each) => [flagOf(each), { type: 'string' as const }]),
  );
  let flags: Record<string, unknown>;
  try {
    flags = parseArgs({ args: [...argv], options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    throw new ConfigError((error as Error).message.split(/\. |\n/)[0]);
  }
  const read = (key: keyof Config): Config[keyof Config] => {
    const each = SETTINGS[key];
    const flag = flags[flagOf(each)] as string | undefined;
    const text = flag ?? (env[each.variable] || each.fallback);
    try {
      return each.parse(text);
    } catch (error) {
      const name = flag === undefined ? each.variable : `--${flagOf(each)}`;
      const found = SECRET.has(key) ? '' : `, not "${text}"`;
      throw new ConfigError(`${name} ${(error as Error).message}${found}`);
    }
  };
  const keys = Object.keys(SETTINGS) as (keyof Config)[];
  const config = Object.fromEntries(keys.map((key) => [key, read(key)])) as { [K in keyof Config]: Config[K] };
  refuseHalfTls(config);
  refuseOpenDoors(config);
  return config;
};

/** What `--help` says about settings. */
export const settingsHelp = (): string =>
  Object.values(SETTINGS)
    .map((each) => {
      const fallback = each.fallback === '' ? 'none' : each.fallback;
      return `  --${flagOf(each)} <${each.form}>\n      ${each.meaning} (${each.variable}; default ${fallback})`;
    })
    .join('\n');
