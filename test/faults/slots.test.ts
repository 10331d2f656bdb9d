import { randomUUID } from 'node:crypto';
import { durationFromMs, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService, TransactionState } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;
const single = { transaction: 'single-use' };

const SLOTS = 4;
const QUEUE = 2;
const IDLE_LEASE_MS = 1_500;

const sidecar = useSidecar({
  transactionsMax: SLOTS,
  transactionQueue: QUEUE,
  transactionIdleLeaseMs: IDLE_LEASE_MS,
  poolMax: 4,
  poolWaitMs: 5_000,
  lockTimeoutMs: 20_000,
});
/** A person at the database, who holds locks. */
const person = useClient(() => sidecar.url);
let ceilingId: string;
beforeAll(async () => {
  const { rows } = await person.query('select id from policy.risk_ceilings limit 1');
  ceilingId = rows[0].id;
  // More than lies between a server and a reader who does not read.
  await person.query(
    `insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
     select 'a', 'b', 'x', repeat(n::text, 1000) from generate_series(1000, 7000) n`,
  );
});

const list = async () => (await sidecar.grpc.unary(tx.list, {})).transactions;
const backends = async (condition: string): Promise<number[]> => {
  const rows = await sidecar.sql<{ pid: number }>(
    `select pid from pg_stat_activity where datname = current_database()
     and application_name like 'policy-sidecar %' and ${condition}`,
  );
  return rows.map(({ pid }) => pid);
};

// Nothing is left after any of this: no open transaction, no backend in one, no connection lent.
afterEach(async () => {
  await vi.waitFor(async () => {
    expect(await list()).toHaveLength(0);
    expect(await backends(`state <> 'idle'`)).toEqual([]);
  });
  const ids = await Promise.all(Array.from({ length: SLOTS }, () => begin()));
  await Promise.all(ids.map(rollBack));
});

const begin = async (signal?: AbortSignal) =>
  (await sidecar.grpc.unary(tx.begin, { idleLease: { seconds: 60n, nanos: 0 } }, signal ? { signal } : {})).transaction!
    .id!;
const rollBack = (transactionId: string) => sidecar.grpc.unary(tx.rollback, { transactionId });
const reset = (init = {}) => sidecar.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, init);
const read = (init = {}) => sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, init);

const locked = (work: Locked): Promise<void> =>
  whileLocked(person, 'select from policy.risk_ceilings for update', work);

// Story: twenty streams whose readers did not read held every transaction slot, without a lease, and List showed none.
describe.each(['grpc', 'connect'] as const)('streams outside transactions over %s', (listener) => {
  const open = async (signal: AbortSignal) => {
    const stream = sidecar[listener].stream(rpc.streamConflicts, {}, { signal });
    const reader = stream[Symbol.asyncIterator]();
    expect((await reader.next()).done).toBe(false);
    return reader;
  };
  const drain = async (reader: AsyncIterator<unknown>) => {
    for (let next = await reader.next(); !next.done; next = await reader.next());
  };

  // The client of the other port reads ahead, so that none of its streams is ever unread.
  test.runIf(listener === 'grpc')(
    'are listed with a lease, leave half of the slots, and end when nobody reads them',
    async () => {
      const leave = new AbortController();
      const unread = [await open(leave.signal), await open(leave.signal)];
      const listed = await list();
      expect(listed).toHaveLength(2);
      for (const transaction of listed) {
        expect(transaction).toMatchObject({
          label: 'stream PolicyEngineService/StreamConflicts',
          readOnly: true,
          state: TransactionState.OPEN,
        });
        expect(durationMs(transaction.idleLease!)).toBe(IDLE_LEASE_MS);
        expect(transaction.expiresAt).toBeDefined();
      }
      const error = await refusal(open(leave.signal));
      expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'STREAM_LIMIT' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
      const ids = await Promise.all(Array.from({ length: SLOTS / 2 }, () => begin()));
      await Promise.all(ids.map(rollBack));
      await vi.waitFor(async () => expect(await list()).toHaveLength(0), { timeout: 5_000 });
      // Their readers have not come back, and others stream meanwhile.
      const read = [await open(leave.signal), await open(leave.signal)];
      expect(read).toHaveLength(2);
      for (const reader of unread) {
        expect(await refusal(drain(reader))).toMatchObject({
          code: 'FAILED_PRECONDITION',
          reason: 'TRANSACTION_EXPIRED',
        });
      }
      leave.abort();
    },
  );

  test('end at once when their reader leaves', async () => {
    const leave = new AbortController();
    await open(leave.signal);
    await open(leave.signal);
    const left = performance.now();
    leave.abort();
    await vi.waitFor(async () => expect(await list()).toHaveLength(0), { interval: 10 });
    expect(performance.now() - left).toBeLessThan(IDLE_LEASE_MS / 2);
  });
});

