import { parseArgs } from 'node:util';
import { ConfigError } from './setting-forms.ts';
import { SECRET, SETTINGS, type Setting } from './settings.ts';

/** Everything that can be set, checked and complete. Times are milliseconds. */
export interface Config {
  /** PostgreSQL to use; undefined: the embedded one. */
  readonly databaseUrl: string | undefined;
  /** Standbys that reads may run at. */
  readonly replicaUrls: readonly string[];
  /** Longest wait for one to replay what a read must see. */
  readonly replicaWaitMs: number;
  /** How far behind the primary one may be and still be read. */
  readonly replicaMaxLagMs: number;
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
  /** Bytes that one response may have; infinite: any number. */
  readonly maxResponseBytes: number;
  /** What the requests under way may hold together. */
  readonly maxRequestBytes: number;
  readonly reflection: boolean;
  /** Whether the HTTP port has pages about the contract. */
  readonly docs: boolean;
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
