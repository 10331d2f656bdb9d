import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadConfig, settingsHelp } from '../../src/config.ts';
import { ConfigError } from '../../src/setting-forms.ts';
import { SETTINGS, settingsOf } from '../../src/settings.ts';

const problem = (argv: string[], env: Record<string, string> = {}): string => {
  try {
    loadConfig(argv, env);
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message;
  }
  throw new Error('accepted');
};

test('the defaults', () => {
  expect(loadConfig([], {})).toEqual({
    databaseUrl: undefined,
    databaseWaitMs: 0,
    replicaUrls: [],
    replicaWaitMs: 100,
    replicaMaxLagMs: 10_000,
    dataDir: '.sidecar',
    grpcListen: '127.0.0.1:50051',
    httpListen: '127.0.0.1:50052',
    httpHosts: ['localhost'],
    httpOrigins: [],
    probeListen: undefined,
    socketMode: 0o660,
    poolMax: 10,
    poolQueue: 256,
    poolWaitMs: 2_000,
    transactionsMax: 20,
    transactionQueue: 64,
    transactionIdleLeaseMs: 30_000,
    transactionIdleLeaseMaxMs: 300_000,
    transactionFirstUseMs: 10_000,
    transactionTotalLeaseMs: 300_000,
    transactionTotalLeaseMaxMs: 3_600_000,
    requestRetentionMs: 86_400_000,
    drainTimeoutMs: 10_000,
    drain: 'finish',
    connectionStreams: 1_000,
    connectionAgeMs: undefined,
    connectionIdleMs: 300_000,
    callTimeoutMs: 60_000,
    lockTimeoutMs: 5_000,
    pooler: 'auto',
    maxMessageBytes: 4_194_304,
    maxResponseBytes: 4_194_304,
    maxRequestBytes: 67_108_864,
    reflection: true,
    docs: true,
    logLevel: 'info',
    logSample: 1,
    tokensFile: undefined,
    allowUnauthenticated: false,
    authorizationFile: undefined,
    callsPerSecond: undefined,
    callsAtOnce: undefined,
    audit: undefined,
    auditPayloads: false,
    tlsCert: undefined,
    tlsKey: undefined,
    tlsClientCa: undefined,
    migrate: false,
    servingRole: undefined,
    redisUrl: undefined,
    anthropicApiKey: undefined,
    llmUrl: 'https://api.anthropic.com',
    llmModel: 'claude-sonnet-4-20250514',
    embeddingUrl: undefined,
    embeddingKey: undefined,
    embeddingModel: 'text-embedding-3-small',
  });
});

test('a flag wins over the variable, the variable over the default', () => {
  const env = { SIDECAR_POOL_MAX: '3', DATABASE_URL: 'postgresql://u@h/d' };
  expect(loadConfig([], env)).toMatchObject({ poolMax: 3, databaseUrl: 'postgresql://u@h/d' });
  expect(loadConfig(['--pool-max', '4', '--database-url=postgresql://u@i/e'], env)).toMatchObject({
    poolMax: 4,
    databaseUrl: 'postgresql://u@i/e',
  });
});

test('an empty variable is an unset one', () => {
  const env = Object.fromEntries(Object.values(SETTINGS).map(({ variable }) => [variable, '']));
  expect(loadConfig([], env)).toEqual(loadConfig([], {}));
});

test('help names every setting, its variable and its default', () => {
  const help = settingsHelp();
  for (const { variable, fallback, meaning } of Object.values(SETTINGS)) {
    expect(help).toContain(`(${variable}; default ${fallback || 'none'})`);
    expect(help).toContain(meaning);
  }
});

test('the README lists every setting with its default, and nothing else', () => {
  const text = readFileSync(join(import.meta.dirname, '..', '..', 'README.md'), 'utf8');
  const listed = [...text.matchAll(/^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (.+?) \| .+ \|$/gm)].flatMap(
    ([, names = '', defaults = '']) => {
      const all = defaults.split(', ').map((each) => (each.startsWith('none') ? '' : each.replaceAll('`', '')));
      return names.split(', ').map((name, at) => [name.replaceAll('`', ''), all[at] ?? all[0]]);
    },
  );
  expect(listed.sort()).toEqual(
    Object.values(SETTINGS)
      .map(({ variable, fallback }) => [variable, fallback])
      .sort(),
  );
});

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['5m', 300_000],
  ['24h', 86_400_000],
  ['24d', 2_073_600_000],
])('duration %s', (text, ms) => {
  expect(loadConfig(['--drain-timeout', text], {}).drainTimeoutMs).toBe(ms);
});

