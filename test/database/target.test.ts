import { execFile } from 'node:child_process';
import { randomUUID, X509Certificate } from 'node:crypto';
import { chmod, chown, copyFile, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { readTarget, TargetError } from '../../src/database/target.ts';
import { jsonToValue } from '../../src/database/values.ts';
import { type Embedded, startEmbedded } from '../../src/embedded/embedded.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { createDatabase } from '../support/postgres.ts';
import { copyDataFolder } from '../support/program.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { useDatabase, useFolder } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const run = promisify(execFile);
const openssl = (folder: string, ...args: string[]) => run('openssl', args, { cwd: folder });
const hasOpenssl = await run('openssl', ['version']).then(
  () => true,
  () => false,
);
if (!hasOpenssl) console.log('skipped: TLS, for there is no openssl');

const withParameters = (url: string, parameters: Readonly<Record<string, string>>, host?: string): string => {
  const changed = new URL(url);
  if (host !== undefined) changed.hostname = host;
  const query = Object.entries(parameters).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return `${changed.href}?${query.join('&')}`;
};

const onDatabase = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

/** Certificates of a server, by what they are for. */
const CERTIFICATES = {
  localhost: { authority: 'root', names: 'DNS:localhost' },
  address: { authority: 'root', names: 'IP:127.0.0.1' },
  another: { authority: 'root', names: 'DNS:db.example' },
  stranger: { authority: 'other', names: 'DNS:localhost,IP:127.0.0.1' },
} as const;
type Certificate = keyof typeof CERTIFICATES;

describe.runIf(hasOpenssl)('TLS', () => {
  const folder = useFolder();
  let server: Embedded;
  beforeAll(async () => {
    for (const authority of ['root', 'other']) {
      const subject = ['-subj', `/CN=${authority} authority`];
      const files = ['-keyout', `${authority}.key`, '-out', `${authority}.crt`];
      await openssl(folder, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...files, ...subject);
    }
    for (const [name, { authority, names }] of Object.entries(CERTIFICATES)) {
      await writeFile(join(folder, `${name}.ext`), `subjectAltName=${names}\n`);
      const subject = ['-subj', '/CN=server'];
      const request = ['-keyout', `${name}.key`, '-out', `${name}.csr`];
      await openssl(folder, 'req', '-newkey', 'rsa:2048', '-nodes', ...request, ...subject);
      const signer = ['-CA', `${authority}.crt`, '-CAkey', `${authority}.key`, '-CAcreateserial'];
      const files = ['-in', `${name}.csr`, '-out', `${name}.crt`, '-extfile', `${name}.ext`];
      await openssl(folder, 'x509', '-req', '-days', '2', ...signer, ...files);
    }
    await copyDataFolder(folder);
    await place('localhost');
    server = await startEmbedded({
      dataDir: folder,
      settings: { fsync: 'off', ssl_cert_file: inUse('crt'), ssl_key_file: inUse('key') },
    });
    await switchTls('on');
  }, 120_000);
  afterAll(async () => {
    await server?.stop();
  });

  const inUse = (kind: 'crt' | 'key') => join(folder, `in-use.${kind}`);
  const place = async (certificate: Certificate): Promise<void> => {
    const { uid, gid } = await stat(join(folder, 'data'));
    for (const kind of ['crt', 'key'] as const) {
      await copyFile(join(folder, `${certificate}.${kind}`), inUse(kind));
      await chown(inUse(kind), uid, gid);
      await chmod(inUse(kind), 0o600);
    }
  };
  const switchTls = (to: 'on' | 'off'): Promise<unknown> =>
    onDatabase(server.adminUrl, async (client) => {
      await client.query(`alter system set ssl = ${to}`);
      await client.query('select pg_reload_conf()');
    });
  const serve = async (certificate: Certificate): Promise<void> => {
    await place(certificate);
    await onDatabase(server.adminUrl, (client) => client.query('select pg_reload_conf()'));
  };

  /** Whether calls run over TLS, or why there are none. */
  const reach = async (url: string): Promise<'tls' | 'plain' | string> => {
    let sidecar: TestSidecar;
    try {
      sidecar = await startTestSidecar({}, url);
    } catch (error) {
      return (error as { reason?: string }).reason ?? (error as Error).message;
    }
    try {
      await sidecar.grpc.unary(rpc.fetchRiskCeilings, {});
      return await onDatabase(server.url, async (client) => {
        const { rows } = await client.query(
          `select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'policy-sidecar call'`,
        );
        expect(rows).toHaveLength(1);
        return rows[0].ssl ? 'tls' : 'plain';
      });
    } finally {
      await sidecar.stop();
    }
  };

  const REFUSED = 'DATABASE_UNAVAILABLE';
  // Story: an address was compared with `localhost`, so that the wrong certificate was taken and the right one refused.
  test.each<[Certificate, host: string, mode: string, root: boolean, 'tls' | 'plain' | typeof REFUSED]>([
    ['stranger', 'localhost', 'disable', false, 'plain'],
    ['stranger', '127.0.0.1', 'prefer', false, 'tls'],
    ['stranger', '127.0.0.1', 'allow', false, 'tls'],
    ['stranger', 'localhost', 'require', false, 'tls'],
    ['another', 'localhost', 'require', true, 'tls'],
    ['stranger', 'localhost', 'require', true, REFUSED],
    ['another', 'localhost', 'verify-ca', true, 'tls'],
    ['another', '127.0.0.1', 'verify-ca', true, 'tls'],
    ['stranger', 'localhost', 'verify-ca', true, REFUSED],
    ['localhost', 'localhost', 'verify-full', true, 'tls'],
    ['address', 'localhost', 'verify-full', true, REFUSED],
    ['another', 'localhost', 'verify-full', true, REFUSED],
    ['stranger', 'localhost', 'verify-full', true, REFUSED],
    ['localhost', 'localhost', 'verify-full', false, REFUSED],
    ['address', '127.0.0.1', 'verify-full', true, 'tls'],
    ['localhost', '127.0.0.1', 'verify-full', true, REFUSED],
    ['stranger', '127.0.0.1', 'verify-full', true, REFUSED],
  ])(
    'the certificate %s, reached as %s by sslmode=%s (root given: %s): %s',
    async (certificate, host, mode, root, expected) => {
      await serve(certificate);
      const parameters = { sslmode: mode, ...(root ? { sslrootcert: join(folder, 'root.crt') } : {}) };
      await vi.waitFor(async () => expect(await reach(withParameters(server.url, parameters, host))).toBe(expected), {
        timeout: 8_000,
      });
    },
  );

  test('without sslmode TLS is taken where the server has it', async () => {
    await serve('stranger');
    expect(await reach(server.url)).toBe('tls');
  });

  // Story: a certificate that had been replaced, and TLS that had been switched off, were INTERNAL for every call.
  test.each<[string, change: () => Promise<unknown>, back: () => Promise<unknown>]>([
    ['a certificate that is replaced', () => serve('stranger'), () => serve('address')],
    ['TLS that is switched off', () => switchTls('off'), () => switchTls('on')],
  ])('%s while serving is UNAVAILABLE, with its cause in the log, and heals', async (_name, change, back) => {
    await serve('address');
    const parameters = { sslmode: 'verify-full', sslrootcert: join(folder, 'root.crt') };
    const sidecar = await vi.waitFor(() => startTestSidecar({}, withParameters(server.url, parameters, '127.0.0.1')), {
      timeout: 8_000,
    });
    const read = () => sidecar.grpc.unary(rpc.fetchRiskCeilings, {});
    const reconnect = () =>
      onDatabase(server.url, (client) =>
        client.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity
          where application_name like 'policy-sidecar %'`),
      );
    try {
      await read();
      await change();
      // The server reads its settings when it comes to it.
      const error = await vi.waitFor(async () => {
        await reconnect();
        return refusal(read());
      });
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
      const line = sidecar.log().findLast(({ code }) => code === 'UNAVAILABLE');
      expect(line?.['cause']).toMatch(/certificate|SSL/);
      await back();
      await vi.waitFor(read, { timeout: 8_000 });
    } finally {
      await back();
      await sidecar.stop();
    }
  });

  test('new files are used for new connections, and files that are no good leave those of before', async () => {
    await serve('address');
    const { uid, gid } = await stat(join(folder, 'data'));
    const authority = join(folder, 'callers.crt');
    await copyFile(join(folder, 'root.crt'), authority);
    await chown(authority, uid, gid);
    await onDatabase(server.adminUrl, async (client) => {
      await client.query(`alter system set ssl_ca_file = '${authority}'`);
      await client.query('select pg_reload_conf()');
    });
    const mine = (kind: string): string => join(folder, `mine.${kind}`);
    const take = (root: string, pair: string) =>
      Promise.all([
        copyFile(join(folder, `${root}.crt`), mine('ca')),
        copyFile(join(folder, `${pair}.crt`), mine('crt')),
        copyFile(join(folder, `${pair}.key`), mine('key')),
      ]);
    const serial = async (certificate: string): Promise<string> =>
      String(BigInt(`0x${new X509Certificate(await readFile(join(folder, certificate))).serialNumber}`));
    await take('root', 'localhost');
    const parameters = { sslmode: 'verify-full', sslrootcert: mine('ca'), sslcert: mine('crt'), sslkey: mine('key') };
    const url = withParameters(server.url, parameters, '127.0.0.1');
    const sidecar = await vi.waitFor(() => startTestSidecar({}, url), { timeout: 8_000 });
    /** Connects anew, and tells by which certificate. */
    const shown = () =>
      onDatabase(server.url, async (client) => {
        await client.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity
          where application_name like 'policy-sidecar %'`);
        await sidecar.grpc.unary(rpc.fetchRiskCeilings, {});
        const { rows } = await client.query(`select client_serial::text as serial from pg_stat_ssl
          join pg_stat_activity using (pid) where application_name = 'policy-sidecar call'`);
        return rows[0]?.serial;
      });
    try {
      const [first, second] = await Promise.all([serial('localhost.crt'), serial('another.crt')]);
      expect(first).not.toBe(second);
      await vi.waitFor(async () => expect(await shown()).toBe(first));
      await take('root', 'another');
      await vi.waitFor(async () => expect(await shown()).toBe(second));
      for (const [kind, text] of [
        ['key', await readFile(join(folder, 'localhost.key'))],
        ['crt', 'half of it'],
        ['ca', 'nothing'],
      ] as const) {
        const before = sidecar.log().filter(({ problem }) => problem).length;
        await writeFile(mine(kind), text);
        await vi.waitFor(async () => expect(await shown()).toBe(second));
        const told = sidecar
          .log()
          .filter(({ problem, msg }) => problem && /^TLS files of the database/.test(String(msg)));
        expect(told.length, kind).toBeGreaterThan(0);
        expect(sidecar.log().filter(({ problem }) => problem).length, kind).toBeGreaterThan(before);
        await take('root', 'another');
        await vi.waitFor(async () => expect(await shown()).toBe(second));
      }
      // An authority that is another, and good: it is believed.
      await take('other', 'another');
      await vi.waitFor(async () => {
        const error = await refusal(shown());
        expect(error.reason).toBe('DATABASE_UNAVAILABLE');
      });
      await take('root', 'another');
      await vi.waitFor(async () => expect(await shown()).toBe(second));
    } finally {
      await sidecar.stop();
      await onDatabase(server.adminUrl, async (client) => {
        await client.query('alter system reset ssl_ca_file');
        await client.query('select pg_reload_conf()');
      });
    }
  });

  // Story: a cancel that did not speak TLS was dropped by the server, and the statement went on.
  test('a cancel reaches the backend over TLS, and its connection goes on', async () => {
    await serve('address');
    const parameters = { sslmode: 'verify-full', sslrootcert: join(folder, 'root.crt') };
    const sidecar = await vi.waitFor(() =>
      startTestSidecar({ poolMax: 1 }, withParameters(server.url, parameters, '127.0.0.1')),
    );
    try {
      await onDatabase(server.url, async (person) => {
        const backend = () =>
          onDatabase(server.url, async (client) => {
            const activity = await client.query(
              `select pid, state from pg_stat_activity where application_name = 'policy-sidecar call'`,
            );
            return activity.rows[0];
          });
        const { rows } = await person.query('select id from policy.risk_ceilings limit 1');
        const reset = (init = {}) =>
          sidecar.grpc.unary(rpc.resetRiskCeiling, { ceilingId: rows[0].id }, { transaction: 'single-use', ...init });
        await reset();
        const before = await backend();
        await person.query('begin; select from policy.risk_ceilings for update');
        expect((await refusal(reset({ timeoutMs: 300 }))).code).toBe('DEADLINE_EXCEEDED');
        await vi.waitFor(async () => expect((await backend()).state).toBe('idle'));
        await person.query('rollback');
        await reset();
        expect(await backend()).toMatchObject({ pid: before.pid });
      });
    } finally {
      await sidecar.stop();
    }
  });
});

