import { beforeAll, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { startNetwork } from '../support/network.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';
import { pathOf } from '../support/wire.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const QUEUE = 3;

const sidecar = useSidecar({ transactionQueue: QUEUE, lockTimeoutMs: 30_000 });
/** A person at the database, who holds a lock. */
const person = useClient(() => sidecar.url);
let ceilingId: string;
beforeAll(async () => {
  const { rows } = await person.query('select id from policy.risk_ceilings limit 1');
  ceilingId = rows[0].id;
});

const begin = async (on = sidecar) => (await on.grpc.unary(tx.begin, {})).transaction!.id!;
const rollBack = (transactionId: string) => sidecar.grpc.unary(tx.rollback, { transactionId });
const reset = (transaction: string) => sidecar.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, { transaction });
const read = (transaction: string, init = {}) =>
  sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction, ...init });
const pending = async (): Promise<number> => (await sidecar.grpc.unary(tx.list, {})).transactions[0]!.pendingCalls;

/** Runs work while the row is locked; what waits for it goes on after that. */
const locked = (work: Locked): Promise<void> =>
  whileLocked(person, 'select from policy.risk_ceilings for update', work);

/** One call of a transaction keeps the others waiting meanwhile. */
const occupied = async (transaction: string, work: () => Promise<void>): Promise<void> => {
  let running: Promise<unknown> = Promise.resolve();
  await locked(async () => {
    running = reset(transaction);
    await vi.waitFor(async () => expect((await person.query(WAITING_FOR_LOCK)).rows).toHaveLength(1));
    await work();
  });
  await running;
};

// Story: behind one slow statement calls whose deadlines had passed stayed in the queue, and living ones were refused.
test('a call that has ended gives its place in the queue back', async () => {
  const transaction = await begin();
  const living: Promise<unknown>[] = [];
  await occupied(transaction, async () => {
    for (let round = 0; round < 2; round += 1) {
      const dying = Array.from({ length: QUEUE }, () => refusal(read(transaction, { timeoutMs: 100 })));
      for (const { code } of await Promise.all(dying)) expect(code).toBe('DEADLINE_EXCEEDED');
      await vi.waitFor(async () => expect(await pending()).toBe(1));
    }
    for (let count = 0; count < QUEUE; count += 1) living.push(read(transaction));
    await vi.waitFor(async () => expect(await pending()).toBe(1 + QUEUE));
  });
  await Promise.all(living);
  await rollBack(transaction);
});