// Story: callers that gave up while Begin waited left transactions behind that nobody knew, each for its idle lease.
test('a Begin whose caller has left leaves no transaction', async () => {
  const ids = await Promise.all(Array.from({ length: SLOTS }, () => begin()));
  await Promise.all(ids.map(rollBack));
  const pids = await backends(`application_name = 'policy-sidecar transaction'`);
  expect(pids).toHaveLength(SLOTS);
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  const leave = new AbortController();
  // The first wait for their backends, the others for a connection.
  const beginning = Array.from({ length: 2 * SLOTS }, () => refusal(begin(leave.signal)));
  try {
    // What was sent before has arrived when this is answered.
    await list();
    leave.abort();
    for (const error of await Promise.all(beginning)) expect(error.code).toBe('CANCELLED');
    await vi.waitFor(() =>
      expect(
        sidecar.log().filter(({ method, code }) => method === 'TransactionService/Begin' && code === 'CANCELLED'),
      ).toHaveLength(2 * SLOTS),
    );
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
  await vi.waitFor(async () => expect(await list()).toHaveLength(0));
});

// Story: a caller whose reads had filled the queue of its transaction could not end it.
test.each(['commit', 'rollback'] as const)(
  'a %s is taken although the queue of its transaction is full',
  async (end) => {
    const transaction = await begin();
    await locked(async (unlock) => {
      const running = reset({ transaction });
      await vi.waitFor(async () => expect(await backends(`wait_event_type = 'Lock'`)).toHaveLength(1));
      const waiting = Array.from({ length: QUEUE }, () => read({ transaction }));
      await vi.waitFor(async () => expect((await list())[0]!.pendingCalls).toBe(1 + QUEUE));
      expect(await refusal(read({ transaction }))).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'TRANSACTION_QUEUE_FULL',
      });
      const ending = sidecar.grpc.unary(tx[end], { transactionId: transaction });
      await vi.waitFor(async () => expect((await list())[0]!.pendingCalls).toBe(2 + QUEUE));
      await unlock();
      await Promise.all([running, ...waiting, ending]);
    });
    expect(await refusal(read({ transaction }))).toMatchObject({
      reason: end === 'commit' ? 'TRANSACTION_COMMITTED' : 'TRANSACTION_ROLLED_BACK',
    });
  },
);

const execution = () => ({
  operations: [{ request: { case: 'resetRiskCeiling' as const, value: { ceilingId } } }],
});

// Story: ten writes of one locked row, without deadline, kept every read waiting for as long as the lock was held.
test.each([
  ['single-use writes', (signal: AbortSignal) => reset({ ...single, signal })],
  [
    'writes with an idempotency key',
    (signal: AbortSignal) => reset({ ...single, signal, headers: { 'idempotency-key': randomUUID() } }),
  ],
  ['lists of operations', (signal: AbortSignal) => sidecar.grpc.unary(tx.execute, execution(), { signal })],
])('reads answer while %s wait for one row', async (_name, write) => {
  await locked(async () => {
    const leave = new AbortController();
    const stuck = Array.from({ length: 12 }, () => refusal(write(leave.signal)));
    await vi.waitFor(async () => expect(await backends(`wait_event_type = 'Lock'`)).toHaveLength(2), {
      timeout: 10_000,
    });
    const began = performance.now();
    for (let turn = 0; turn < 5; turn += 1) expect((await read()).riskCeilings.length).toBeGreaterThan(0);
    expect((await sidecar.grpc.unary(Health.method.check, {})).status).toBe(1);
    expect(performance.now() - began).toBeLessThan(2_000);
    leave.abort();
    for (const error of await Promise.all(stuck)) expect(error.code).toBe('CANCELLED');
  });
  expect((await reset(single)).rowsAffected).toBe(1n);
});

// Story: a Begin whose answer is lost is never told of to the sidecar: its slot was gone for the whole idle lease.
test('a transaction that is never used costs its slot for a moment, one that is used has its lease', async () => {
  const own = await startTestSidecar({ transactionFirstUseMs: 300 });
  const lease = { idleLease: durationFromMs(60_000) };
  const start = async () => (await own.grpc.unary(tx.begin, lease)).transaction!;
  const [unused, used] = [await start(), await start()];
  expect(durationMs(unused.idleLease!)).toBe(60_000);
  expect(timestampMs(unused.expiresAt!) - timestampMs(unused.beganAt!)).toBeLessThan(1_000);
  await own.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction: used.id! });
  const open = async () => (await own.grpc.unary(tx.list, {})).transactions;
  await vi.waitFor(async () => expect(await open()).toHaveLength(1), { timeout: 5_000 });
  const [rest] = await open();
  expect(rest!.id).toBe(used.id);
  expect(timestampMs(rest!.expiresAt!) - timestampMs(rest!.beganAt!)).toBeGreaterThan(50_000);
  const late = own.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction: unused.id! });
  expect(await refusal(late)).toMatchObject({ reason: 'TRANSACTION_EXPIRED' });
  await own.stop();
});
