import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { migrations } from '../../migrations/index.ts';
import manifest from '../../package.json' with { type: 'json' };
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, createEmptyDatabase, createEncodedDatabase, openPool } from '../support/postgres.ts';
import { useFolder } from '../support/use.ts';

const folder = useFolder(beforeEach, afterEach);
afterEach(endAll);

const command = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Command =>
  startCommand(args, { SIDECAR_DATA_DIR: join(folder, 'data-dir'), ...env });

const finish = async (args: readonly string[], env: Readonly<Record<string, string>> = {}) => {
  const { ended, out, err } = command(args, env);
  return { code: await ended, out: out(), err: err() };
};

/** Reaches a database at a port where there was nothing before. */
const forward = async (url: string, port: number): Promise<() => void> => {
  const { hostname, port: to } = new URL(url);
  const server = createServer((near) => {
    const far = connect(Number(to), hostname);
    near.on('error', () => far.destroy()).pipe(far);
    far.on('error', () => near.destroy()).pipe(near);
  }).listen(port, '127.0.0.1');
  await once(server, 'listening');
  return () => server.close();
};

test('a database that is not there yet is waited for: alive and NOT_SERVING, then SERVING', async () => {
  const database = await createEmptyDatabase();
  const [port, grpc] = [await freePort(), `127.0.0.1:${await freePort()}`];
  const url = new URL(database.url);
  url.port = String(port);
  const env = {
    DATABASE_URL: url.href,
    SIDECAR_GRPC_LISTEN: grpc,
    SIDECAR_DATABASE_WAIT: '2m',
    SIDECAR_MIGRATE: 'up',
  };
  const sidecar = command([], env);
  await vi.waitFor(() => expect(sidecar.err()).toMatch(/ECONNREFUSED.*is waited for/));
  const caller = grpcCaller(grpc);
  const check = (service: string) => caller.unary(Health.method.check, { service });
  expect((await check('liveness')).status).toBe(Status.SERVING);
  expect((await check('')).status).toBe(Status.NOT_SERVING);
  expect(await finish(['health'], env)).toEqual({
    code: 1,
    out: '',
    err: 'policy-sidecar: not serving: NOT_SERVING\n',
  });
  await expect(caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).rejects.toMatchObject({
    reason: 'DATABASE_UNAVAILABLE',
  });
  const waiting = finish(['wait', '--timeout', '2m'], env);
  const close = await forward(database.url, port);
  expect(await waiting).toEqual({ code: 0, out: '', err: '' });
  expect(await finish(['health'], env)).toEqual({ code: 0, out: '', err: '' });
  expect((await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).riskCeilings).toHaveLength(4);
  expect(sidecar.err()).toMatch(/"migration":"Migration\w+","msg":"migration applied"/);
  expect(sidecar.err()).toContain(`"version":"${manifest.version}"`);
  caller.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  close();
  await database.drop();
});

test('a start that waits for its database ends with 0 at a signal, and with 3 when it has waited long enough', async () => {
  const env = { DATABASE_URL: `postgresql://u@127.0.0.1:${await freePort()}/d`, SIDECAR_DATABASE_WAIT: '5m' };
  const patient = command([], env);
  await vi.waitFor(() => expect(patient.err()).toContain('is waited for'));
  patient.child.kill('SIGTERM');
  expect(await patient.ended).toBe(0);
  const { code, err } = await finish([], { ...env, SIDECAR_DATABASE_WAIT: '300ms' });
  expect(code).toBe(3);
  expect(err.trimEnd().split('\n').at(-1)).toMatch(/^policy-sidecar: .*ECONNREFUSED/);
});