// Story: over HTTP a call was told of its deadline when its turn came; and one with a number was told so for ever,
// although it had never run.
test('a call that waits for its turn ends by its clock over HTTP, too, and may be sent again under its number', async () => {
  const transaction = await begin();
  const headers = { 'transaction-sequence': '1' };
  await occupied(transaction, async () => {
    const response = await fetch(`http://${sidecar.server.httpAddress}${pathOf(rpc.fetchRiskCeilings)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'connect-timeout-ms': '200', transaction, ...headers },
      body: '{}',
    });
    expect(await response.json()).toMatchObject({ code: 'deadline_exceeded' });
    await vi.waitFor(async () => expect(await pending()).toBe(1));
  });
  expect((await read(transaction, { headers })).riskCeilings.length).toBeGreaterThan(0);
  await rollBack(transaction);
});

// Story: those behind a call that had left did not wait for the one before it, once its place was given back.
test('calls behind one that has left still come one at a time', async () => {
  const transaction = await begin();
  let written: Promise<unknown> = Promise.resolve();
  const row = violation();
  await occupied(transaction, async () => {
    await refusal(read(transaction, { timeoutMs: 100 }));
    await vi.waitFor(async () => expect(await pending()).toBe(1));
    written = sidecar.grpc.unary(rpc.insertViolation, row, { transaction });
    await vi.waitFor(async () => expect(await pending()).toBe(2));
  });
  await written;
  await sidecar.grpc.unary(tx.commit, { transactionId: transaction });
  const { violation: found } = await sidecar.grpc.unary(rpc.fetchViolationById, { violationId: row.violationId });
  expect(found?.id).toBe(row.violationId);
});

// Story: a stream was refused its next rows, and even its end, by the queue that it had made its way through at its start.
test('a full queue keeps no stream from its rows', async () => {
  // More than lies between a server and a reader who does not read.
  await person.query(
    `insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
     select 'a', 'b', 'x', repeat(n::text, 1000) from generate_series(1000, 7000) n`,
  );
  const transaction = await begin();
  const stream = sidecar.grpc.stream(rpc.streamConflicts, {}, { transaction })[Symbol.asyncIterator]();
  expect((await stream.next()).done).toBe(false);
  let rest: Promise<unknown[]> = Promise.resolve([]);
  const waiting: Promise<unknown>[] = [];
  await occupied(transaction, async () => {
    for (let count = 0; count < QUEUE; count += 1) waiting.push(read(transaction));
    await vi.waitFor(async () => expect(await pending()).toBe(1 + QUEUE));
    rest = collect({ [Symbol.asyncIterator]: () => stream });
    await vi.waitFor(async () => expect(await pending()).toBe(2 + QUEUE));
  });
  expect(await rest).toHaveLength(6_000);
  await Promise.all(waiting);
  await rollBack(transaction);
});

// Story: a part was refused for a full queue, and for the same full queue it could not be undone.
test('a full queue keeps nobody from undoing a part', async () => {
  const transaction = await begin();
  const part = { transactionId: transaction, name: 'part' };
  await sidecar.grpc.unary(tx.savepoint, part);
  const waiting: Promise<unknown>[] = [];
  await occupied(transaction, async () => {
    for (let count = 0; count < QUEUE; count += 1) waiting.push(read(transaction));
    await vi.waitFor(async () => expect(await pending()).toBe(1 + QUEUE));
    expect(await refusal(read(transaction))).toMatchObject({ reason: 'TRANSACTION_QUEUE_FULL' });
    waiting.push(sidecar.grpc.unary(tx.rollbackToSavepoint, part));
    await vi.waitFor(async () => expect(await pending()).toBe(2 + QUEUE));
  });
  await Promise.all(waiting);
  await rollBack(transaction);
});

// Story: each of a hundred operations that were under way asked for itself that the statement be stopped, at once: a hundred
// connections to a database that was late because of its load.
test('a list that is late is stopped by one request', async () => {
  const network = await startNetwork(sidecar.url);
  const own = await startTestSidecar({ lockTimeoutMs: 30_000 }, network.url);
  try {
    const transaction = await begin(own);
    const operation = { request: { case: 'resetRiskCeiling' as const, value: { ceilingId } } };
    await locked(async () => {
      const operations = Array.from({ length: 50 }, () => operation);
      const late = own.grpc.unary(tx.execute, { operations }, { transaction, timeoutMs: 500 });
      expect(await refusal(late)).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    });
    // The transaction goes on as if nothing had been tried.
    const { riskCeilings } = await own.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction });
    expect(riskCeilings.length).toBeGreaterThan(0);
    expect(network.cancels).toBeGreaterThan(0);
    expect(network.cancels).toBeLessThan(5);
  } finally {
    await own.stop();
    await network.close();
  }
});

// Story: a list that failed kept what came after it from being prepared, and that was taken for a server that forgets: all
// connections were left, and after the second time nothing was prepared any more for as long as the process lived.
test('a list that fails says nothing of what the server keeps', async () => {
  const own = await startTestSidecar({ poolMax: 1 }, sidecar.url);
  const backends = async (): Promise<number[]> => {
    const rows = await sidecar.sql<{ pid: number }>(
      `select pid from pg_stat_activity
       where datname = current_database() and application_name = 'policy-sidecar call' order by backend_start`,
    );
    return rows.map(({ pid }) => pid);
  };
  try {
    const row = violation();
    const insert = { request: { case: 'insertViolation' as const, value: row } };
    const detect = {
      request: {
        case: 'insertConflict' as const,
        value: { policyA: 'a', policyB: 'b', conflictType: 'x', severity: 0.5, description: 'd' },
      },
    };
    await own.grpc.unary(rpc.fetchRiskCeilings, {});
    const before = (await backends()).at(-1);
    for (let round = 0; round < 3; round += 1) {
      const failing = own.grpc.unary(tx.execute, { operations: [insert, insert, detect, detect] });
      expect(await refusal(failing)).toMatchObject({ reason: 'UNIQUE_VIOLATION', metadata: { operation: '1' } });
      await own.grpc.unary(rpc.fetchRiskCeilings, {});
      expect((await backends()).at(-1)).toBe(before);
    }
  } finally {
    await own.stop();
  }
});
