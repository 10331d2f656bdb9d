import { once } from 'node:events';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CONNECTION_LIMITS } from '../../src/server/connections.ts';
import { type CallError, type Caller, connectCaller, grpcCaller } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { watchLag } from '../support/lag.ts';
import { freePort } from '../support/port.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useDatabase } from '../support/use.ts';
import { openH2, rawCall } from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const RESET = PolicyEngineService.method.resetRiskCeiling;
const NOBODY = { ceilingId: '00000000-0000-0000-0000-000000000001' };
const tx = TransactionService.method;

const KINDS = ['gRPC', 'Connect over HTTP/1.1', 'Connect over HTTP/2'] as const;
type Kind = (typeof KINDS)[number];
const callerOf = (kind: Kind, address: { readonly grpc: string; readonly http: string }): Caller =>
  kind === 'gRPC'
    ? grpcCaller(address.grpc)
    : connectCaller(address.http, true, undefined, { httpVersion: kind === 'Connect over HTTP/2' ? '2' : '1.1' });

const database = useDatabase();
afterEach(endAll);

/** A piece of an application's work: a read, a write, a transaction of its own. */
const work = async (caller: Caller): Promise<void> => {
  await caller.unary(READ, {});
  await caller.unary(RESET, NOBODY, { transaction: 'single-use' });
  const { transaction } = await caller.unary(tx.begin, {});
  await caller.unary(RESET, NOBODY, { transaction: transaction!.id! });
  await caller.unary(tx.commit, {}, { transaction: transaction!.id! });
};

const serve = async (...args: string[]) => {
  const probes = `127.0.0.1:${await freePort()}`;
  const all = ['--probe-listen', probes, ...args];
  const sidecar = startCommand(all, { DATABASE_URL: database.url });
  return { sidecar, address: { ...(await sidecar.serving()), probes } };
};

/** Time from a signal to the end. */
const ends = async (sidecar: Command, since: number): Promise<number> => {
  expect(await sidecar.ended, sidecar.err()).toBe(0);
  return performance.now() - since;
};

describe('SIDECAR_DRAIN=linger', () => {
  test.each(KINDS)('%s: work goes on after the signal, and the end comes when it has gone', async (kind) => {
    const { sidecar, address } = await serve('--drain', 'linger', '--drain-timeout', '60s');
    const caller = callerOf(kind, address);
    await work(caller);
    const open = await caller.unary(tx.begin, {});
    const told: number[] = [];
    const watcher = grpcCaller(address.grpc);
    const leave = new AbortController();
    const watching = (async () => {
      for await (const { status } of watcher.stream(Health.method.watch, {}, { signal: leave.signal }))
        told.push(status);
    })().catch(() => {});
    await vi.waitFor(() => expect(told).toEqual([1]));

    const signalled = performance.now();
    sidecar.child.kill('SIGTERM');
    await vi.waitFor(() => expect(told).toEqual([1, 2]));
    const ready = await fetch(`http://${address.probes}/ready`, { headers: { connection: 'close' } });
    expect([ready.status, await ready.text()]).toEqual([503, 'not ready: it is being shut down\n']);
    for (const path of ['live', 'started']) {
      const page = await fetch(`http://${address.probes}/${path}`, { headers: { connection: 'close' } });
      expect(page.status).toBe(200);
    }

    // Twice as long as callers must be gone to be taken for it, on the connection of before and on new ones.
    for (const until = performance.now() + 2_000; performance.now() < until; ) {
      await work(caller);
      const anew = callerOf(kind, address);
      await work(anew);
      anew.close();
    }
    await caller.unary(RESET, NOBODY, { transaction: open.transaction!.id! });
    await caller.unary(tx.commit, {}, { transaction: open.transaction!.id! });
    expect(sidecar.child.exitCode).toBeNull();

    caller.close();
    leave.abort();
    await watching;
    watcher.close();
    expect(await ends(sidecar, signalled)).toBeLessThan(60_000);
  });

  test('without a caller it ends at once', async () => {
    const { sidecar } = await serve('--drain', 'linger', '--drain-timeout', '60s');
    const signalled = performance.now();
    sidecar.child.kill('SIGTERM');
    expect(await ends(sidecar, signalled)).toBeLessThan(30_000);
  });

  test('a caller that stays is served until the drain time ends, and then told by a GOAWAY', async () => {
    const { sidecar, address } = await serve('--drain', 'linger', '--drain-timeout', '2s');
    const sessions = [openH2(address.grpc), openH2(address.http)];
    const toldAt: number[] = [];
    for (const session of sessions) session.on('goaway', () => toldAt.push(performance.now()));
    for (const session of sessions) expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    await rawCall(sessions[0]!, tx.begin, {});
    const lagMs = watchLag();
    const signalled = performance.now();
    sidecar.child.kill('SIGTERM');
    while (performance.now() < signalled + 1_500) {
      for (const session of sessions) expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    }
    expect(toldAt).toEqual([]);
    const ms = await ends(sidecar, signalled);
    expect(ms).toBeGreaterThan(2_000);
    expect(ms).toBeLessThan(3_000 + 2 * lagMs());
    expect(toldAt.length).toBeGreaterThanOrEqual(2);
    for (const session of sessions) session.destroy();
  });
});

