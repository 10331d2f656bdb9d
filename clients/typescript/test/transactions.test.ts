import { randomUUID } from 'node:crypto';
import { createConnectTransport } from '@connectrpc/connect-node';
import { connect as overConnect } from '@policy-sidecar/client/connect';
import {
  type Client,
  ConstraintError,
  connect,
  PreconditionError,
  TransactionAbortedError,
  TransactionEndedError,
} from '@policy-sidecar/client/grpc';
import { IsolationLevel } from '@policy-sidecar/client/messages';
import { type Ephemeral, ephemeral } from '@policy-sidecar/client/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isThere, violation } from './support/rows.ts';
import { ask } from './support/sidecar.ts';

let sidecar: Ephemeral;
beforeAll(async () => {
  sidecar = await ephemeral();
});
afterAll(() => sidecar.stop());

const ways: Readonly<Record<string, () => Client>> = {
  gRPC: () => connect(sidecar.grpc),
  'Connect over HTTP/1.1': () =>
    overConnect(createConnectTransport({ baseUrl: `http://${sidecar.http}`, httpVersion: '1.1' })),
  'Connect over HTTP/2': () =>
    overConnect(createConnectTransport({ baseUrl: `http://${sidecar.http}`, httpVersion: '2' })),
};

describe.each(Object.keys(ways))('over %s', (way) => {
  let client: Client;
  beforeAll(() => {
    client = ways[way]!();
  });
  afterAll(() => client.close());

  test('values are those of the language, and whole numbers of 64 bits stay whole', async () => {
    const { totalCents } = await client.policyRead.getUsageSumSince({ tenantId: 't', since: { seconds: 0n } });
    expect(totalCents).toBe(0n);
    const row = violation();
    await client.singleUse.policyEngine.insertViolation(row);
    const { violation: found } = await client.policyEngine.fetchViolationById({ violationId: row.violationId });
    expect(found).toMatchObject({
      id: row.violationId,
      evidence: row.evidence,
      detectedAt: { nanos: expect.any(Number) },
    });
  });

  test('a block that ends well is committed, and nobody sees it before', async () => {
    const row = violation();
    const answer = await client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      expect(await isThere(tx, row.violationId)).toBe(true);
      expect(await isThere(client, row.violationId)).toBe(false);
      return 'done';
    });
    expect(answer).toBe('done');
    expect(await isThere(client, row.violationId)).toBe(true);
  });

  test('a transaction is what its options say', async () => {
    const options = {
      isolationLevel: IsolationLevel.SERIALIZABLE,
      readOnly: true,
      deferrable: true,
      totalLeaseMs: 90_000,
      label: 'as its options say',
    };
    await client.transaction(async (tx) => {
      const { transaction } = (await ask(sidecar, 'TransactionService/Get', { transactionId: tx.id })) as {
        transaction: object;
      };
      expect(transaction).toMatchObject({
        isolationLevel: 'ISOLATION_LEVEL_SERIALIZABLE',
        readOnly: true,
        deferrable: true,
        totalLease: '90s',
        label: 'as its options say',
      });
      await expect(tx.policyEngine.insertViolation(violation())).rejects.toMatchObject({
        reason: 'READ_ONLY_TRANSACTION',
      });
      await tx.rollback();
    }, options);
  });

  test('run tries as often as it is told, and then passes the last error on', async () => {
    let tries = 0;
    const lost = client.run(
      async (tx) => {
        tries += 1;
        await ask(sidecar, 'TransactionService/Rollback', { transactionId: tx.id });
        await tx.policyEngine.insertViolation(violation());
      },
      { attempts: 3 },
    );
    await expect(lost).rejects.toThrow(TransactionEndedError);
    expect(tries).toBe(3);
  });

  test('a block that throws is rolled back, and its error comes out', async () => {
    const row = violation();
    const failing = client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      throw new RangeError('not so');
    });
    await expect(failing).rejects.toThrow(RangeError);
    expect(await isThere(client, row.violationId)).toBe(false);
  });

  test('a block that rolls back by itself succeeds, and leaves nothing behind', async () => {
    const row = violation();
    const answer = await client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      await tx.rollback();
      expect(tx.ended).toBe(true);
      return 'undone';
    });
    expect(answer).toBe('undone');
    expect(await isThere(client, row.violationId)).toBe(false);
  });

  test('a block that keeps to itself why its own commit failed is told so all the same', async () => {
    const row = violation();
    const work = client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      await expect(tx.policyEngine.insertViolation(row)).rejects.toThrow(ConstraintError);
      await expect(tx.commit()).rejects.toThrow(TransactionAbortedError);
      expect(tx.ended).toBe(true);
    });
    await expect(work).rejects.toThrow(TransactionAbortedError);
    expect(await isThere(client, row.violationId)).toBe(false);
  });

  test.each(['commitPrepared', 'rollbackPrepared'] as const)('a block that prepares is ended by %s', async (end) => {
    const row = violation();
    const prepared = await client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      expect(await tx.prepare({ leaseMs: 60_000 })).toBe(60_000);
      return tx.id;
    });
    const ids = async () => (await client.listPrepared()).map(({ id }) => id);
    expect(await isThere(client, row.violationId)).toBe(false);
    expect(await ids()).toContain(prepared);
    // Its answer may have been lost.
    for (let times = 0; times < 2; times += 1) await client[end](prepared);
    expect(await ids()).not.toContain(prepared);
    expect(await isThere(client, row.violationId)).toBe(end === 'commitPrepared');
  });

  test('a transaction that is left without a commit is rolled back, one with a commit is kept', async () => {
    const [left, kept] = [violation(), violation()];
    {
      await using tx = await client.transaction();
      await tx.policyEngine.insertViolation(left);
    }
    {
      await using tx = await client.transaction({ isolationLevel: IsolationLevel.SERIALIZABLE, label: 'kept' });
      await tx.policyEngine.insertViolation(kept);
      expect((await tx.commit()).at).toBeDefined();
      await expect(tx.policyEngine.insertViolation(violation())).rejects.toThrow(TransactionEndedError);
    }
    expect(await isThere(client, left.violationId)).toBe(false);
    expect(await isThere(client, kept.violationId)).toBe(true);
  });

  test('a savepoint undoes its own block, and only that, also after a statement that failed', async () => {
    const [outer, inner, nested] = [violation(), violation(), violation()];
    await client.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(outer);
      const failing = tx.savepoint(async () => {
        await tx.policyEngine.insertViolation(inner);
        await tx.policyEngine.insertViolation(inner);
      });
      await expect(failing).rejects.toMatchObject({ reason: 'UNIQUE_VIOLATION' });
      await using kept = await tx.savepoint();
      await tx.policyEngine.insertViolation(nested);
      {
        await using _left = await tx.savepoint();
        await tx.policyEngine.insertViolation(inner);
      }
      await kept.release();
    });
    const there = [outer, inner, nested].map(({ violationId }) => isThere(client, violationId));
    expect(await Promise.all(there)).toEqual([true, false, true]);
  });

  test('a read says what it has to see, and trailers are told', async () => {
    const trailers: Headers[] = [];
    const onTrailer = (trailer: Headers): unknown => trailers.push(trailer);
    await client.policyEngine.fetchPolicyVersions({}, { consistency: 'eventual', onTrailer });
    await client.singleUse.policyEngine.insertViolation(violation(), { onTrailer });
    expect(trailers).toEqual([expect.any(Headers), expect.any(Headers)]);
    const refused = client.policyEngine.fetchPolicyVersions({}, { consistency: 'no token' });
    await expect(refused).rejects.toMatchObject({ violations: [{ field: 'header consistency' }] });
  });

  test('a write outside a transaction is refused, so none leaves its transaction unseen', async () => {
    const refused = client.policyEngine.insertViolation(violation());
    await expect(refused).rejects.toThrow(PreconditionError);
    await expect(refused).rejects.toMatchObject({ reason: 'TRANSACTION_REQUIRED', code: 'FAILED_PRECONDITION' });
  });

  test('two serializable transactions on one row both succeed, the later one at another attempt', async () => {
    const row = violation();
    await client.singleUse.policyEngine.insertViolation(row);
    const both = Promise.withResolvers<void>();
    let [arrived, attempts] = [0, 0];
    const acknowledge = (notes: string) =>
      client.run(
        async (tx) => {
          attempts += 1;
          await tx.policyEngine.fetchViolationById({ violationId: row.violationId });
          arrived += 1;
          if (arrived === 2) both.resolve();
          await both.promise;
          await tx.policyEngine.updateViolationAcknowledged({ violationId: row.violationId, notes });
        },
        { isolationLevel: IsolationLevel.SERIALIZABLE },
      );
    await Promise.all([acknowledge('one'), acknowledge('two')]);
    expect(attempts).toBeGreaterThan(2);
  });

  test('a list of operations runs in one round trip, all or nothing', async () => {
    const [first, second] = [violation(), violation()];
    const insert = (value: ReturnType<typeof violation>) => ({ request: { case: 'insertViolation', value } }) as const;
    const idempotencyKey = randomUUID();
    const { results } = await client.execute([insert(first), insert(second)], { idempotencyKey });
    expect(results.map(({ rows }) => rows)).toEqual([1n, 1n]);
    await expect(client.execute([insert(violation()), insert(first)])).rejects.toMatchObject({
      reason: 'UNIQUE_VIOLATION',
      metadata: { operation: '1' },
    });
  });
});
