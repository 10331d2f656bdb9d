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
import { useDatabase, useStarted } from '../support/use.ts';

const SERVING = { status: 1 };
const NOT_SERVING = { status: 2 };

/** Status and text of a page; undefined while nobody listens. */
const page = async (address: string, path: string, method = 'GET') => {
  const response = await fetch(`http://${address}${path}`, { method }).catch(() => undefined);
  return response && { status: response.status, text: await response.text() };
};

const LIVE = { status: 200, text: 'live\n' };
const READY = { status: 200, text: 'ready\n' };
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
    expect(sidecar.out()).toContain(`probes    ${probes} (/live, /ready)\n`);
  });

  test.each(['the port of the probes', 'the HTTP port'])('%s tells that it lives and is ready', async (which) => {
    const at = which === 'the HTTP port' ? address.http : probes;
    expect(await page(at, '/live')).toEqual(LIVE);
    expect(await page(at, '/ready')).toEqual(READY);
    expect(await page(at, '/ready?verbose')).toEqual(READY);
    expect(await page(at, '/ready', 'HEAD')).toEqual({ status: 200, text: '' });
    expect(await page(at, '/other')).toMatchObject({ status: 404 });
    expect(await page(at, '/ready', 'DELETE')).toMatchObject({ status: 404 });
  });

  test('the port of the probes takes no calls', async () => {
    const caller = connectCaller(probes);
    const error = await refusal(caller.unary(PolicyEngineService.method.fetchRiskCeilings, {}));
    expect(error.code).toBe('UNIMPLEMENTED');
  });

  test.each(['grpc', 'connect'] as const)('%s: health lists the process, the server and the services', async (kind) => {
    const caller = kind === 'grpc' ? grpcCaller(address.grpc) : connectCaller(address.http);
    const { statuses } = await caller.unary(Health.method.list, {});
    expect(Object.keys(statuses)).toEqual(
      expect.arrayContaining(['', 'liveness', 'readiness', Health.typeName, PolicyEngineService.typeName]),
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
    }
    const { statuses } = await caller.unary(Health.method.list, {});
    expect(statuses).toMatchObject({
      '': NOT_SERVING,
      liveness: SERVING,
      readiness: NOT_SERVING,
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
  await sidecar.serving();
  expect(await page(probes, '/ready')).toEqual(READY);
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  expect(await page(probes, '/live')).toBeUndefined();
  await rm(folder, { recursive: true, force: true });
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
