import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { afterEach, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { startCluster } from '../support/cluster.ts';
import { startNetwork } from '../support/network.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const ENGINE = 'hoc.cus.policies.v1.PolicyEngineService';
const ONLY_READS = 'hoc.cus.policies.v1.PolicyReadService';
const NOT_SERVING = 2;
const SERVING = 1;
const patient = { timeout: 20_000, interval: 100 };

const endings: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

const ask = async (url: string, text: string): Promise<unknown[]> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query(text);
  await client.end();
  return rows;
};

const checks =
  (sidecar: TestSidecar) =>
  async (service: string): Promise<number> =>
    (await sidecar.grpc.unary(Health.method.check, { service })).status;

// Story: on a hot standby every write and `Begin` was ABORTED "the schema changed", retryable, for ever, and health said
// SERVING: PostgreSQL has one code for all that it does not support.
test('a standby serves reads, says that it takes no writes, and is followed when it is promoted', async () => {
  const primary = await startCluster();
  endings.push(primary.stop);
  const standby = await primary.standby();
  endings.push(standby.stop);
  const sidecar = await startTestSidecar({}, standby.url);
  endings.push(sidecar.stop);
  const check = checks(sidecar);

  const readOnly = { code: 'UNAVAILABLE', reason: 'READ_ONLY_DATABASE' };
  const single = { transaction: 'single-use' };
  expect(await check('')).toBe(NOT_SERVING);
  expect(await check(ENGINE)).toBe(NOT_SERVING);
  expect(await check(ONLY_READS)).toBe(SERVING);
  const refused = await refusal(sidecar.grpc.unary(rpc.insertViolation, violation(), single));
  expect(refused).toMatchObject(readOnly);
  expect(refused.retryAfterMs).toBeGreaterThan(0);
  expect(await refusal(sidecar.grpc.unary(tx.begin, {}))).toMatchObject(readOnly);
  const execute = {
    operations: [{ request: { case: 'insertViolation' as const, value: violation() } }],
    maxAttempts: 3,
  };
  expect(await refusal(sidecar.grpc.unary(tx.execute, execute))).toMatchObject(readOnly);
  expect((await sidecar.grpc.unary(rpc.fetchRiskCeilings, {})).riskCeilings.length).toBeGreaterThan(0);
  const { transaction } = await sidecar.grpc.unary(tx.begin, { readOnly: true });
  await sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction: transaction!.id! });
  const inside = sidecar.grpc.unary(rpc.insertViolation, violation(), { transaction: transaction!.id! });
  expect(await refusal(inside)).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'READ_ONLY_TRANSACTION' });
  await sidecar.grpc.unary(tx.rollback, { transactionId: transaction!.id! });

  await ask(standby.adminUrl, 'select pg_promote()');
  await vi.waitFor(() => sidecar.grpc.unary(rpc.insertViolation, violation(), single), patient);
  await vi.waitFor(async () => expect(await check('')).toBe(SERVING), patient);
  await sidecar.grpc.unary(tx.execute, execute);
}, 120_000);

// Story: after an asynchronous failover `GetOutcome` said COMMITTED of a transaction that the new primary had never heard
// of: PostgreSQL's number of the transaction had been handed out again there.
test('after a failover an outcome is what the new primary bears out', async () => {
  const primary = await startCluster();
  endings.push(primary.stop);
  const between = await startNetwork(primary.url);
  endings.push(between.close);
  const standby = await primary.standby(between.port);
  endings.push(standby.stop);
  const network = await startNetwork(primary.url);
  endings.push(network.close);
  const sidecar = await startTestSidecar({}, network.url);
  endings.push(sidecar.stop);
  const commit = async (violationId: string): Promise<string> => {
    const { transaction } = await sidecar.grpc.unary(tx.begin, {});
    await sidecar.grpc.unary(rpc.insertViolation, violation(violationId), { transaction: transaction!.id! });
    await sidecar.grpc.unary(tx.commit, { transactionId: transaction!.id! });
    return transaction!.id!;
  };
  const outcome = async (value: string) =>
    (await sidecar.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;
  const stored = (url: string, id: string) => ask(url, `select from policy.violations where id = '${id}'`);

  const [kept, lost] = [randomUUID(), randomUUID()];
  const keptId = await commit(kept);
  await vi.waitFor(async () => expect(await stored(standby.url, kept)).toHaveLength(1), patient);
  between.swallow();
  const lostId = await commit(lost);
  expect(await outcome(lostId)).toBe(Outcome.COMMITTED);
  primary.crash();
  await ask(standby.adminUrl, 'select pg_promote()');
  expect(await stored(standby.url, lost)).toEqual([]);
  network.redirect(standby.url);
  network.cut();
  await vi.waitFor(async () => expect(await outcome(keptId)).toBe(Outcome.COMMITTED), patient);
  for (let other = 0; other < 8; other += 1) await commit(randomUUID());
  expect(await outcome(lostId)).not.toBe(Outcome.COMMITTED);
}, 120_000);
