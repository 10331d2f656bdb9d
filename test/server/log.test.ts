import { pino } from 'pino';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const rpc = PolicyEngineService.method;
const VERSION = '5b0c2b1e-0000-4000-8000-000000000001';
const lines: string[] = [];

let sidecar: TestSidecar;
beforeAll(async () => {
  sidecar = await startTestSidecar({}, undefined, pino({ base: null }, { write: (line) => lines.push(line) }));
});
afterAll(() => sidecar?.stop());
beforeEach(() => {
  lines.length = 0;
});

/** The only line there is. */
const line = (): object => {
  expect(lines).toHaveLength(1);
  return JSON.parse(lines[0]!) as object;
};

test.each(['grpc', 'connect'] as const)('a call over %s is one line: what, who, how long', async (listener) => {
  await sidecar[listener].unary(rpc.fetchRiskCeilings, {});
  expect(line()).toMatchObject({
    method: 'PolicyEngineService/FetchRiskCeilings',
    code: 'OK',
    caller: 'local',
    peer: expect.stringContaining('127.0.0.1:'),
    ms: expect.any(Number),
  });
});

// The reason alone left whoever read the log to guess which of a dozen fields it was.
test.each(['grpc', 'connect'] as const)('a refusal over %s names the fields, not their values', async (listener) => {
  await refusal(sidecar[listener].unary(rpc.fetchViolations, { agentId: 'secret\0', limit: -7 }));
  expect(line()).toMatchObject({ reason: 'INVALID_REQUEST', fields: ['agent_id', 'limit'] });
  expect(lines[0]).not.toMatch(/secret|-7/);
});

test('an error of the database names the constraint, not the values', async () => {
  const version = { versionId: VERSION, version: 'secret', policyHash: 'secret', createdBy: 'secret' };
  await sidecar.grpc.unary(rpc.insertPolicyVersion, version, { transaction: 'single-use' });
  lines.length = 0;
  await refusal(sidecar.grpc.unary(rpc.insertPolicyVersion, version, { transaction: 'single-use' }));
  expect(line()).toMatchObject({
    code: 'ALREADY_EXISTS',
    reason: 'UNIQUE_VIOLATION',
    transaction: 'single-use',
    database: { sqlstate: '23505', table: 'policy_versions', constraint: 'policy_versions_pkey' },
  });
  expect(lines[0]).not.toMatch(/secret|insert into|5b0c2b1e/i);
});

// Begin and Commit were lines of no transaction, and those between them of one that nothing had begun or ended.
test('what begins, uses and ends a transaction is told apart by it', async () => {
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
  await sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction: transaction!.id! });
  await sidecar.grpc.unary(TransactionService.method.commit, { transactionId: transaction!.id! });
  const told = lines.map((each) => (JSON.parse(each) as { transaction?: string }).transaction);
  expect(told).toEqual(Array(3).fill(transaction!.id!.slice(0, 10)));
});

// The caller's own clock ends the call a moment sooner, and the line said that the caller had cancelled it.
test.each(['grpc', 'connect'] as const)('a deadline that passes over %s is called that', async (listener) => {
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
  await sidecar.grpc.unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, { transaction: transaction!.id! });
  lines.length = 0;
  const late = { transaction: 'single-use', timeoutMs: 300 };
  await refusal(sidecar[listener].unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, late));
  await vi.waitFor(() => expect(line()).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: 'DEADLINE_EXCEEDED' }));
  await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
});

// The HTTP library refused it by itself, and nothing was written.
test('a request that cannot be read is a line too, without what it held', async () => {
  await fetch(`http://${sidecar.server.httpAddress}/${PolicyEngineService.typeName}/FetchViolations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"secret": 1}',
  });
  expect(line()).toMatchObject({ method: 'PolicyEngineService/FetchViolations', reason: 'MALFORMED_REQUEST' });
  expect(lines[0]).not.toContain('secret');
});
