import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
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

test('the doctor says what is lacking and what to do, and changes nothing', async () => {
  const empty = await createEmptyDatabase();
  const sick = await finish(['doctor', '--tokens-file', '/no/file'], { DATABASE_URL: empty.url });
  expect({ code: sick.code, err: sick.err }).toEqual({ code: 1, err: '' });
  expect(sick.out).toMatch(/^lack {2}the tokens file \/no\/file cannot be read \(ENOENT\); correct/m);
  const count = Object.keys(migrations).length;
  expect(sick.out).toContain(`\nlack  its schema lacks ${count} migration(s); policy-sidecar migrate up\n`);
  expect(sick.out).toMatch(/^note {2}change {2}policy\.snapshots: is made$/m);
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

test('the doctor names the rights that a role lacks', async () => {
  const database = await createDatabase();
  const pool = openPool(database.url, 1);
  const role = `doctor_${process.pid}`;
  await pool.query(`create role ${role} login password 'doctor'; grant usage on schema policy to ${role}`);
  const url = Object.assign(new URL(database.url), { username: role, password: 'doctor' });
  const { code, out, err } = await finish(['doctor'], { DATABASE_URL: url.href });
  await pool.query(`drop owned by ${role}; drop role ${role}`);
  await pool.end();
  expect({ code, err }).toEqual({ code: 1, err: '' });
  expect(out).toMatch(/^lack {2}its role may not select on policy\.snapshots; grant select on policy\.snapshots: see/m);
  expect(out).toMatch(/^lack {2}its role may not insert on policy_sidecar\.outcomes; /m);
  await database.drop();
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
