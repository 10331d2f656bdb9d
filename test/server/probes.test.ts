import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { SymbolTableService } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { listenProbes } from '../../src/server/probes.ts';
import { connectCaller, grpcCaller, refusal } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { startNetwork } from '../support/network.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, openPool } from '../support/postgres.ts';
import { useDatabase, useStarted } from '../support/use.ts';

const SERVING = { status: 1 };
const NOT_SERVING = { status: 2 };

/** Status and text of a page; undefined while nobody listens. */
const page = async (address: string, path: string, method = 'GET') => {
  const response = await fetch(`http://${address}${path}`, { method }).catch(() => undefined);
  return response && { status: response.status, text: await response.text() };
};

const LIVE = { status: 200, text: 'live\n' };
const STARTED = { status: 200, text: 'started\n' };
const READY = { status: 200, text: 'ready\n' };
const NOT_STARTED = { status: 503, text: 'not started: it is being started\n' };
const notReady = (why: string) => ({ status: 503, text: `not ready: ${why}\n` });

afterAll(endAll);

describe('while it serves', () => {
  const database = useDatabase();
  const network = useStarted(
    () => startNetwork(database.url),
    ({ close }) => close(),
  );
  let sidecar: Command;
  let probes: string;
  let address: { grpc: string; http: string };
  beforeAll(async () => {
    probes = `127.0.0.1:${await freePort()}`;
    sidecar = startCommand(['--probe-listen', probes], { DATABASE_URL: network.url });
    address = await sidecar.serving();
  });
  afterAll(async () => {
    sidecar?.child.kill('SIGTERM');
    await sidecar?.ended;
  });

  test('the start says where it is asked', () => {
    expect(sidecar.out()).toContain(`probes    ${probes} (/live, /started, /ready, /metrics)\n`);
  });

  test.each(['the port of the probes', 'the HTTP port'])(
    '%s tells that it lives, has started and is ready',
    async (which) => {
      const at = which === 'the HTTP port' ? address.http : probes;
      expect(await page(at, '/live')).toEqual(LIVE);
      expect(await page(at, '/started')).toEqual(STARTED);
      expect(await page(at, '/ready')).toEqual(READY);
      expect(await page(at, '/ready?verbose')).toEqual(READY);
      expect(await page(at, '/ready', 'HEAD')).toEqual({ status: 200, text: '' });
      expect(await page(at, '/other')).toMatchObject({ status: 404 });
      expect(await page(at, '/ready', 'DELETE')).toMatchObject({ status: 404 });
    },
  );

  test('the port of the probes takes no calls', async () => {
    const caller = connectCaller(probes);
    const error = await refusal(caller.unary(PolicyEngineService.method.fetchRiskCeilings, {}));
    expect(error.code).toBe('UNIMPLEMENTED');
  });

  test.each(['grpc', 'connect'] as const)('%s: health lists the process, the server and the services', async (kind) => {
    const caller = kind === 'grpc' ? grpcCaller(address.grpc) : connectCaller(address.http);
    const { statuses } = await caller.unary(Health.method.list, {});
    expect(Object.keys(statuses)).toEqual(
      expect.arrayContaining(['', 'liveness', 'readiness', 'startup', Health.typeName, PolicyEngineService.typeName]),
    );
    for (const service of Object.keys(statuses)) {
      expect(statuses[service]).toMatchObject(SERVING);
      expect(await caller.unary(Health.method.check, { service })).toMatchObject(SERVING);
    }
    caller.close();
  });

  test('a database that does not answer makes it unready, and no less alive; the reason is told', async () => {
    const caller = grpcCaller(address.grpc);
    network.swallow();
    const why = notReady('the database does not answer');
    for (const at of [probes, address.http]) {
      await vi.waitFor(async () => expect(await page(at, '/ready')).toEqual(why));
      expect(await page(at, '/live')).toEqual(LIVE);
      expect(await page(at, '/started')).toEqual(STARTED);
    }
    const { statuses } = await caller.unary(Health.method.list, {});
    expect(statuses).toMatchObject({
      '': NOT_SERVING,
      liveness: SERVING,
      readiness: NOT_SERVING,
      startup: SERVING,
      [PolicyEngineService.typeName]: NOT_SERVING,
      [SymbolTableService.typeName]: NOT_SERVING,
    });
    expect(await caller.unary(Health.method.check, { service: 'liveness' })).toMatchObject(SERVING);
    expect(await caller.unary(Health.method.check, { service: 'readiness' })).toMatchObject(NOT_SERVING);
    network.heal();
    await vi.waitFor(async () => expect(await page(probes, '/ready')).toEqual(READY));
    expect(await caller.unary(Health.method.check, { service: 'readiness' })).toMatchObject(SERVING);
    caller.close();
  });
});

