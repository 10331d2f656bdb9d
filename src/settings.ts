import { LOG_LEVELS } from './log.ts';
import { GRPC_LISTEN } from './probe.ts';
import {
  auditPlace,
  type Count,
  databaseUrl,
  duration,
  durationAndTenth,
  durationOrOff,
  fileMode,
  filled,
  folder,
  hostName,
  hostPort,
  httpUrl,
  listOf,
  type Mode,
  type Ms,
  oneOf,
  onOff,
  optional,
  origin,
  orOff,
  type Parse,
  redisUrl,
  share,
  socketOrPort,
  wholeNumber,
} from './setting-forms.ts';

export interface Setting<T> {
  readonly variable: string;
  readonly fallback: string;
  readonly form: string;
  readonly meaning: string;
  readonly parse: Parse<T>;
  /** True where its text may hold a password or a key: no message repeats it. */
  readonly isSecret?: boolean;
}

/** What a key says of the unit of its number, its parser must make. */
type Counted<K> = K extends `${string}Ms` ? Ms : K extends `${string}Mode` ? Mode : Count;
type Fitting<S extends Readonly<Record<string, Setting<unknown>>>> = {
  readonly [K in keyof S]: Extract<ReturnType<S[K]['parse']>, number> extends Counted<K>
    ? unknown
    : Setting<Counted<K>>;
};

/** Settings by the keys that code has for them, each with a parser of the unit that its key ends with. */
export const settingsOf = <S extends Readonly<Record<string, Setting<unknown>>>>(all: S & Fitting<S>): Readonly<S> =>
  all;

const setting = <T>(
  variable: string,
  fallback: string,
  form: string,
  meaning: string,
  parse: Parse<T>,
): Setting<T> => ({ variable, fallback, form, meaning, parse });

const secret = <T>(each: Setting<T>): Setting<T> => ({ ...each, isSecret: true });

/** All settings, in the order of `--help`. */
export const SETTINGS = settingsOf({
  databaseUrl: secret(
    setting('DATABASE_URL', '', 'postgresql://…', 'PostgreSQL to use; empty: an embedded one', databaseUrl),
  ),
  replicaUrls: secret(
    setting(
      'SIDECAR_REPLICA_URLS',
      '',
      'postgresql://…,…',
      'standbys that reads may run at where their caller allows it; empty: none',
      listOf((text) => databaseUrl(text)!),
    ),
  ),
  replicaWaitMs: setting(
    'SIDECAR_REPLICA_WAIT',
    '100ms',
    'duration',
    'longest wait for a standby to replay what a read must see, before the primary is asked',
    duration,
  ),
  replicaMaxLagMs: setting(
    'SIDECAR_REPLICA_MAX_LAG',
    '10s',
    'duration',
    'how far behind the primary a standby may be and still be read',
    duration,
  ),
  databaseWaitMs: setting(
    'SIDECAR_DATABASE_WAIT',
    'off',
    'duration | off',
    'how long a start, answering NOT_SERVING, and `migrate` wait for a database that is not there yet',
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
    orOff(socketOrPort),
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
    'where /live, /started, /ready and /metrics are answered in plain HTTP',
    orOff(hostPort),
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
    oneOf({ auto: 'auto', none: 'none', session: 'session', transaction: 'transaction' }),
  ),
  requestRetentionMs: setting(
    'SIDECAR_REQUEST_RETENTION',
    '24h',
    'duration',
    'how long outcomes and answers to an idempotency-key are kept',
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
    oneOf({ finish: 'finish', linger: 'linger' }),
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
    orOff(durationAndTenth),
  ),
  connectionIdleMs: setting(
    'SIDECAR_CONNECTION_IDLE',
    '5m',
    'duration',
    'how long a connection without a call stays open',
    duration,
  ),
  maxMessageBytes: setting('SIDECAR_MAX_MESSAGE_BYTES', '4194304', 'bytes', 'largest request', wholeNumber(1024)),
  maxResponseBytes: setting(
    'SIDECAR_MAX_RESPONSE_BYTES',
    '4194304',
    'bytes | off',
    'largest response, other than of a write; streams have none',
    (text) => (text === 'off' ? (Number.POSITIVE_INFINITY as Count) : wholeNumber(1024)(text)),
  ),
  maxRequestBytes: setting(
    'SIDECAR_MAX_REQUEST_BYTES',
    '67108864',
    'bytes',
    'what all requests under way may hold together',
    wholeNumber(1024),
  ),
  reflection: setting('SIDECAR_REFLECTION', 'on', 'on | off', 'serve gRPC reflection', onOff),
  docs: setting('SIDECAR_DOCS', 'on', 'on | off', 'serve the reference and the explorer at /docs', onOff),
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
    orOff(wholeNumber(1)),
  ),
  callsAtOnce: setting(
    'SIDECAR_CALLS_AT_ONCE',
    'off',
    'number | off',
    'calls that one caller may have under way',
    orOff(wholeNumber(1)),
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
  servingRole: setting(
    'SIDECAR_SERVING_ROLE',
    '',
    'name',
    'role that serves: `migrate up` gives it the rights that it lacks; empty: rights are given by somebody else',
    optional,
  ),
  redisUrl: secret(
    setting('REDIS_URL', '', 'redis://…', 'where suggestions are shared; empty: kept per process', redisUrl),
  ),
  anthropicApiKey: secret(
    setting(
      'ANTHROPIC_API_KEY',
      '',
      'key',
      'key of the language model that advises on failures; empty: none does',
      optional,
    ),
  ),
  llmUrl: secret(
    setting('SIDECAR_LLM_URL', 'https://api.anthropic.com', 'http://…', 'base URL of that model', httpUrl),
  ),
  llmModel: setting('SIDECAR_LLM_MODEL', 'claude-sonnet-4-20250514', 'name', 'its name', filled),
  embeddingUrl: secret(
    setting(
      'SIDECAR_EMBEDDING_URL',
      '',
      'http://…',
      'base URL of an OpenAI-compatible endpoint for embeddings, …/v1; empty: known failures are not compared',
      (text) => (text === '' ? undefined : httpUrl(text)),
    ),
  ),
  embeddingKey: secret(setting('SIDECAR_EMBEDDING_KEY', '', 'key', 'its key; empty: none is sent', optional)),
  embeddingModel: setting('SIDECAR_EMBEDDING_MODEL', 'text-embedding-3-small', 'name', 'its model', filled),
});