describe('settings', () => {
  const database = useDatabase();
  beforeAll(async () => {
    await onDatabase(database.url, (client) =>
      client.query(`create table public.seen (work_mem text, note text);
        create function public.see() returns trigger language plpgsql as $$ begin
          insert into public.seen values (current_setting('work_mem'), current_setting('app.note', true));
          return null;
        end $$;
        create trigger see after insert on policy.violations for each statement execute function public.see()`),
    );
  });

  const HOSTILE: Readonly<Record<string, string>> = {
    TimeZone: 'America/New_York',
    DateStyle: 'SQL, DMY',
    IntervalStyle: 'sql_standard',
    bytea_output: 'escape',
    extra_float_digits: '0',
    default_transaction_isolation: 'serializable',
    search_path: 'nowhere',
  };
  const escaped = (text: string) => text.replace(/[\\ ]/g, '\\$&');

  const exact = async (url: string): Promise<void> => {
    const sidecar = await startTestSidecar({}, url);
    const other = await startTestSidecar({}, url);
    try {
      const violation = {
        violationId: randomUUID(),
        violationType: 'x',
        severity: 0.1 + 0.2,
        description: randomUUID(),
        evidence: jsonToValue({ a: 0.1 }),
        routedToGovernor: false,
        detectedAt: { seconds: 1_765_432_109n, nanos: 123_456_000 },
      };
      const init = { transaction: 'single-use', headers: { 'idempotency-key': randomUUID() } };
      const first = await sidecar.grpc.unary(rpc.insertViolation, violation, init);
      expect(await other.grpc.unary(rpc.insertViolation, violation, init)).toEqual(first);
      const { violations } = await sidecar.grpc.unary(rpc.fetchViolations, {});
      const own = violations.filter(({ description }) => description === violation.description);
      expect(own).toHaveLength(1);
      expect(own[0]).toMatchObject({ severity: violation.severity, detectedAt: violation.detectedAt });
      const { id } = (await sidecar.grpc.unary(tx.begin, {})).transaction!;
      await sidecar.grpc.unary(rpc.insertViolation, { ...violation, violationId: randomUUID() }, { transaction: id! });
      const outcome = async () =>
        (await other.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value: id! } })).outcome;
      expect(await outcome()).toBe(Outcome.IN_PROGRESS);
      await sidecar.grpc.unary(tx.commit, { transactionId: id! });
      expect(await outcome()).toBe(Outcome.COMMITTED);
    } finally {
      await other.stop();
      await sidecar.stop();
    }
  };
  const seen = () =>
    onDatabase(database.url, async (client) => (await client.query('delete from public.seen returning *')).rows);

  // Story: `?options=…` in the URL took the place of every setting of the session, and lists, replays of idempotency keys,
  // transaction ids and doubles went wrong in silence.
  test('of the URL do not reach what answers rest on, and those that are the user’s own stay', async () => {
    const settings = Object.entries(HOSTILE).map(([name, value]) => `-c ${name}=${escaped(value)}`);
    const options = [...settings, '--work-mem=7MB', '-capp.note=two\\ words\\\\'].join(' ');
    await exact(withParameters(database.url, { options }));
    const rows = await seen();
    expect(rows.length).toBeGreaterThan(0);
    for (const row of rows) expect(row).toEqual({ work_mem: '7MB', note: 'two words\\' });
  });

  test('of the database and the role do not reach it either', async () => {
    const alter = (what: string) =>
      onDatabase(database.url, (client) =>
        client.query(`do $do$ begin execute format('alter ${what}', current_database()); end $do$`),
      );
    for (const [name, value] of Object.entries(HOSTILE)) {
      const text = name === 'search_path' ? value : `''${value}''`;
      await alter(`database %I set ${name} = ${text}`);
      await alter(`role current_user in database %I set ${name} = ${text}`);
    }
    await alter(`role current_user in database %I set work_mem = ''9MB''`);
    try {
      await exact(database.url);
      for (const row of await seen()) expect(row['work_mem']).toBe('9MB');
    } finally {
      await alter('database %I reset all');
      await alter('role current_user in database %I reset all');
    }
  });
});

