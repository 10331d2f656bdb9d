/** What is tried again, what goes on, lists by pages, and documents as text. */
import { randomUUID } from 'node:crypto';
import { getOption } from '@bufbuild/protobuf';
import { createConnectTransport } from '@connectrpc/connect-node';
import { connect as overConnect } from '@policy-sidecar/client/connect';
import {
  type Client,
  connect,
  DeadlineError,
  InvalidRequestError,
  pages,
  SidecarError,
  type Transaction,
  UnavailableError,
} from '@policy-sidecar/client/grpc';
import { ErrorReasonSchema, IsolationLevel, meaning } from '@policy-sidecar/client/messages';
import { type Ephemeral, ephemeral } from '@policy-sidecar/client/testing';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
// Of the package's own, since it makes all errors.
import { errorOf, type Reason } from '../node_modules/@policy-sidecar/client/dist/errors.js';
import { delayMs } from '../node_modules/@policy-sidecar/client/dist/retry.js';
import { startProxy } from './support/proxy.ts';
import { longViolation, violation, writeRows } from './support/rows.ts';
import { ask, freePort } from './support/sidecar.ts';

let sidecar: Ephemeral;
let client: Client;
beforeAll(async () => {
  sidecar = await ephemeral();
  client = connect(sidecar.grpc);
});
afterAll(async () => {
  client.close();
  await sidecar.stop();
});

const ROLLED_BACK = new Set(['TRANSACTION_ROLLED_BACK', 'TRANSACTION_LOST', 'TRANSACTION_ELSEWHERE']);

test('every reason of the contract is tried again as it says', () => {
  for (const value of ErrorReasonSchema.values.filter(({ number }) => number !== 0)) {
    const { code, retry } = getOption(value, meaning);
    const facts = {
      code: code as 'ABORTED',
      message: '',
      reason: value.name as Reason,
      retryAfterMs: retry ? 1 : undefined,
    };
    expect({ reason: value.name, retriable: errorOf(facts).retriable }).toEqual({
      reason: value.name,
      retriable: retry || ROLLED_BACK.has(value.name),
    });
  }
  // Of a connection that went away there is no reason.
  expect(errorOf({ code: 'UNAVAILABLE', message: '' }).retriable).toBe(true);
});

describe('run tries again what was rolled back and nothing else:', () => {
  const insert = async (tx: Transaction, violationId: string = randomUUID()): Promise<unknown> =>
    tx.policyEngine.insertViolation(violation(violationId));
  const count = async () => {
    const [ceiling] = (await client.policyEngine.fetchRiskCeilings({})).riskCeilings;
    return { ceilingId: ceiling!.id, updates: { currentValue: 1 }, updateMask: { paths: ['current_value'] } };
  };
  const mine = new Error('mine');
  const id = randomUUID();
  const cases: Readonly<Record<string, { again: boolean; fails: (tx: Transaction) => Promise<unknown> }>> = {
    SERIALIZATION_FAILURE: {
      again: true,
      fails: async (tx) => {
        const request = await count();
        await client.singleUse.policyEngine.updateRiskCeiling(request);
        await tx.policyEngine.updateRiskCeiling(request);
      },
    },
    TRANSACTION_ROLLED_BACK: {
      again: true,
      fails: async (tx) => {
        await ask(sidecar, 'TransactionService/Rollback', { transactionId: tx.id });
        await insert(tx);
      },
    },
    TRANSACTION_EXPIRED: {
      again: false,
      fails: async (tx) => {
        for (;;) await insert(tx);
      },
    },
    UNIQUE_VIOLATION: { again: false, fails: async (tx) => [await insert(tx, id), await insert(tx, id)] },
    TRANSACTION_ABORTED: {
      again: false,
      fails: async (tx) => {
        await insert(tx, id);
        await expect(insert(tx, id)).rejects.toThrow(SidecarError);
        await insert(tx);
      },
    },
    INVALID_REQUEST: { again: false, fails: (tx) => insert(tx, 'no uuid') },
    mine: { again: false, fails: () => Promise.reject(mine) },
  };
  test.each(Object.entries(cases))('%s', async (what, { again, fails }) => {
    const reasons: unknown[] = [];
    let attempts = 0;
    const work = client.run(
      async (tx) => {
        attempts += 1;
        if (attempts > 1) return 'done';
        return fails(tx).catch((error: unknown) => {
          reasons.push(error === mine ? 'mine' : (error as SidecarError).reason);
          throw error;
        });
      },
      {
        isolationLevel: IsolationLevel.REPEATABLE_READ,
        ...(what === 'TRANSACTION_EXPIRED' ? { totalLeaseMs: 200 } : {}),
      },
    );
    if (again) expect(await work).toBe('done');
    else await expect(work).rejects.toBeInstanceOf(Error);
    expect({ reasons, attempts }).toEqual({ reasons: [what], attempts: again ? 2 : 1 });
  });
});