// Story: with 24d two connections of three were told to go as soon as they came.
test('the longest age of a connection, and a tenth, is none that a timer takes for nothing', () => {
  expect(loadConfig(['--connection-age', '22d'], {}).connectionAgeMs! * 1.1).toBeLessThan(2 ** 31);
  expect(() => loadConfig(['--connection-age', '24d'], {})).toThrow('--connection-age must be between 1ms and 22d');
});

describe('listeners', () => {
  test.each(['127.0.0.1:0', '127.1.2.3:1', 'localhost:50051', '[::1]:65535', 'unix:/run/sidecar.sock'])(
    '%s needs no tokens',
    (listen) => {
      expect(loadConfig(['--grpc-listen', listen], {}).grpcListen).toBe(listen);
    },
  );

  test.each(['0.0.0.0:50051', '[::]:50051', '10.0.0.1:1', 'example.com:1', '127.0.0.1.example.com:1'])(
    '%s needs tokens or an explicit permission',
    (listen) => {
      expect(problem(['--grpc-listen', listen])).toMatch(/SIDECAR_TOKENS_FILE/);
      expect(problem(['--http-listen', listen])).toMatch(/SIDECAR_TOKENS_FILE/);
      expect(loadConfig(['--grpc-listen', listen, '--tokens-file', 'tokens'], {}).grpcListen).toBe(listen);
      expect(loadConfig(['--grpc-listen', listen], { SIDECAR_ALLOW_UNAUTHENTICATED: 'on' }).grpcListen).toBe(listen);
    },
  );

  test('hosts and origins are lists', () => {
    const argv = ['--http-hosts', 'sidecar, sidecar.agents.svc', '--http-origins', 'https://a.example, http://b:8080'];
    expect(loadConfig(argv, {})).toMatchObject({
      httpHosts: ['sidecar', 'sidecar.agents.svc'],
      httpOrigins: ['https://a.example', 'http://b:8080'],
    });
  });

  test('HTTP can be off', () => {
    expect(loadConfig([], { SIDECAR_HTTP_LISTEN: 'off' }).httpListen).toBeUndefined();
  });
});

describe('refused in one line that names the setting', () => {
  test.each([
    ['--no-such', '1'],
    ['--pool-max'],
    ['--pool-max', '0'],
    ['--pool-max', '1.5'],
    ['--pool-max', '-1'],
    ['--pool-max', '9999999999'],
    ['--pool-wait', '0s'],
    ['--pool-wait', '2'],
    ['--transaction-total-lease-max', '25d'],
    ['--grpc-listen', '50051'],
    ['--grpc-listen', 'localhost:65536'],
    ['--grpc-listen', 'unix:relative.sock'],
    ['--http-listen', 'http://localhost:1'],
    ['--log-level', 'loud'],
    ['--log-level', 'constructor'],
    ['--reflection', 'yes'],
    ['--migrate', 'down'],
    ['--data-dir', ''],
    ['--database-url', 'postgresql://host:port/x'],
    ['--redis-url', 'http://localhost'],
    ['--llm-url', ''],
    ['--llm-url', 'api.anthropic.com'],
    ['--llm-url', 'http://localhost/?key=1'],
    ['--llm-model', ''],
    ['--embedding-url', 'ftp://localhost'],
    ['--http-hosts', 'sidecar:50052'],
    ['--http-hosts', 'http://sidecar'],
    ['--http-origins', '*'],
    ['--http-origins', 'https://console.example/'],
    ['--http-origins', 'null'],
    ['--calls-per-second', '0'],
    ['--calls-at-once', 'many'],
    ['--audit', '/var/log/audit'],
    ['--audit', 'file:'],
    ['--audit-payloads', 'yes'],
  ])('%s %s', (...argv) => {
    const line = problem(argv);
    expect(line).toContain(argv[0]);
    expect(line).not.toContain('\n');
  });

  test('a variable is called by its name', () => {
    expect(problem([], { SIDECAR_POOL_MAX: 'many' })).toMatch(/^SIDECAR_POOL_MAX must be .*, not "many"$/);
  });

  test('a word where a flag is expected', () => {
    expect(problem(['--pool-max', '1', 'migrate'])).toContain("'migrate'");
  });

  test('a connection string is not repeated: it holds a password', () => {
    expect(problem([], { DATABASE_URL: 'mysql://u:secret@h/d' })).toBe('DATABASE_URL must be a postgresql:// URL');
  });

  test.each(['REDIS_URL', 'SIDECAR_LLM_URL', 'SIDECAR_EMBEDDING_URL'])('%s is not repeated either', (variable) => {
    for (const text of ['ldap://u:secret@h', 'secret', 'http//u:secret']) {
      expect(problem([], { [variable]: text })).toMatch(new RegExp(`^${variable} must be `));
      expect(problem([], { [variable]: text })).not.toContain('secret');
    }
    if (variable !== 'REDIS_URL') expect(problem([], { [variable]: 'http://u:secret@h' })).not.toContain('secret');
  });
});