test('before the database is up it is alive, and not ready', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-probes-'));
  await chmod(folder, 0o755);
  const probes = `127.0.0.1:${await freePort()}`;
  const dataDir = join(folder, 'data-dir');
  // Making an embedded database takes a second or more.
  const sidecar = startCommand(['--probe-listen', probes], { SIDECAR_DATA_DIR: dataDir });
  await vi.waitFor(async () => expect(await page(probes, '/live')).toEqual(LIVE), { interval: 5 });
  expect(await page(probes, '/ready')).toEqual(notReady('it is being started'));
  expect(await page(probes, '/started')).toEqual(NOT_STARTED);
  await sidecar.serving();
  expect(await page(probes, '/ready')).toEqual(READY);
  expect(await page(probes, '/started')).toEqual(STARTED);
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  expect(await page(probes, '/live')).toBeUndefined();
  await rm(folder, { recursive: true, force: true });
});

/** A start that tells of itself at known places, on a database that may be reached later. */
const startKnown = async (url: string) => {
  const [probes, http, grpc] = await Promise.all([1, 2, 3].map(async () => `127.0.0.1:${await freePort()}`));
  const settings = { SIDECAR_PROBE_LISTEN: probes!, SIDECAR_HTTP_LISTEN: http!, SIDECAR_GRPC_LISTEN: grpc! };
  const sidecar = startCommand([], { DATABASE_URL: url, SIDECAR_DATABASE_WAIT: '2m', ...settings });
  return { sidecar, pages: [probes!, http!], grpc: grpc! };
};

test('while a database is waited for, every page gives the same reason, and `Watch` tells when calls are let in', async () => {
  const database = await createDatabase();
  const network = await startNetwork(database.url);
  network.redirect(`postgresql://127.0.0.1:${await freePort()}`);
  const { sidecar, pages, grpc } = await startKnown(network.url);
  for (const at of pages) {
    await vi.waitFor(async () => expect(await page(at, '/live')).toEqual(LIVE));
    expect(await page(at, '/started')).toEqual(NOT_STARTED);
    expect(await page(at, '/ready')).toEqual(notReady('it is being started'));
  }
  const caller = grpcCaller(grpc);
  const told: unknown[] = [];
  for await (const news of caller.stream(Health.method.watch, { service: 'startup' })) {
    told.push(news);
    if (told.length === 2) break;
    network.redirect(database.url);
  }
  expect(told).toMatchObject([NOT_SERVING, SERVING]);
  caller.close();
  for (const at of pages) {
    expect(await page(at, '/started')).toEqual(STARTED);
    await vi.waitFor(async () => expect(await page(at, '/ready')).toEqual(READY));
  }
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  await network.close();
  await database.drop();
});

// Story: the sidecar of a pod whose database had become read-only was killed every 150 s, and its engine never started.
test('a database that takes no writes keeps no start back: reads are answered', async () => {
  const database = await createDatabase();
  const pool = openPool(database.url, 1);
  await pool.query(`alter database ${new URL(database.url).pathname.slice(1)} set default_transaction_read_only = on`);
  await pool.end();
  const { sidecar, pages, grpc } = await startKnown(database.url);
  await sidecar.serving();
  for (const at of pages) {
    expect(await page(at, '/started')).toEqual(STARTED);
    expect(await page(at, '/ready')).toMatchObject({ status: 503, text: expect.stringContaining('takes no writes') });
  }
  const caller = grpcCaller(grpc);
  expect(await caller.unary(Health.method.check, { service: 'startup' })).toMatchObject(SERVING);
  expect(await caller.unary(Health.method.check, {})).toMatchObject(NOT_SERVING);
  await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
  caller.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  await database.drop();
});

test('a port that cannot be had ends the start with one line', async () => {
  const sidecar = startCommand(['--probe-listen', '203.0.113.1:1'], {});
  expect(await sidecar.ended).toBe(5);
  expect(sidecar.err()).toBe(
    'policy-sidecar: cannot listen on 203.0.113.1:1: this machine does not have that address\n',
  );
});

// Story: numbers that were asked for while the process ended, when nobody collects them any more, ended it with a stack.
test('a page that cannot be made is told as that', async () => {
  const probes = await listenProbes(`127.0.0.1:${await freePort()}`, {
    '/metrics': () => Promise.reject(new Error('nobody collects any more')),
  });
  try {
    expect(await page(probes.address, '/metrics')).toEqual({ status: 503, text: 'this cannot be told now\n' });
  } finally {
    await probes.close();
  }
});