test('a second process at a socket file is refused while the first lives, and replaces the file of a killed one', async () => {
  const database = await createDatabase();
  const socket = `unix:${join(folder, 'grpc.sock')}`;
  const env = { DATABASE_URL: database.url, SIDECAR_GRPC_LISTEN: socket, SIDECAR_HTTP_LISTEN: 'off' };
  const first = command([], env);
  expect((await finish(['wait'], env)).code).toBe(0);
  const { code, err } = await finish([], env);
  expect(code).toBe(5);
  expect(err).toContain('it is in use by another process');
  first.child.kill('SIGKILL');
  await first.ended;
  expect(existsSync(join(folder, 'grpc.sock'))).toBe(true);
  expect((await finish(['health'], env)).code).toBe(1);
  const second = command([], env);
  expect((await finish(['wait'], env)).code).toBe(0);
  second.child.kill('SIGTERM');
  expect(await second.ended).toBe(0);
  await database.drop();
});

// Story: in Kubernetes a pod that was older than its database ended with 3 at once and was left alone for minutes.
test('a migration, too, waits for a database that is not there yet', { timeout: 60_000 }, async () => {
  const database = await createEmptyDatabase();
  const url = new URL(database.url);
  for (const action of ['up', 'status', 'check', 'tenants']) {
    url.port = String(await freePort());
    const { ended, err } = command(['migrate', action], { DATABASE_URL: url.href, SIDECAR_DATABASE_WAIT: '2m' });
    await vi.waitFor(() => expect(err()).toMatch(/ECONNREFUSED.*; it is waited for\n$/));
    const close = await forward(database.url, Number(url.port));
    expect([action, await ended, err()]).toEqual([action, 0, expect.stringMatching(/^[^\n]*; it is waited for\n$/)]);
    close();
  }
  const impatient = await finish(['migrate', 'up'], { DATABASE_URL: url.href, SIDECAR_DATABASE_WAIT: '300ms' });
  expect(impatient.code).toBe(3);
  await database.drop();
});

test('the doctor says what is lacking and what to do, and changes nothing', async () => {
  const empty = await createEmptyDatabase();
  const sick = await finish(['doctor', '--tokens-file', '/no/file'], { DATABASE_URL: empty.url });
  expect({ code: sick.code, err: sick.err }).toEqual({ code: 1, err: '' });
  expect(sick.out).toMatch(/^lack {2}the tokens file \/no\/file cannot be read \(ENOENT\); correct/m);
  const count = Object.keys(migrations).length;
  expect(sick.out).toContain(
    `\nlack  its schema lacks ${count} migration(s); policy-sidecar migrate up, as the role that migrates\n`,
  );
  expect((await finish(['migrate', 'status'], { DATABASE_URL: empty.url })).code).toBe(4);
  const ready = await createDatabase();
  const well = await finish(['doctor'], { DATABASE_URL: ready.url });
  expect({ code: well.code, err: well.err }).toEqual({ code: 0, err: '' });
  expect(well.out).toMatch(/^ok {4}PostgreSQL \d+$/m);
  expect(well.out).not.toContain('lack');
  const bytes = await createEncodedDatabase('SQL_ASCII');
  const told = await finish(['doctor'], { DATABASE_URL: bytes.url });
  expect(told.code).toBe(1);
  expect(told.out).toMatch(/^lack {2}its encoding is SQL_ASCII; make it anew/m);
  const gone = await finish(['doctor'], { DATABASE_URL: 'postgresql://u:secret@127.0.0.1:1/d' });
  expect(gone.code).toBe(1);
  expect(gone.out).toMatch(/^lack {2}postgresql:\/\/u@127\.0\.0\.1:1\/d cannot be used: .*; check address/m);
  await Promise.all([empty.drop(), ready.drop(), bytes.drop()]);
});

