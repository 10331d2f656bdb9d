import { randomUUID } from 'node:crypto';
import { durationFromMs, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import type { Pool } from 'pg';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService, TransactionState } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type Caller, refusal } from '../support/client.ts';
import { startCluster } from '../support/cluster.ts';
import { createDatabase, openPool } from '../support/postgres.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const sidecar = useSidecar({ transactionTotalLeaseMs: 60_000, transactionTotalLeaseMaxMs: 120_000 });
beforeEach(async () => {
  // What a failed test has left would hold the table.
  const left = await sidecar.sql<{ gid: string }>(
    'select gid from pg_prepared_xacts where database = current_database()',
  );
  for (const { gid } of left) await sidecar.sql(`rollback prepared '${gid}'`);
  await sidecar.sql('truncate policy.violations');
});

const stored = async (): Promise<string[]> =>
  (await sidecar.sql<{ description: string }>('select description from policy.violations order by description')).map(
    ({ description }) => description,
  );

const insert = (caller: Caller, description: string, transaction: string, violationId: string = randomUUID()) =>
  caller.unary(
    rpc.insertViolation,
    {
      violationId,
      violationType: 'x',
      severity: 0.5,
      description,
      evidence: jsonToValue({}),
      routedToGovernor: false,
      detectedAt: { seconds: 1n, nanos: 0 },
    },
    { transaction },
  );

const begin = async (caller: Caller): Promise<string> => (await caller.unary(tx.begin, {})).transaction!.id!;

/** A transaction that has written a row and is prepared. */
const prepared = async (caller: Caller, description = 'a', leaseMs?: number): Promise<string> => {
  const transactionId = await begin(caller);
  await insert(caller, description, transactionId);
  await caller.unary(tx.prepare, {
    transactionId,
    ...(leaseMs === undefined ? {} : { lease: durationFromMs(leaseMs) }),
  });
  return transactionId;
};

const outcome = async (caller: Caller, value: string): Promise<Outcome> =>
  (await caller.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;

describe.each(['grpc', 'connect'] as const)('over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('what is prepared is not done yet, can be no further used, and is done when it is committed', async () => {
    const transactionId = await prepared(caller());
    expect(await stored()).toEqual([]);
    expect(await outcome(caller(), transactionId)).toBe(Outcome.IN_PROGRESS);
    const uses = [
      () => insert(caller(), 'b', transactionId),
      () => caller().unary(tx.commit, { transactionId }),
      () => caller().unary(tx.rollback, { transactionId }),
      () => caller().unary(tx.prepare, { transactionId }),
    ];
    for (const use of uses) {
      expect(await refusal(use())).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_PREPARED' });
    }
    await caller().unary(tx.commitPrepared, { transactionId });
    expect(await stored()).toEqual(['a']);
    expect(await outcome(caller(), transactionId)).toBe(Outcome.COMMITTED);
    await caller().unary(tx.commitPrepared, { transactionId });
    expect(await refusal(caller().unary(tx.rollbackPrepared, { transactionId }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'TRANSACTION_COMMITTED',
    });
    expect(await caller().unary(tx.rollback, { transactionId })).toMatchObject({ state: TransactionState.COMMITTED });
  });

  test('what is rolled back leaves nothing, and can be rolled back again but not committed', async () => {
    const transactionId = await prepared(caller());
    await caller().unary(tx.rollbackPrepared, {}, { transaction: transactionId });
    await caller().unary(tx.rollbackPrepared, { transactionId });
    expect(await refusal(caller().unary(tx.commitPrepared, { transactionId }))).toMatchObject({
      reason: 'TRANSACTION_ROLLED_BACK',
    });
    expect(await outcome(caller(), transactionId)).toBe(Outcome.ABORTED);
    expect(await stored()).toEqual([]);
  });

  test('the stream that held it tells that it is prepared, and its end undoes nothing', async () => {
    const left = new AbortController();
    const hold = caller().stream(tx.hold, {}, { signal: left.signal })[Symbol.asyncIterator]();
    const transactionId = (await hold.next()).value!.transaction!.id!;
    await insert(caller(), 'held', transactionId);
    await caller().unary(tx.prepare, { transactionId });
    expect((await hold.next()).value!.transaction!.state).toBe(TransactionState.PREPARED);
    left.abort();
    expect(await outcome(caller(), transactionId)).toBe(Outcome.IN_PROGRESS);
    await caller().unary(tx.commitPrepared, { transactionId });
    expect(await stored()).toEqual(['held']);
  });

  test('many who commit it at once are all told that it is committed', async () => {
    const transactionId = await prepared(caller());
    await Promise.all(Array.from({ length: 8 }, () => caller().unary(tx.commitPrepared, { transactionId })));
    expect(await stored()).toEqual(['a']);
  });
});

