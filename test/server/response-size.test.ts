import { toBinary } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, test } from 'vitest';
import { ResponseSize, streamingTwin } from '../../src/contract/response-size.ts';
import { drivers } from '../../src/drivers/drivers.ts';
import {
  FetchViolationsResponseSchema,
  PolicyEngineService,
} from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyProposalReadService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { RecoveryWriteService } from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { SymbolTableService, SymbolType } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { bytesOf, ElementRows } from '../../src/statements/element-rows.ts';
import { refusal } from '../support/client.ts';
import { noServices } from '../support/services.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const LIMIT = 20_000;
const rpc = PolicyEngineService.method;

const sidecar = useSidecar({ maxResponseBytes: LIMIT });

/** Rows of an agent with a description of so many bytes each. */
const store = (agent: string, rows: number, bytes: number, on: TestSidecar = sidecar) =>
  on.sql(
    `insert into policy.violations (id, violation_type, severity, description, evidence, agent_id, routed_to_governor, detected_at)
    select gen_random_uuid(), 'x', 0.5, repeat('x', $3), '{}', $1, false, now() - n * interval '1 second'
    from generate_series(1, $2) n`,
    [agent, rows, bytes],
  );

/** The three forms in which a response is sent; how many rows, or why none. */
const ways = {
  gRPC: (agentId: string, limit: number) => sidecar.grpc.unary(rpc.fetchViolations, { agentId, limit }),
  Connect: (agentId: string, limit: number) => sidecar.connect.unary(rpc.fetchViolations, { agentId, limit }),
};