// Story: `serve` ended with 2 for files that the doctor had not looked at.
test('the doctor reads the files that a start reads, and makes none', async () => {
  const database = await createDatabase();
  const [tokens, audit] = [join(folder, 'tokens'), join(folder, 'audit')];
  await writeFile(tokens, '# none yet\n');
  await writeFile(join(folder, 'policy.json'), '{ "identities": { "ann": { "reads": ["*"], "tenants": "all" } } }');
  const told = (authorization: string, auditFile: string) =>
    finish(['doctor'], {
      DATABASE_URL: database.url,
      SIDECAR_TOKENS_FILE: tokens,
      SIDECAR_AUTHORIZATION: authorization,
      SIDECAR_AUDIT: `file:${auditFile}`,
    });
  const sick = await told(join(folder, 'policy.json'), join(folder, 'none', 'audit'));
  expect(sick.code).toBe(1);
  expect(sick.out).toMatch(
    /^lack {2}the authorization file \S+ is no good: .*reads is not a key of this file; correct/m,
  );
  expect(sick.out).toMatch(/^lack {2}the audit file \S+ cannot be written \(ENOENT\); correct/m);
  await writeFile(join(folder, 'policy.json'), '{ "identities": { "ann": { "read": ["*"], "tenants": "all" } } }');
  const well = await told(join(folder, 'policy.json'), audit);
  expect({ code: well.code, err: well.err }).toEqual({ code: 0, err: '' });
  expect(well.out).toContain('ok    the authorization file can be read\nok    the audit file can be written\n');
  expect(existsSync(audit)).toBe(false);
  await writeFile(audit, '');
  expect(await told(join(folder, 'policy.json'), audit)).toEqual(well);
  await database.drop();
});

/** A role that may log in, and what it sees of a database. */
const withRole = async (
  url: string,
  work: (role: string, asRole: string, sql: (text: string) => Promise<unknown>) => Promise<void>,
): Promise<void> => {
  const pool = openPool(url, 1);
  const role = `doctor_${randomUUID().slice(0, 8)}`;
  await pool.query(`create role ${role} login password 'doctor'`);
  try {
    const as = Object.assign(new URL(url), { username: role, password: 'doctor' }).href;
    await work(role, as, (text) => pool.query(text));
  } finally {
    await pool.query(`drop owned by ${role}; drop role ${role}`);
    await pool.end();
  }
};

test('the doctor names each right that a role lacks with the statement that gives it', async () => {
  const database = await createDatabase();
  await withRole(database.url, async (role, url, sql) => {
    await sql(`grant usage on schema policy to ${role}; grant select on policy.violations to ${role}`);
    const sick = await finish(['doctor'], { DATABASE_URL: url });
    expect({ code: sick.code, err: sick.err }).toEqual({ code: 1, err: '' });
    const lacks = [...sick.out.matchAll(/^lack {2}its role lacks (.+) on (.+); (grant .+)$/gm)];
    const grants = lacks.map(([, , , grant]) => grant!);
    for (const [, rights, on, grant] of lacks) expect(grant).toBe(`grant ${rights} on ${on} to ${role}`);
    expect(grants).toEqual(
      expect.arrayContaining([
        `grant usage on schema policy_sidecar to ${role}`,
        `grant select, update on policy.risk_ceilings to ${role}`,
        `grant insert, update on policy.violations to ${role}`,
        `grant select, insert, delete on policy_sidecar.outcomes to ${role}`,
        `grant usage on sequence policy.snapshots_id_seq to ${role}`,
      ]),
    );
    expect(sick.out.match(/^lack .*/gm)).toHaveLength(lacks.length);
    for (const grant of grants) await sql(grant);
    const well = await finish(['doctor'], { DATABASE_URL: url });
    expect({ code: well.code, lacks: well.out.match(/^lack .*/gm) }).toEqual({ code: 0, lacks: null });
  });
  await database.drop();
});