test('a setting that its parser does not fit is no program', () => {
  const { poolMax, drainTimeoutMs, socketMode, tokensFile, reflection } = SETTINGS;
  // @ts-expect-error a duration is no number of connections
  const counted = settingsOf({ poolMax: drainTimeoutMs });
  // @ts-expect-error a number is no duration
  const timed = settingsOf({ drainTimeoutMs: poolMax });
  // @ts-expect-error permissions are no number of connections
  const permitted = settingsOf({ poolMax: socketMode });
  const config = loadConfig([], {});
  // @ts-expect-error what may be absent is no text that is always there
  const present: string = config.tokensFile;
  // @ts-expect-error a switch is no text
  const text: string = config.reflection;
  // @ts-expect-error a key without its setting
  const lacking = config.poolMost;
  expect([counted, timed, permitted]).toEqual([
    { poolMax: drainTimeoutMs },
    { drainTimeoutMs: poolMax },
    { poolMax: socketMode },
  ]);
  expect([present, text, lacking]).toEqual([undefined, true, undefined]);
  expect(settingsOf({ tokensFile, reflection })).toEqual({ tokensFile, reflection });
});

describe('a DATABASE_URL that means nothing is told by its reason, and never by its text', () => {
  const encoded = /^DATABASE_URL has a user or password with a character that must be percent-encoded/;
  test.each([
    ['postgresql://user:se#cret@host/db', encoded],
    ['postgresql://user:se/cret@host/db', encoded],
    ['postgresql://user:se?cret@host/db', encoded],
    ['postgresql://user:123/cret@host/db', encoded],
    ['postgresql://user:se%zzcret@host/db', encoded],
    ['postgresql://user:cret%@host/db', encoded],
    ['postgresql://cret:pass@host:abc/db', /^DATABASE_URL must have a port from 1 to 65535$/],
    ['postgresql://host:70000/cret', /^DATABASE_URL must have a port from 1 to 65535$/],
    ['postgresql://host:0/cret', /^DATABASE_URL must have a port from 1 to 65535$/],
    ['postgresql:///cret?host=/tmp&port=abc', /^DATABASE_URL must have a port from 1 to 65535$/],
    ['mysql://cret@host/db', /^DATABASE_URL must be a postgresql:\/\/ URL$/],
    ['postgresql://cret[', /^DATABASE_URL must be a postgresql:\/\/ URL/],
    [
      'postgresql://u:cret@h/db?sslmode=verify-full&sslrootcert=/no/root.crt',
      /^DATABASE_URL sslrootcert \/no\/root\.crt cannot be read: ENOENT$/,
    ],
    ['postgresql://u:cret@h/db?sslmode=require&sslcert=/no/a.crt', /^DATABASE_URL ssl\w+ \/no\/a\.crt cannot be read/],
    ['postgresql://u:cret@h/db?sslmode=require&sslkey=/no/a.key', /^DATABASE_URL ssl\w+ \/no\/a\.key cannot be read/],
  ])('%s', (url, line) => {
    const message = problem([], { DATABASE_URL: url });
    expect(message).toMatch(line);
    expect(message).not.toContain('cret');
    expect(message).not.toContain('\n');
  });

  test.each([
    'postgresql://user:p%23w@host/db',
    'postgresql://user:p@ss@host/db',
    'postgresql://user:p[s@host:5432/db',
    'postgresql://host/db?user=a@b&password=p/w',
    'postgresql://user:p%25@host/db',
    'postgresql://[::1]:5432/db',
    'postgresql://user@/db?host=/run/postgresql',
    'postgresql://user@host:/db',
    'postgresql://%2Frun%2Fpostgresql/db',
    'postgres://host',
  ])('%s is one', (url) => {
    expect(loadConfig([], { DATABASE_URL: url }).databaseUrl).toBe(url);
  });
});