test.each([
  [undefined, 1, 50],
  [20, 1, 50],
  [20, 3, 200],
  [1_000, 2, 2_000],
  [undefined, 30, 5_000],
  [8_000, 2, 8_000],
])('asked for %s ms, the wait after attempt %i is %i ms, or up to as much again', (asked, attempt, least) => {
  const waits = Array.from({ length: 100 }, () =>
    delayMs(errorOf({ code: 'ABORTED', message: '', retryAfterMs: asked }), attempt),
  );
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(least);
  expect(Math.max(...waits)).toBeLessThan(2 * least);
});

/** A client of nobody, which tells how often an RPC was called. */
const ofNobody = async () => {
  const called: string[] = [];
  const counted = createConnectTransport({
    baseUrl: `http://127.0.0.1:${await freePort()}`,
    httpVersion: '1.1',
    interceptors: [
      (next) => (request) => {
        called.push(request.method.name);
        return next(request);
      },
    ],
  });
  return { nobody: overConnect(counted), times: (rpc: string) => called.filter((name) => name === rpc).length };
};

test('where nobody is there, a call outside transactions, and a stream, are tried five times', async () => {
  const { nobody, times } = await ofNobody();
  using _ends = nobody;
  await expect(nobody.policyEngine.fetchRiskCeilings({})).rejects.toThrow(UnavailableError);
  const rows = nobody.policyEngine.streamRiskCeilings({});
  await expect(rows[Symbol.asyncIterator]().next()).rejects.toThrow(UnavailableError);
  expect([times('FetchRiskCeilings'), times('StreamRiskCeilings')]).toEqual([5, 5]);
});

test('where nobody is there, `run` begins as often as it may try, and `transaction` once', async () => {
  const { nobody, times } = await ofNobody();
  using _ends = nobody;
  await expect(nobody.run(async () => {}, { attempts: 3 })).rejects.toThrow(UnavailableError);
  expect(times('Hold')).toBe(3);
  await expect(nobody.transaction()).rejects.toThrow(UnavailableError);
  expect(times('Hold')).toBe(4);
});