test('one that has written nothing commits all the same', async () => {
  const transactionId = await begin(sidecar.grpc);
  await sidecar.grpc.unary(tx.prepare, { transactionId });
  await sidecar.grpc.unary(tx.commitPrepared, { transactionId });
  expect(await outcome(sidecar.grpc, transactionId)).toBe(Outcome.COMMITTED);
});

test('an open one, an aborted one, a read-only one and one of nobody are told apart', async () => {
  const { grpc } = sidecar;
  const open = await begin(grpc);
  for (const end of [tx.commitPrepared, tx.rollbackPrepared]) {
    expect(await refusal(grpc.unary(end, { transactionId: open }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'TRANSACTION_NOT_PREPARED',
    });
    expect(await refusal(grpc.unary(end, { transactionId: 'x' }))).toMatchObject({ reason: 'TRANSACTION_UNKNOWN' });
    expect(await refusal(grpc.unary(end, {}))).toMatchObject({ fields: ['transaction_id'] });
  }
  await grpc.unary(tx.rollback, { transactionId: open });

  const aborted = await begin(grpc);
  const violationId = randomUUID();
  await insert(grpc, 'a', aborted, violationId);
  expect(await refusal(insert(grpc, 'b', aborted, violationId))).toMatchObject({ code: 'ALREADY_EXISTS' });
  expect(await refusal(grpc.unary(tx.prepare, { transactionId: aborted }))).toMatchObject({
    reason: 'TRANSACTION_ABORTED',
  });
  expect(await refusal(grpc.unary(tx.commitPrepared, { transactionId: aborted }))).toMatchObject({
    reason: 'TRANSACTION_ROLLED_BACK',
  });

  const readOnly = (await grpc.unary(tx.begin, { readOnly: true })).transaction!.id!;
  expect(await refusal(grpc.unary(tx.prepare, { transactionId: readOnly }))).toMatchObject({
    reason: 'READ_ONLY_TRANSACTION',
  });
  expect((await grpc.unary(tx.get, { transactionId: readOnly })).transaction!.state).toBe(TransactionState.OPEN);
  await grpc.unary(tx.rollback, { transactionId: readOnly });
});

test('another sidecar lists it, and ends it when the first one is gone', async () => {
  const first = await startTestSidecar({}, sidecar.url);
  const ids = [await prepared(first.grpc, 'a'), await prepared(first.grpc, 'b')];
  await first.stop();
  const { transactions } = await sidecar.grpc.unary(tx.listPrepared, {});
  expect(transactions.map(({ id }) => id)).toEqual(ids);
  for (const { preparedAt, expiresAt } of transactions) {
    expect(timestampMs(expiresAt!) - timestampMs(preparedAt!)).toBe(300_000);
  }
  await sidecar.grpc.unary(tx.commitPrepared, { transactionId: ids[0]! });
  await sidecar.grpc.unary(tx.rollbackPrepared, { transactionId: ids[1]! });
  expect(await stored()).toEqual(['a']);
  expect((await sidecar.grpc.unary(tx.listPrepared, {})).transactions).toEqual([]);
});

test('its lease is clamped, and when it is over the transaction is rolled back, by whichever sidecar there is', async () => {
  const transactionId = await begin(sidecar.grpc);
  const { lease } = await sidecar.grpc.unary(tx.prepare, { transactionId, lease: durationFromMs(86_400_000) });
  expect(durationMs(lease!)).toBe(120_000);
  await sidecar.grpc.unary(tx.rollbackPrepared, { transactionId });
  const first = await startTestSidecar({}, sidecar.url);
  const left = await prepared(first.grpc, 'left', 1);
  await first.stop();
  await vi.waitFor(async () => expect(await outcome(sidecar.grpc, left)).toBe(Outcome.ABORTED), {
    interval: 100,
  });
  expect(await refusal(sidecar.grpc.unary(tx.commitPrepared, { transactionId: left }))).toMatchObject({
    reason: 'TRANSACTION_ROLLED_BACK',
  });
  expect(sidecar.log()).toContainEqual(
    expect.objectContaining({ level: 'warn', transaction: left.slice(0, 10), msg: expect.stringContaining('lease') }),
  );
  expect(await stored()).toEqual([]);
});

// Story: what another role had prepared cannot be ended by this one, and nothing behind it was ended any more, either.
test('what belongs to another role keeps nothing else from being rolled back, and is told of', async () => {
  const database = await createDatabase();
  const admin = openPool(database.url, 1);
  const role = `runner_${randomUUID().slice(0, 8)}`;
  const foreign = ['foreign-a', 'foreign-b', 'foreign-c'];
  try {
    await admin.query(`create role ${role} login password 'secret'`);
    for (const schema of ['policy', 'policy_sidecar', 'public']) {
      await admin.query(`grant usage on schema ${schema} to ${role}`);
      await admin.query(`grant select, insert, update, delete on all tables in schema ${schema} to ${role}`);
    }
    for (const id of foreign) {
      await admin.query(`begin; select pg_current_xact_id(); prepare transaction 'policy-sidecar:1:${id}'`);
    }
    const url = new URL(database.url);
    url.username = role;
    url.password = 'secret';
    const runner = await startTestSidecar({}, url.href);
    const own = await prepared(runner.grpc, 'own', 1);
    await vi.waitFor(async () => expect(await outcome(runner.grpc, own)).toBe(Outcome.ABORTED), { interval: 100 });
    await runner.stop();
    const told = runner.log().filter(({ msg }) => String(msg).includes('could not be rolled back'));
    expect(told.map(({ transaction }) => transaction).sort()).toEqual(foreign);
  } finally {
    for (const id of foreign) await admin.query(`rollback prepared 'policy-sidecar:1:${id}'`);
    await admin.query(`drop owned by ${role}`);
    await admin.query(`drop role ${role}`);
    await admin.end();
    await database.drop();
  }
});

/** Has the commits of a cluster wait for a standby that there is not. */
const standbyOf = (admin: Pool) => {
  const setStandby = async (name: string): Promise<void> => {
    await admin.query(`alter system set synchronous_standby_names = '${name}'`);
    await admin.query('select pg_reload_conf()');
  };
  const commitWaits = `select 1 from pg_stat_activity where wait_event = 'SyncRep'`;
  /** Commits until one waits: what a session shows of the setting says nothing of what all of them go by. */
  const untilOneWaits = async (): Promise<{ readonly ended: Promise<unknown> }> => {
    for (;;) {
      let isOver = false;
      const ended = admin.query(`select pg_logical_emit_message(true, 'probe', '')`).then(() => {
        isOver = true;
      });
      while (!isOver) if ((await admin.query(commitWaits)).rowCount) return { ended };
    }
  };
  return { setStandby, untilOneWaits };
};

// Story: three commits that waited for a standby had all connections that health and outcomes have.
test('commits that the database does not get done leave health and outcomes their connection', async () => {
  const cluster = await startCluster({ max_prepared_transactions: '10' });
  const other = await startTestSidecar({}, cluster.url);
  const admin = openPool(cluster.adminUrl, 2);
  const { setStandby, untilOneWaits } = standbyOf(admin);
  try {
    const ids = await Promise.all(['a', 'b', 'c', 'd'].map((description) => prepared(other.grpc, description)));
    await setStandby('nobody');
    const commit = await untilOneWaits();
    const commits = Promise.allSettled(
      ids.map((transactionId) => other.grpc.unary(tx.commitPrepared, { transactionId })),
    );
    try {
      await vi.waitFor(async () => {
        const text = `select from pg_stat_activity where wait_event = 'SyncRep' and application_name like 'policy-sidecar%'`;
        expect((await admin.query(text)).rowCount).toBeGreaterThanOrEqual(2);
      });
      for (let count = 0; count < 20; count += 1) expect(await outcome(other.grpc, ids[0]!)).not.toBe(Outcome.UNKNOWN);
    } finally {
      await setStandby('');
      await commit.ended;
    }
    expect((await commits).filter(({ status }) => status === 'fulfilled').length).toBeGreaterThanOrEqual(2);
  } finally {
    await admin.end();
    await other.stop();
    await cluster.stop();
  }
});

// Its end is not cancelled once it has been asked for, and its caller's deadline was not kept either, for a minute.
test('a commit that the database does not get done is told at the deadline, and goes on', async () => {
  const cluster = await startCluster({ max_prepared_transactions: '1' });
  const other = await startTestSidecar({}, cluster.url);
  const admin = openPool(cluster.adminUrl, 2);
  const { setStandby, untilOneWaits } = standbyOf(admin);
  try {
    const transactionId = await prepared(other.grpc, 'a');
    // Commits wait for a standby that there is not.
    await setStandby('nobody');
    const commit = await untilOneWaits();
    try {
      await refusal(other.grpc.unary(tx.commitPrepared, { transactionId }, { timeoutMs: 500 }));
      await vi.waitFor(() => {
        const line = { method: 'TransactionService/CommitPrepared', reason: 'COMMIT_OUTCOME_UNKNOWN' };
        expect(other.log()).toContainEqual(expect.objectContaining(line));
      });
    } finally {
      await setStandby('');
      await commit.ended;
    }
    await other.grpc.unary(tx.commitPrepared, { transactionId });
    expect((await other.grpc.unary(rpc.fetchViolations, {})).violations).toHaveLength(1);
  } finally {
    await admin.end();
    await other.stop();
    await cluster.stop();
  }
});

test.each([
  ['0', 'PREPARED_TRANSACTIONS_OFF', 'FAILED_PRECONDITION'],
  ['1', 'PREPARED_TRANSACTIONS_LIMIT', 'RESOURCE_EXHAUSTED'],
])('a database that keeps %s refuses, and the transaction goes on', async (most, reason, code) => {
  const cluster = await startCluster({ max_prepared_transactions: most });
  const other = await startTestSidecar({}, cluster.url);
  try {
    const kept = most === '0' ? undefined : await prepared(other.grpc, 'kept');
    const transactionId = await begin(other.grpc);
    await insert(other.grpc, 'a', transactionId);
    expect(await refusal(other.grpc.unary(tx.prepare, { transactionId }))).toMatchObject({ code, reason });
    await insert(other.grpc, 'b', transactionId);
    await other.grpc.unary(tx.commit, { transactionId });
    if (kept !== undefined) await other.grpc.unary(tx.rollbackPrepared, { transactionId: kept });
    const { violations } = await other.grpc.unary(rpc.fetchViolations, {});
    expect(violations.map(({ description }) => description).sort()).toEqual(['a', 'b']);
  } finally {
    await other.stop();
    await cluster.stop();
  }
});