// Stories: as the role that serves it advised to grant it the role that owns everything; and a role that got its rights after
// `migrate tenants` saw no row, which nothing told.
test('the doctor of a role that serves tells of migrations for another role, and of rows that are hidden', async () => {
  const database = await createDatabase();
  await withRole(database.url, async (role, url, sql) => {
    const owner = { DATABASE_URL: database.url, SIDECAR_SERVING_ROLE: role };
    expect((await finish(['migrate', 'tenants'], owner)).code).toBe(0);
    // Rights that it has by this role alone are those of callers that are bound.
    await sql(`grant policy_sidecar_tenants to ${role}`);
    const { code, out } = await finish(['migrate', 'up'], owner);
    expect({ code, out }).toEqual({
      code: 0,
      out: expect.stringMatching(new RegExp(`^nothing to apply\\ngranted \\d+ right\\(s\\) to ${role}\\n$`)),
    });
    await sql(`delete from policy_sidecar.migrations where name = '${Object.keys(migrations).at(-1)}'`);
    const hidden = await finish(['doctor'], { DATABASE_URL: url });
    expect(hidden.code).toBe(1);
    expect(hidden.out.match(/^lack .*/gm)).toEqual([
      expect.stringMatching(
        /^lack {2}row security hides the rows of 38 table\(s\) from its role, m10_recovery\.\w+ among them; policy-sidecar migrate tenants, as/,
      ),
      'lack  its schema lacks 1 migration(s); policy-sidecar migrate up, as the role that migrates',
    ]);
    expect(hidden.out).not.toContain('belongs to');
    expect((await finish(['migrate', 'up'], owner)).code).toBe(0);
    expect((await finish(['migrate', 'tenants'], owner)).code).toBe(0);
    expect((await finish(['doctor'], { DATABASE_URL: url })).code).toBe(0);
  });
  await database.drop();
});

test('`wait` and `health` say at once that they cannot ask where gRPC speaks TLS', async () => {
  const env = { SIDECAR_GRPC_LISTEN: '127.0.0.1:1', SIDECAR_TLS_CERT: '/no/cert', SIDECAR_TLS_KEY: '/no/key' };
  const told = {
    code: 2,
    out: '',
    err: 'policy-sidecar: 127.0.0.1:1 speaks TLS, and only SIDECAR_PROBE_LISTEN can be asked then\n',
  };
  expect(await finish(['wait', '--timeout', '24h'], env)).toEqual(told);
  expect(await finish(['health'], env)).toEqual(told);
  // Who can be asked, and is not there.
  for (const asked of [
    { ...env, SIDECAR_PROBE_LISTEN: '127.0.0.1:1' },
    { ...env, SIDECAR_GRPC_LISTEN: `unix:${folder}/none` },
  ]) {
    expect((await finish(['wait', '--timeout', '1ms'], asked)).code).toBe(1);
    expect((await finish(['health'], asked)).code).toBe(1);
  }
});

test.each([
  [{ SIDECAR_GRPC_LISTEN: 'localhost' }, 'SIDECAR_GRPC_LISTEN must be host:port, not "localhost"'],
  [{ SIDECAR_GRPC_LISTEN: '127.0.0.1:70000' }, 'SIDECAR_GRPC_LISTEN must be host:port, not "127.0.0.1:70000"'],
  [{ SIDECAR_GRPC_LISTEN: 'unix:' }, 'SIDECAR_GRPC_LISTEN must be host:port, not "unix:"'],
  [{ SIDECAR_PROBE_LISTEN: 'on' }, 'SIDECAR_PROBE_LISTEN must be host:port, not "on"'],
] as const)('`health` and `wait` say of %j that it is no address', async (setting, problem) => {
  for (const command of ['health', 'wait']) {
    expect(await finish([command], setting)).toEqual({ code: 2, out: '', err: `policy-sidecar: ${problem}\n` });
  }
});

test('the operator’s page has a row for every command of --help', async () => {
  const { out } = await finish(['--help']);
  const commands = [...out.matchAll(/policy-sidecar ((?:migrate )?[a-z]+)(?= [A-Z[]| {2,}[a-z])/g)].map(
    ([, name]) => name!,
  );
  expect(new Set(commands).size).toBeGreaterThan(8);
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'operations.md'), 'utf8');
  expect(commands.filter((name) => !new RegExp(`^\\| \`${name}[\` ]`, 'm').test(page))).toEqual([]);
});

test('a token and its line belong together', async () => {
  const { code, out } = await finish(['token', 'engine']);
  const [, token, hash] = /^token {2}(\S{43})\nline {3}engine: ([\da-f]{64})\n$/.exec(out)!;
  expect(code).toBe(0);
  expect(createHash('sha256').update(token!).digest('hex')).toBe(hash);
});

test('--version tells the version of package.json', async () => {
  expect(await finish(['--version'])).toMatchObject({
    code: 0,
    out: `policy-sidecar ${manifest.version} (Node ${process.version})\n`,
  });
});