describe.each(['gRPC', 'Connect'])('over %s a stream', (way) => {
  const over = (address: string, options = {}): Client => {
    if (way === 'gRPC') return connect(address, options);
    // Compressed, all rows would be on their way at once.
    const baseUrl = `http://${address}`;
    return overConnect(createConnectTransport({ baseUrl, httpVersion: '1.1', acceptCompression: [] }), options);
  };
  const target = (): string => (way === 'gRPC' ? sidecar.grpc : sidecar.http);

  test.each([0, 510])('that is cut after %i rows goes on with nothing missing or twice', async (cut) => {
    await using proxy = await startProxy(target());
    using far = over(proxy.address);
    const tenantId = randomUUID();
    const expected = await writeRows(client, tenantId, cut + 560);
    const got: string[] = [];
    // No more may have arrived than the rows up to the next token.
    proxy.pass((cut + 40) * 4_200);
    // A row between those that have come must not cost one of those that follow.
    const between = longViolation(tenantId, -2 * (cut - 5) - 1);
    for await (const { violation: row } of far.policyEngine.streamViolations({ tenantId })) {
      got.push(row!.id);
      if (got.length === cut + 1) await client.singleUse.policyEngine.insertViolation(between);
      if (got.length === cut + 1 || row!.id === between.violationId) proxy.cut();
    }
    expect(new Set(got).size).toBe(got.length);
    expect(got.filter((id) => expected.includes(id))).toEqual(expected);
    expect(proxy.accepted).toBeGreaterThan(1);
    expect(got).toContain(between.violationId);
  });

  test('that is cut ends where it shall, and in a transaction', async () => {
    const tenantId = randomUUID();
    await writeRows(client, tenantId, 500);
    await using proxy = await startProxy(target());
    const read = async (stream: AsyncIterable<unknown>): Promise<void> => {
      for await (const _row of stream) proxy.cut();
    };
    using ends = over(proxy.address, { resume: false });
    await expect(read(ends.policyEngine.streamViolations({ tenantId }))).rejects.toThrow(UnavailableError);
    using far = over(proxy.address);
    await expect(read(far.policyEngine.streamViolations({ tenantId }, { resume: false }))).rejects.toThrow(
      UnavailableError,
    );
    const inside = far.transaction((tx) => read(tx.policyEngine.streamViolations({ tenantId })));
    await expect(inside).rejects.toThrow(SidecarError);
  });

  test('waits for its first row as long as for a call, and for the others as long as they take', async () => {
    const tenantId = randomUUID();
    // More than can be on their way.
    await writeRows(client, tenantId, 560);
    await using proxy = await startProxy(target());
    using near = over(target(), { timeoutMs: 5_000 });
    using far = over(proxy.address, { timeoutMs: 5_000 });
    const begun = near.policyEngine.streamViolations({ tenantId })[Symbol.asyncIterator]();
    await begun.next();
    await far.policyEngine.fetchPolicyVersions({}, { timeoutMs: 30_000 });
    proxy.lose('answers');
    const silent = far.policyEngine.streamViolations({ tenantId })[Symbol.asyncIterator]();
    await Promise.all([
      expect(silent.next()).rejects.toThrow(DeadlineError),
      expect(far.transaction()).rejects.toThrow(DeadlineError),
    ]);
    // It began before those whose time is over.
    let rows = 1;
    while (!(await begun.next()).done) rows += 1;
    expect(rows).toBe(560);
  });
});

test('a list is read by pages', async () => {
  const tenantId = randomUUID();
  const expected = await writeRows(client, tenantId, 25);
  const got: string[][] = [];
  for await (const { violations } of pages(client.policyEngine.fetchViolations, { tenantId, limit: 10 }))
    got.push(violations.map(({ id }) => id));
  expect(got.map(({ length }) => length)).toEqual([10, 10, 5]);
  expect(got.flat()).toEqual(expected);
  const wrong = pages(client.policyEngine.fetchViolations, { tenantId, pageToken: 'no token' });
  await expect(wrong.next()).rejects.toThrow(InvalidRequestError);
});

test('documents as text are exact, of a client or of a call', async () => {
  const text = '{"large": 9007199254740993, "whole": 1.0}';
  const row = { ...violation(), evidence: { kind: { case: 'stringValue', value: text } } } as const;
  using exact = connect(sidecar.grpc, { documents: 'text' });
  await exact.singleUse.policyEngine.insertViolation(row);
  const fetch = async (from: Client, options = {}) => {
    const answer = await from.policyEngine.fetchViolationById({ violationId: row.violationId }, options);
    return answer.violation?.evidence?.kind;
  };
  expect(await fetch(exact)).toEqual({ case: 'stringValue', value: text });
  expect(await fetch(client, { documents: 'text' })).toEqual({ case: 'stringValue', value: text });
  expect(await fetch(exact, { documents: 'values' })).toMatchObject({ case: 'structValue' });
  expect(await fetch(client)).toMatchObject({ case: 'structValue' });
});
