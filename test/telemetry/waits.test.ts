import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type Caller, grpcCaller, refusal } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { freePort } from '../support/port.ts';
import { useClient, useDatabase } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const database = useDatabase();
/** Who holds a lock that all writes wait for. */
const holder = useClient(() => database.url);
const stormy = (work: Locked): Promise<void> =>
  whileLocked(holder, 'lock table policy.violations in exclusive mode', work);

let sidecar: Command;
let caller: Caller;
let probes: string;
beforeAll(async () => {
  probes = `127.0.0.1:${await freePort()}`;
  // Of three connections writes leave one to reads.
  const pool = ['--pool-max', '3', '--pool-wait', '1s', '--pool-queue', '1', '--transactions-max', '1'];
  sidecar = startCommand(['serve', '--probe-listen', probes, ...pool], { DATABASE_URL: database.url });
  caller = grpcCaller((await sidecar.serving()).grpc);
});
afterAll(async () => {
  caller?.close();
  await endAll();
});

const metrics = async () => (await fetch(`http://${probes}/metrics`)).text();

/** A number as it is told now; 0 before its first event. */
const told = async (name: string, label: string): Promise<number> => {
  const line = (await metrics()).split('\n').find((each) => each.startsWith(`${name}{`) && each.includes(label));
  return Number(line?.split(' ').at(-1) ?? 0);
};
const becomes = (name: string, label: string, value: number) =>
  vi.waitFor(async () => expect(await told(name, label)).toBe(value));

const LANE = 'pool_name="call"';
const numbers = async () => ({
  timeouts: await told('db_client_connection_timeouts_total', LANE),
  lent: await told('db_client_connection_wait_time_count', LANE),
  late: await told('policy_sidecar_call_failures_total', '"CONNECTION_WAIT_TIMEOUT"'),
  full: await told('policy_sidecar_call_failures_total', '"CONNECTION_QUEUE_FULL"'),
});

const WRITES = {
  'a single-use write': (timeoutMs?: number) =>
    caller.unary(rpc.insertViolation, violation(), { transaction: 'single-use', ...(timeoutMs ? { timeoutMs } : {}) }),
  'an Execute': (timeoutMs?: number) =>
    caller.unary(
      tx.execute,
      { operations: [{ request: { case: 'insertViolation', value: violation() } }] },
      timeoutMs ? { timeoutMs } : {},
    ),
};

// Story: writes wait for their share of the connections before they wait for one, and only the second wait was told: in a storm of
// locks no number moved.
test.each(Object.entries(WRITES))(
  '%s that gets no connection in time counts, and so does a full queue',
  async (_, write) => {
    const before = await numbers();
    await stormy(async (unlock) => {
      const held = [write(), write()];
      await becomes('db_client_connection_count', `${LANE},db_client_connection_state="used"`, 2);
      const refused = await Promise.all([refusal(write()), refusal(write())]);
      expect(refused.map(({ reason }) => reason).sort()).toEqual(['CONNECTION_QUEUE_FULL', 'CONNECTION_WAIT_TIMEOUT']);
      await unlock();
      await Promise.all(held);
    });
    // Who is answered was lent one connection, whatever it passed on its way there.
    expect(await numbers()).toEqual({
      timeouts: before.timeouts + 1,
      lent: before.lent + 2,
      late: before.late + 1,
      full: before.full + 1,
    });
  },
);

test.each(Object.entries(WRITES))('%s whose deadline ends its wait counts, too', async (_, write) => {
  const { timeouts, late } = await numbers();
  await stormy(async (unlock) => {
    const held = [write(), write()];
    await becomes('db_client_connection_count', `${LANE},db_client_connection_state="used"`, 2);
    expect((await refusal(write(300))).code).toBe('DEADLINE_EXCEEDED');
    await becomes('db_client_connection_timeouts_total', LANE, timeouts + 1);
    expect((await numbers()).late).toBe(late);
    await unlock();
    await Promise.all(held);
  });
});

test('a write that waits and then gets a connection was lent one', async () => {
  const { lent, timeouts } = await numbers();
  await stormy(async (unlock) => {
    const write = WRITES['a single-use write'];
    const held = [write(), write()];
    await becomes('db_client_connection_count', `${LANE},db_client_connection_state="used"`, 2);
    const third = write();
    await becomes('policy_sidecar_queue_depth', 'queue="write"', 1);
    await unlock();
    await Promise.all([...held, third]);
  });
  expect(await numbers()).toMatchObject({ lent: lent + 3, timeouts });
});

test('whoever holds all transactions and wants another counts', async () => {
  const { transaction } = await caller.unary(tx.begin, {});
  expect((await refusal(caller.unary(tx.begin, {}))).reason).toBe('TRANSACTION_LIMIT');
  await caller.unary(tx.rollback, { transactionId: transaction!.id! });
  expect(await told('policy_sidecar_call_failures_total', '"TRANSACTION_LIMIT"')).toBe(1);
});

test('readiness is a number, and a refused call one of its reason', async () => {
  expect(await metrics()).toMatch(/^policy_sidecar_ready 1$/m);
  const { reason } = await refusal(caller.unary(rpc.insertViolation, violation()));
  expect(await told('policy_sidecar_call_failures_total', `"${reason}"`)).toBe(1);
});
