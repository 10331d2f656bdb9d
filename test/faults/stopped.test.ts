import { describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { startCluster } from '../support/cluster.ts';
import { watchLag } from '../support/lag.ts';
import { startNetwork } from '../support/network.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { useStarted } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const SERVING = 1;
const NOT_SERVING = 2;
const CALL_TIMEOUT_MS = 3_000;
const DRAIN_MS = 1_000;
/** What an answer may take beyond its deadline, and beyond what this process has been kept from doing anything at all. */
const GRACE_MS = 250;

const cluster = useStarted(startCluster, ({ stop }) => stop());
const network = useStarted(
  () => startNetwork(cluster.url),
  ({ close }) => close(),
);

const kinds = [
  { name: 'PostgreSQL stands still', break: () => cluster.freeze(), mend: () => cluster.thaw() },
  { name: 'its packets are swallowed', break: () => network.swallow(), mend: () => network.heal() },
];

const start = (): Promise<TestSidecar> =>
  startTestSidecar({ callTimeoutMs: CALL_TIMEOUT_MS, drainTimeoutMs: DRAIN_MS }, network.url);

/** The sidecar's own word on how long a call took: the client of this test shares a busy processor with everybody. */
const tookMs = (sidecar: TestSidecar, method: string): number[] =>
  sidecar
    .log()
    .filter((line) => line['method'] === method && line['code'] !== 'OK')
    .map((line) => line['ms'] as number);

// Story: with every process of PostgreSQL stopped, or its packets dropped, health said SERVING for as long as it lasted, a
// call with a deadline of 1 s was answered after 6 s or never, and SIGTERM did not end the process: every wait asked for a
// cancel and then waited for the query all the same.
describe.each(kinds)('while $name', (kind) => {
  test('health tells, every call ends by its clock, and all of it heals', async () => {
    const sidecar = await start();
    const caller = sidecar.grpc;
    const begin = async () => (await caller.unary(tx.begin, {})).transaction!.id!;
    const insert = (transaction: string, timeoutMs?: number) =>
      caller.unary(rpc.insertViolation, violation(), { transaction, ...(timeoutMs ? { timeoutMs } : {}) });
    const check = async (service = '') => (await caller.unary(Health.method.check, { service })).status;

    await Promise.all(Array.from({ length: 12 }, () => caller.unary(rpc.fetchRiskCeilings, {})));
    const [used, committing, listed, idle] = [await begin(), await begin(), await begin(), await begin()];
    for (const id of [used, committing, listed]) await insert(id);
    const told: number[] = [];
    const watching = new AbortController();
    const watched = (async () => {
      for await (const { status } of caller.stream(Health.method.watch, {}, { signal: watching.signal }))
        told.push(status);
    })().catch(() => {});
    await vi.waitFor(() => expect(told).toEqual([SERVING]));

    const operations = [{ request: { case: 'insertViolation' as const, value: violation() } }];
    const lagMs = watchLag();
    const graceMs = (): number => GRACE_MS + 2 * lagMs();
    kind.break();
    try {
      const broken = performance.now();
      const calls = [
        ...Array.from({ length: 12 }, () => refusal(caller.unary(rpc.fetchRiskCeilings, {}, { timeoutMs: 1_000 }))),
        refusal(insert('single-use', 1_000)),
        refusal(insert(used, 1_000)),
        // The savepoint of a list is under way with its first operation.
        refusal(caller.unary(tx.execute, { operations }, { transaction: listed, timeoutMs: 1_000 })),
      ];
      const commit = refusal(caller.unary(tx.commit, { transactionId: committing }, { timeoutMs: 1_000 }));
      const unlimited = refusal(caller.unary(rpc.fetchRiskCeilings, {}));
      // Who asks again while that commit is still under way was told that the transaction had been lost long ago.
      await commit;
      for (const end of [tx.commit, tx.rollback]) {
        const { code, reason } = await refusal(caller.unary(end, { transactionId: committing }, { timeoutMs: 1_000 }));
        if (code !== 'DEADLINE_EXCEEDED') expect(reason).toMatch(/^(COMMIT|TRANSACTION)_OUTCOME_UNKNOWN$/);
      }
      // Those behind them wait for a connection that nobody gives back.
      const codes = ['DEADLINE_EXCEEDED', 'UNAVAILABLE', 'RESOURCE_EXHAUSTED'];
      for (const { code } of await Promise.all([...calls, commit, unlimited])) expect(codes).toContain(code);
      await vi.waitFor(async () => expect(await check()).toBe(NOT_SERVING), { timeout: 10_000, interval: 50 });
      await vi.waitFor(() => expect(told).toEqual([SERVING, NOT_SERVING]));
      const unusable = sidecar.log().find(({ msg }) => String(msg).includes('NOT_SERVING'))!;
      expect(Date.parse(unusable['time'] as string) - (performance.timeOrigin + broken)).toBeLessThan(
        5_000 + graceMs(),
      );
      expect(await check('hoc.cus.policies.v1.PolicyEngineService')).toBe(NOT_SERVING);
      for (const [method, limitMs] of [
        ['PolicyEngineService/InsertViolation', 1_000],
        ['TransactionService/Commit', 1_000],
        ['PolicyEngineService/FetchRiskCeilings', CALL_TIMEOUT_MS],
      ] as const) {
        const took = tookMs(sidecar, method);
        expect(took, method).not.toEqual([]);
        expect(Math.max(...took), method).toBeLessThan(limitMs + graceMs());
      }
      // One that lay idle is not known to be lost yet: its next call is told, and so is everybody who rolls back.
      const rollback = caller.unary(tx.rollback, { transactionId: idle }, { timeoutMs: 5_000 });
      await rollback;
    } finally {
      kind.mend();
    }

    await vi.waitFor(async () => expect(await check()).toBe(SERVING), { timeout: 10_000, interval: 50 });
    await vi.waitFor(() => expect(told.at(-1)).toBe(SERVING));
    watching.abort();
    await watched;
    // No slot is lost: all of them can be had at once. A busy machine may take longer to connect than a call waits.
    const again = await Promise.all(Array.from({ length: 20 }, () => vi.waitFor(begin)));
    await Promise.all(again.map((id) => insert(id)));
    await Promise.all(again.map((transactionId) => caller.unary(tx.rollback, { transactionId })));
    const read = () => caller.unary(rpc.fetchRiskCeilings, {});
    await Promise.all(Array.from({ length: 30 }, () => vi.waitFor(read)));
    await Promise.all(Array.from({ length: 30 }, () => vi.waitFor(() => insert('single-use'))));
    await vi.waitFor(async () => expect((await caller.unary(tx.list, {})).transactions).toEqual([]));
    expect(sidecar.log().filter(({ code }) => code === 'INTERNAL')).toEqual([]);
    await sidecar.stop();
  }, 60_000);

  test('the sidecar ends within its drain time', async () => {
    const sidecar = await start();
    const id = (await sidecar.grpc.unary(tx.begin, {})).transaction!.id!;
    await sidecar.grpc.unary(rpc.insertViolation, violation(), { transaction: id });
    const hung = [
      refusal(sidecar.grpc.unary(rpc.fetchRiskCeilings, {})),
      refusal(sidecar.grpc.unary(rpc.insertViolation, violation(), { transaction: 'single-use' })),
    ];
    kind.break();
    try {
      const lagMs = watchLag();
      const began = performance.now();
      await sidecar.server.stop();
      expect(performance.now() - began).toBeLessThan(DRAIN_MS + 1_000 + 2 * lagMs());
      await Promise.all(hung.map((call) => call.catch(() => {})));
    } finally {
      kind.mend();
    }
    await sidecar.discard();
  }, 60_000);
});
