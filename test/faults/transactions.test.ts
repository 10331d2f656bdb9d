import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { beforeEach, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useFolder, useSidecar } from '../support/use.ts';
import { violationWith } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const sidecar = useSidecar({ transactionsMax: 10, poolWaitMs: 5_000 });
const folder = useFolder();
beforeEach(() => sidecar.sql('truncate policy.violations'));

const violation = (description: string) => violationWith({ description });

const insert = (description: string, transaction: string) =>
  sidecar.grpc.unary(rpc.insertViolation, violation(description), { transaction });
const begin = async (request: object = {}) => (await sidecar.grpc.unary(tx.begin, request)).transaction!.id!;
const outcome = async (value: string) =>
  (await sidecar.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;
const stored = async () => (await sidecar.sql('select from policy.violations')).length;
const open = async () => (await sidecar.grpc.unary(tx.list, {})).transactions.length;
const backends = (name: string) =>
  sidecar.sql<{ pid: number; state: string }>(
    `select pid, state from pg_stat_activity where datname = current_database() and application_name = $1`,
    [`policy-sidecar ${name}`],
  );
const terminate = (name: string) =>
  sidecar.sql(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1`,
    [`policy-sidecar ${name}`],
  );

test('a terminated backend loses its transaction, and says so', async () => {
  const id = await begin();
  await insert('a', id);
  await terminate('transaction');
  await vi.waitFor(async () => expect(await open()).toBe(0));
  expect(await refusal(insert('b', id))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_LOST' });
  expect(await refusal(sidecar.grpc.unary(tx.commit, { transactionId: id }))).toMatchObject({
    reason: 'TRANSACTION_LOST',
  });
  expect(await outcome(id)).toBe(Outcome.ABORTED);
  expect(await stored()).toBe(0);
  const next = await begin();
  await insert('c', next);
  await sidecar.grpc.unary(tx.commit, { transactionId: next });
  expect(await stored()).toBe(1);
});

test('a backend terminated during a statement is UNAVAILABLE, and the next call works', async () => {
  const holder = await begin();
  const [row] = await sidecar.sql<{ id: string }>('select id from policy.risk_ceilings limit 1');
  const reset = (transaction: string) =>
    sidecar.grpc.unary(rpc.resetRiskCeiling, { ceilingId: row!.id }, { transaction });
  await reset(holder);
  const waiting = refusal(reset('single-use'));
  await vi.waitFor(async () =>
    expect((await backends('call')).filter(({ state }) => state === 'active')).toHaveLength(1),
  );
  await terminate('call');
  expect(await waiting).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
  await sidecar.grpc.unary(tx.rollback, { transactionId: holder });
  expect((await reset('single-use')).rowsAffected).toBe(1n);
});

// Story: a backend that died while its connection was idle was noticed only by the call that was lent it next, which
// failed although nothing had been done yet.
test.each([
  ['transaction', () => begin().then((transactionId) => sidecar.grpc.unary(tx.rollback, { transactionId }))],
  ['call', () => insert('a', 'single-use')],
  ['call', () => sidecar.grpc.unary(rpc.fetchRiskCeilings, {})],
])('a call succeeds although the idle %s backend it is lent has just died', async (name, begins) => {
  await begins();
  const pids = (await backends(name)).map(({ pid }) => pid);
  expect(pids).not.toEqual([]);
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  const beginning = begins();
  try {
    for (let turn = 0; turn < 5; turn += 1) await open();
  } finally {
    for (const pid of pids) {
      process.kill(pid, 'SIGTERM');
      process.kill(pid, 'SIGCONT');
    }
  }
  await beginning;
});

// Story: one idle transaction with a row lock and ten writes of that row were enough to starve every read until its lease ended.
test('with every transaction open and writes waiting for a lock, reads, health and outcomes still answer', async () => {
  const held = await Promise.all(Array.from({ length: 10 }, () => begin()));
  const [row] = await sidecar.sql<{ id: string }>('select id from policy.risk_ceilings limit 1');
  await sidecar.grpc.unary(rpc.resetRiskCeiling, { ceilingId: row!.id }, { transaction: held[0]! });
  const abort = new AbortController();
  const stuck = Array.from({ length: 10 }, () =>
    refusal(
      sidecar.grpc.unary(
        rpc.resetRiskCeiling,
        { ceilingId: row!.id },
        { transaction: 'single-use', signal: abort.signal },
      ),
    ),
  );
  await vi.waitFor(async () =>
    expect((await backends('call')).filter(({ state }) => state === 'active')).toHaveLength(7),
  );
  expect((await sidecar.grpc.unary(rpc.fetchRiskCeilings, {})).riskCeilings.length).toBeGreaterThan(0);
  expect((await sidecar.grpc.unary(Health.method.check, {})).status).toBe(1);
  expect(await outcome(held[1]!)).toBe(Outcome.IN_PROGRESS);
  abort.abort();
  await Promise.all(stuck);
  await Promise.all(held.map((transactionId) => sidecar.grpc.unary(tx.rollback, { transactionId })));
});

test('shutting down: open transactions get the drain time, then are rolled back', async () => {
  const own = await startTestSidecar({ drainTimeoutMs: 3_000 });
  const start = async () => (await own.grpc.unary(tx.begin, {})).transaction!.id!;
  const write = (transaction: string) => own.grpc.unary(rpc.insertViolation, violation('w'), { transaction });
  const [finishes, lingers] = [await start(), await start()];
  await write(finishes);
  await write(lingers);
  const stopped = own.server.stop();
  const refused = await refusal(own.grpc.unary(tx.begin, {}));
  expect(refused).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN' });
  // Another takes its place.
  expect(refused.retryAfterMs).toBeGreaterThan(0);
  await write(finishes);
  await own.grpc.unary(tx.commit, { transactionId: finishes });
  await stopped;
  expect(await own.sql('select from policy.violations')).toHaveLength(2);
  await own.discard();
});

// Story: who waited for a connection when the drain began was given the last one that came back, and with it a transaction
// that was cut off at once.
test('shutting down: a transaction that was to begin when another ends does not', async () => {
  const tokensFile = join(folder, 'tokens');
  await writeFile(tokensFile, tokenLine('ann') + tokenLine('bob'));
  const own = await startTestSidecar({ tokensFile, transactionsMax: 1, poolWaitMs: 60_000, drainTimeoutMs: 60_000 });
  const [ann, bob] = ['ann', 'bob'].map((name) => ({ headers: { authorization: `Bearer ${name}` } }));
  const transactionId = (await own.grpc.unary(tx.begin, {}, ann)).transaction!.id!;
  const waiting = refusal(own.grpc.unary(tx.begin, {}, bob));
  // On one connection this comes after it.
  await own.grpc.unary(tx.list, {}, bob);
  const stopped = own.server.stop();
  await own.grpc.unary(tx.commit, { transactionId }, ann);
  expect(await waiting).toMatchObject({ code: 'UNAVAILABLE', reason: 'SHUTTING_DOWN' });
  await stopped;
  await own.discard();
});

test('10,000 abandoned transactions leave no connection, timer or entry behind', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  await Promise.all(
    (await Promise.all(Array.from({ length: 10 }, () => begin()))).map((transactionId) =>
      sidecar.grpc.unary(tx.rollback, { transactionId }),
    ),
  );
  const [connections, before] = [(await backends('transaction')).length, timers()];
  let begun = 0;
  const abandon = async (): Promise<void> => {
    while (begun < 10_000) {
      begun += 1;
      await sidecar.grpc.unary(tx.begin, { idleLease: durationFromMs(1) }).catch(async (error) => {
        // All ten wait for the reaper: the next turn of the loop tries again.
        expect(error.reason).toBe('TRANSACTION_LIMIT');
        begun -= 1;
        await new Promise(setImmediate);
      });
    }
  };
  await Promise.all(Array.from({ length: 8 }, abandon));
  await vi.waitFor(async () => expect(await open()).toBe(0));
  await vi.waitFor(async () =>
    expect((await backends('transaction')).filter(({ state }) => state !== 'idle')).toEqual([]),
  );
  expect((await backends('transaction')).length).toBeLessThanOrEqual(Math.max(10, connections));
  expect(timers()).toBeLessThanOrEqual(before + 2);
}, 120_000);