describe('SIDECAR_DRAIN=finish', () => {
  test('an open transaction may be finished, a new one is not begun, and the end comes with it', async () => {
    const { sidecar, address } = await serve('--drain-timeout', '60s');
    const callers = KINDS.map((kind) => callerOf(kind, address));
    const open = await Promise.all(callers.map((caller) => caller.unary(tx.begin, {})));
    const signalled = performance.now();
    sidecar.child.kill('SIGTERM');
    await vi.waitFor(async () => expect((await callers[0]!.unary(Health.method.check, {})).status).toBe(2));
    for (const [index, caller] of callers.entries()) {
      await expect(caller.unary(tx.begin, {})).rejects.toMatchObject({ reason: 'SHUTTING_DOWN' });
      const transaction = open[index]!.transaction!.id!;
      await caller.unary(RESET, NOBODY, { transaction });
      await caller.unary(tx.commit, {}, { transaction });
    }
    expect(await ends(sidecar, signalled)).toBeLessThan(60_000);
    for (const caller of callers) caller.close();
  });
});

describe.each(KINDS)('%s: a call that crosses the end of its connection', (kind) => {
  test.each([
    ['by age', { ageMs: 100 }],
    ['for want of calls', { idleMs: 20 }],
  ])('%s is answered, or refused before anything of it ran', async (_what, limits) => {
    const own = await startTestSidecar({}, database.url, { ...CONNECTION_LIMITS, ...limits });
    const address = { grpc: own.server.grpcAddress, http: own.server.httpAddress! };
    const callers = Array.from({ length: 4 }, () => callerOf(kind, address));
    const until = performance.now() + 2_000;
    let answered = 0;
    await Promise.all(
      callers.map(async (caller, index) => {
        while (performance.now() < until) {
          const refused = await caller.unary(READ, {}).then(
            () => undefined,
            (error: CallError) => error,
          );
          if (!refused) answered += 1;
          // HTTP/1.1 is told with the answer before; libraries of gRPC try again, but for two such ends in a row.
          else if (kind === 'Connect over HTTP/2') expect(refused.message).toMatch(/REFUSED_STREAM|GOAWAY/);
          else expect([kind, refused.code, refused.reason]).toEqual([kind, 'UNAVAILABLE', undefined]);
          if (kind === 'Connect over HTTP/1.1' && 'ageMs' in limits) expect(refused).toBeUndefined();
          // About as long as a connection may be idle: the one that asks and the one that closes meet.
          if ('idleMs' in limits) await new Promise((resolve) => setTimeout(resolve, 17 + index * 2));
        }
      }),
    );
    const calls = own.log().filter(({ method }) => method === 'PolicyEngineService/FetchRiskCeilings');
    expect(calls).toHaveLength(answered);
    expect(answered).toBeGreaterThan(callers.length);
    expect(new Set(calls.map(({ peer }) => peer)).size).toBeGreaterThan(callers.length);
    for (const caller of callers) caller.close();
    await own.stop();
  });
});

test('a stream outlasts the age of its connection', async () => {
  const own = await startTestSidecar({}, database.url, { ...CONNECTION_LIMITS, ageMs: 100 });
  const leave = new AbortController();
  const states: unknown[] = [];
  const held = (async () => {
    for await (const { transaction } of own.grpc.stream(tx.hold, {}, { signal: leave.signal })) {
      states.push(transaction);
    }
  })().catch(() => {});
  await vi.waitFor(() => expect(states).toHaveLength(1));
  const peers = () =>
    new Set(own.log().flatMap(({ method, peer }) => (method === 'TransactionService/List' ? [peer] : [])));
  const list = async (): Promise<number> => (await own.grpc.unary(tx.list, {})).transactions.length;
  await vi.waitFor(async () => {
    expect(await list()).toBe(1);
    expect(peers().size).toBeGreaterThan(2);
  });
  leave.abort();
  await held;
  await vi.waitFor(async () => expect(await list()).toBe(0));
  await own.stop();
});

test('calls under way on one connection are as many as is set', async () => {
  const own = await startTestSidecar({ connectionStreams: 7 }, database.url);
  for (const address of [own.server.grpcAddress, own.server.httpAddress!]) {
    const session = openH2(address);
    await once(session, 'remoteSettings');
    expect(session.remoteSettings.maxConcurrentStreams).toBe(7);
    session.destroy();
  }
  await own.stop();
});