test('where the server has no TLS, prefer does without and require does not', async () => {
  const database = await createDatabase();
  try {
    const sidecar = await startTestSidecar({}, withParameters(database.url, { sslmode: 'prefer' }));
    expect((await sidecar.grpc.unary(rpc.fetchRiskCeilings, {})).riskCeilings.length).toBeGreaterThan(0);
    await sidecar.stop();
    await expect(startTestSidecar({}, withParameters(database.url, { sslmode: 'require' }))).rejects.toMatchObject({
      reason: 'DATABASE_UNAVAILABLE',
    });
  } finally {
    await database.drop();
  }
});

// Story: whatever was wrong with a URL, the answer was a stack, or that it must be a URL.
test.each([
  ['postgresql://u:secret@host:port/db', /percent-encoded|number|port from/],
  ['postgresql://u:secret/x@host/db', /percent-encoded/],
  ['postgresql://u:secret@host/db?sslmode=sometimes', /sslmode must be one of/],
  ['postgresql://u:secret@host/db?sslmode=verify-ca', /needs sslrootcert/],
  ['postgresql://u:secret@host/db?sslmode=verify-full&sslrootcert=/nowhere/root.crt', /sslrootcert \/nowhere.*ENOENT/],
  ['postgresql://u:secret@host/db?options=work_mem', /options must be settings/],
  ['postgresql://u:secret@host/db?options=-c%20work_mem', /options must be settings/],
])('%s is refused in one line', (url, expected) => {
  let said: unknown;
  try {
    readTarget(url);
  } catch (error) {
    said = error;
  }
  expect(said).toBeInstanceOf(TargetError);
  expect(() => loadConfig([], { DATABASE_URL: url })).toThrow(expected);
  const { message } = said as Error;
  expect(message).toMatch(expected);
  expect(message).not.toMatch(/secret|\n/);
});

test('what is said of a database holds no password', () => {
  const { description } = readTarget('postgresql://u:secret@[::1]:5433/db?sslmode=disable&password=other');
  expect(description).toBe('postgresql://u@[::1]:5433/db');
});