const json = async (agentId: string, limit: number) => {
  const response = await fetch(`http://${sidecar.server.httpAddress}/${PolicyEngineService.typeName}/FetchViolations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ agentId, limit }),
  });
  return {
    status: response.status,
    body: (await response.json()) as {
      code?: string;
      violations?: object[];
      details?: { debug?: { reason?: string; metadata?: object } }[];
    },
  };
};

const METADATA = { limit: String(LIMIT), streaming_rpc: `${PolicyEngineService.typeName}/StreamViolations` };

// Story: of a list of texts all rows were read and kept before it was refused.
test('of a list of texts no more is made than it may have', () => {
  const { output } = rpc.fetchActivePoliciesForIntegrity;
  const elements = new ElementRows(
    bytesOf(output.field.names)!,
    ([name]) => name!,
    new ResponseSize(rpc.fetchActivePoliciesForIntegrity, LIMIT),
  );
  const name = 'ä'.repeat(500);
  const row = Buffer.concat([Buffer.from([0, 1, 0, 0, 1000 >> 8, 1000 & 255]), Buffer.from(name)]);
  expect(() => {
    for (let count = 0; count < 1_000; count += 1) elements.row(row, 0);
  }).toThrow(expect.objectContaining({ reason: 'RESPONSE_TOO_LARGE' }));
  expect(elements.rows.length).toBeLessThan((4 * LIMIT) / 1_000);
});

describe('a list that would be too large', () => {
  beforeAll(() => store('many', 100, 1_000));

  test.each(Object.keys(ways) as (keyof typeof ways)[])(
    'is refused over %s with the name of the stream that brings it',
    async (way) => {
      const refused = await refusal(ways[way]('many', 100));
      expect(refused).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'RESPONSE_TOO_LARGE', metadata: METADATA });
      expect(refused.message).toBe(
        'the response has more than the 20000 bytes that it may have; StreamViolations brings its rows one by one',
      );
      expect(refused.retryAfterMs).toBeUndefined();
      expect((await ways[way]('many', 10)).violations).toHaveLength(10);
    },
  );

  test('is refused as JSON in the same words', async () => {
    const { status, body } = await json('many', 100);
    expect([status, body.code]).toEqual([429, 'resource_exhausted']);
    expect(body.details![0]!.debug).toMatchObject({ reason: 'RESPONSE_TOO_LARGE', metadata: METADATA });
    expect((await json('many', 10)).body.violations).toHaveLength(10);
  });

  test('is streamed', async () => {
    for (const caller of sidecar.callers) {
      let rows = 0;
      for await (const _response of caller.stream(rpc.streamViolations, { agentId: 'many' })) rows += 1;
      expect(rows).toBe(100);
    }
  });

  test('costs an open transaction nothing', async () => {
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    const inside = { transaction: transaction?.id ?? '' };
    const call = sidecar.grpc.unary(rpc.fetchViolations, { agentId: 'many', limit: 100 }, inside);
    expect(await refusal(call)).toMatchObject({ reason: 'RESPONSE_TOO_LARGE' });
    const made = violation();
    await sidecar.grpc.unary(rpc.insertViolation, made, inside);
    await sidecar.grpc.unary(TransactionService.method.commit, { transactionId: inside.transaction });
    const { violationId } = made;
    expect((await sidecar.grpc.unary(rpc.fetchViolationById, { violationId })).violation).toBeDefined();
  });

  test('names how to ask for less where nothing streams it', async () => {
    await sidecar.sql(
      `insert into public.policy_rules (id, tenant_id, name, enforcement_mode, scope, conditions, source, status, created_at)
      select 'r' || n, 'tenant', 'n', 'BLOCK', 'GLOBAL', '{}', 'MANUAL', 'ACTIVE', now() from generate_series(1, 600) n`,
    );
    await sidecar.sql(
      `insert into public.policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root)
      select 'i' || id, id, 'VERIFIED', 1, '' from public.policy_rules where tenant_id = 'tenant'`,
    );
    for (const caller of sidecar.callers) {
      const list = (limit: number) =>
        caller.unary(PolicyRulesReadService.method.fetchPolicyRules, { tenantId: 'tenant', limit });
      const refused = await refusal(list(600));
      expect(refused).toMatchObject({ reason: 'RESPONSE_TOO_LARGE', metadata: { limit: String(LIMIT) } });
      expect(refused.metadata).not.toHaveProperty('streaming_rpc');
      expect(refused.message).toMatch(/; ask for less by limit, and for the rest by page_token$/);
      expect((await list(10)).total).toBe(600n);
    }
  });
});

test('the limit is the size of the protobuf message to the byte, in every form', async () => {
  await store('exact', 3, 5_000);
  const response = await ways.gRPC('exact', 3);
  const left = LIMIT - toBinary(FetchViolationsResponseSchema, response).length;
  const lengthen = (by: number) =>
    sidecar.sql(
      `update policy.violations set description = description || repeat('x', $2)
      where id = (select id from policy.violations where agent_id = $1 order by detected_at limit 1)`,
      ['exact', by],
    );
  await lengthen(left);
  for (const way of Object.values(ways)) {
    expect(toBinary(FetchViolationsResponseSchema, await way('exact', 3))).toHaveLength(LIMIT);
  }
  expect((await json('exact', 3)).status).toBe(200);
  await lengthen(1);
  for (const way of Object.values(ways)) expect(await refusal(way('exact', 3))).toMatchObject({ metadata: METADATA });
  expect((await json('exact', 3)).status).toBe(429);
});

describe('Execute', () => {
  const list = (limit: number) => ({
    request: { case: 'fetchViolations' as const, value: { agentId: 'listed', limit } },
  });
  beforeAll(() => store('listed', 100, 1_000));

  test.each([
    ['one answer that is too large', [list(100)], '1'],
    ['answers that are too large together', [list(8), list(8), list(8)], '3'],
  ])('with %s is rolled back', async (_what, lists, place) => {
    for (const caller of sidecar.callers) {
      const made = violation();
      const operations = [{ request: { case: 'insertViolation' as const, value: made } }, ...lists];
      expect(await refusal(caller.unary(TransactionService.method.execute, { operations }))).toMatchObject({
        reason: 'RESPONSE_TOO_LARGE',
        metadata: { limit: String(LIMIT), operation: place },
      });
      const { violationId } = made;
      expect((await caller.unary(rpc.fetchViolationById, { violationId })).violation).toBeUndefined();
    }
  });

  test('with answers that fit is answered', async () => {
    const { results } = await sidecar.grpc.unary(TransactionService.method.execute, { operations: [list(8), list(8)] });
    expect(results).toHaveLength(2);
  });
});

describe('what has been done is told, however large the answer', () => {
  test('a write', async () => {
    await sidecar.sql(
      `insert into m10_recovery.work_queue (candidate_id, idempotency_key, priority)
      select n, gen_random_uuid(), 0 from generate_series(1, 1000) n`,
    );
    const { work } = await sidecar.grpc.unary(
      RecoveryWriteService.method.claimWork,
      { workerId: 'w', batchSize: 1_000 },
      { transaction: 'single-use' },
    );
    expect(work).toHaveLength(1_000);
  });

  test('a list of operations on a symbol table, whose own results are left out instead', async () => {
    const symbol = (name: string) => ({ name: name.padEnd(1_000, '.'), symbolType: SymbolType.CONSTANT });
    const { table } = await sidecar.grpc.unary(SymbolTableService.method.createTable, {});
    const define = (name: string) => ({ request: { case: 'define' as const, value: { symbol: symbol(name) } } });
    const all = { request: { case: 'getAllSymbols' as const, value: {} } };
    const operations = [...Array.from('abcdefgh', define), all, all, define('i')];
    const { results } = await sidecar.grpc.unary(SymbolTableService.method.apply, { table, operations });
    expect(results.map(({ response }) => response.case)).toEqual([
      ...Array.from('abcdefgh', () => 'define'),
      'getAllSymbols',
      'error',
      'error',
    ]);
    // The one that did not fit has not run.
    const lookup = (name: string) =>
      sidecar.grpc.unary(SymbolTableService.method.lookup, { table, name: symbol(name).name });
    expect([(await lookup('h')).symbol, (await lookup('i')).symbol]).toEqual([expect.anything(), undefined]);
  });
});

test('every stream is named by the list whose rows it brings', () => {
  const methods = drivers(noServices).flatMap(({ service }) => service.methods);
  const streams = methods.filter(({ methodKind }) => methodKind === 'server_streaming');
  const twins = methods.flatMap((method) => (method.methodKind === 'unary' ? (streamingTwin(method) ?? []) : []));
  expect(streams.length).toBeGreaterThan(20);
  expect(twins.map(({ name }) => name).sort()).toEqual(streams.map(({ name }) => name).sort());
  expect(streamingTwin(PolicyProposalReadService.method.fetchProposals)).toBeUndefined();
});

test('a result of 200 MiB is refused in little memory, and read where nothing is refused', async () => {
  const ROWS = 10_000;
  const BYTES = 20_000;
  await store('huge', ROWS, BYTES);
  const before = process.memoryUsage.rss();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss());
  }, 5);
  try {
    for (const way of Object.values(ways)) {
      expect(await refusal(way('huge', ROWS))).toMatchObject({ reason: 'RESPONSE_TOO_LARGE' });
    }
  } finally {
    clearInterval(timer);
  }
  expect(most - before).toBeLessThan(ROWS * BYTES);
  const unlimited = await startTestSidecar({ maxResponseBytes: Number.POSITIVE_INFINITY }, sidecar.url);
  const { violations } = await unlimited.grpc.unary(rpc.fetchViolations, { agentId: 'huge', limit: 500 });
  expect(violations).toHaveLength(500);
  await unlimited.server.stop();
  unlimited.grpc.close();
  unlimited.connect.close();
});
