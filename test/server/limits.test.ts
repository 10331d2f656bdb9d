import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { SymbolTableService } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError, refusal } from '../support/client.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useFolder } from '../support/use.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const { fetchRiskCeilings } = PolicyEngineService.method;
const {
  begin,
  commit,
  rollback,
  hold,
  savepoint,
  rollbackToSavepoint,
  releaseSavepoint,
  commitPrepared,
  rollbackPrepared,
} = TransactionService.method;
const as = (name: string) => ({ headers: { authorization: `Bearer ${name}` } });

const tokensFile = join(useFolder(), 'tokens');
beforeAll(async () => {
  await writeFile(tokensFile, tokenLine('ann') + tokenLine('bob'));
});

describe.each(['grpc', 'connect'] as const)('calls of one caller over %s', (listener) => {
  const outcome = (call: Promise<unknown>): Promise<unknown> =>
    call.then(
      () => 'answered',
      (error: unknown) => (error instanceof CallError ? error : Promise.reject(error)),
    );

  test('more in a second than it may make are refused, with when to come again; another caller is not concerned', async () => {
    const server = await startTestSidecar({ tokensFile, callsPerSecond: 1 });
    const caller = server[listener];
    // The machine may be so busy that a second passes between two calls.
    let refused: CallError | undefined;
    await vi.waitFor(async () => {
      refused = (await outcome(caller.unary(fetchRiskCeilings, {}, as('ann')))) as CallError;
      expect(refused).toBeInstanceOf(CallError);
    });
    expect(refused).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'CALL_RATE_LIMIT', metadata: { limit: '1' } });
    expect(refused!.retryAfterMs).toBeGreaterThan(0);
    expect(await outcome(caller.unary(fetchRiskCeilings, {}, as('bob')))).toBe('answered');
    for (let n = 0; n < 5; n += 1) expect((await caller.unary(Health.method.check, {})).status).toBe(1);
    await vi.waitFor(async () =>
      expect(await outcome(caller.unary(fetchRiskCeilings, {}, as('ann')))).toBe('answered'),
    );
    await server.stop();
  });

  test('what gives back is not counted', async () => {
    const server = await startTestSidecar({ tokensFile, callsPerSecond: 1 });
    const caller = server[listener];
    const { transaction } = await caller.unary(begin, {}, as('ann'));
    const named = { ...as('ann'), transaction: transaction!.id! };
    for (let n = 0; n < 5; n += 1) await caller.unary(rollback, {}, named);
    await server.stop();
  });

  // Story: a prepared transaction, which keeps its locks whoever is gone, could not be ended by a caller at its limit.
  test('the end of a prepared transaction is not counted, nor that of a table of symbols', async () => {
    const server = await startTestSidecar({ tokensFile, callsPerSecond: 1 });
    const caller = server[listener];
    const { transaction } = await caller.unary(begin, {}, as('ann'));
    const transactionId = transaction!.id!;
    for (const method of [commitPrepared, rollbackPrepared]) {
      for (let n = 0; n < 3; n += 1) {
        const error = await refusal(caller.unary(method, { transactionId }, as('ann')));
        expect(error).toMatchObject({ reason: 'TRANSACTION_NOT_PREPARED' });
      }
    }
    for (let n = 0; n < 3; n += 1) {
      const error = await refusal(caller.unary(SymbolTableService.method.dropTable, { table: 'gone' }, as('ann')));
      expect(error).toMatchObject({ reason: 'TABLE_UNKNOWN' });
    }
    await server.stop();
  });

  test('a part that was refused for the limit can be undone, so that the rest can be committed', async () => {
    const server = await startTestSidecar({ tokensFile, callsPerSecond: 2 });
    const caller = server[listener];
    const { transaction } = await caller.unary(begin, {}, as('ann'));
    const named = { ...as('ann'), transaction: transaction!.id! };
    await caller.unary(savepoint, { name: 'part' }, named);
    for (let n = 0; n < 10; n += 1) await caller.unary(rollbackToSavepoint, { name: 'part' }, named);
    await caller.unary(releaseSavepoint, { name: 'part' }, named);
    await caller.unary(commit, {}, named);
    await server.stop();
  });

  test('more at once than it may have under way are refused, and let in when others end', async () => {
    const server = await startTestSidecar({ tokensFile, callsAtOnce: 1 });
    const caller = server[listener];
    const { transaction } = await caller.unary(begin, {}, as('ann'));
    const named = { ...as('ann'), transaction: transaction!.id! };
    await caller.unary(savepoint, { name: 'part' }, named);
    // It waits for a lock that is held beside the server.
    const release = await lock(server);
    const waiting = caller.unary(fetchRiskCeilings, {}, as('ann'));
    await vi.waitFor(async () => expect(await server.sql(WAITING_FOR_LOCK)).toHaveLength(1));
    const error = await refusal(caller.unary(SymbolTableService.method.createTable, {}, as('ann')));
    expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'CALL_LIMIT', metadata: { limit: '1' } });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(await outcome(caller.unary(SymbolTableService.method.createTable, {}, as('bob')))).toBe('answered');
    for (const method of [rollbackToSavepoint, releaseSavepoint]) {
      expect(await outcome(caller.unary(method, { name: 'part' }, named))).toBe('answered');
    }
    expect(await outcome(caller.unary(commit, {}, named))).toBe('answered');
    await release();
    await waiting;
    expect(await outcome(caller.unary(fetchRiskCeilings, {}, as('ann')))).toBe('answered');
    await server.stop();
  });

  test('a transaction that is held leaves room for the calls inside it', async () => {
    const server = await startTestSidecar({ tokensFile, callsAtOnce: 1 });
    const caller = server[listener];
    for await (const { transaction } of caller.stream(hold, {}, as('ann'))) {
      if (transaction!.state !== 1) break;
      const named = { ...as('ann'), transaction: transaction!.id! };
      expect(await outcome(caller.unary(fetchRiskCeilings, {}, named))).toBe('answered');
      await caller.unary(commit, {}, named);
    }
    await server.stop();
  });
});

/** Keeps everybody from reading risk ceilings, until what it returns is called. */
const lock = async (server: TestSidecar): Promise<() => Promise<void>> => {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  await client.query('begin');
  await client.query('lock table policy.risk_ceilings in access exclusive mode');
  return async () => {
    await client.query('rollback');
    await client.end();
  };
};
