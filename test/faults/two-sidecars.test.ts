import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { describe, expect, inject, test, vi } from 'vitest';
import { openDatabase } from '../../src/database/pool.ts';
import { readTarget } from '../../src/database/target.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService, TransactionState } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { prune } from '../../src/transactions/outcomes.ts';
import { refusal } from '../support/client.ts';
import { createDatabase, type TestDatabase } from '../support/postgres.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const a = useSidecar();
// Of the same host name and process number, as two containers may be.
const b = useSidecar(() => startTestSidecar({}, a.url));

const begin = async (on: TestSidecar, request: object = {}) =>
  (await on.grpc.unary(tx.begin, request)).transaction!.id!;
const write = (on: TestSidecar, transaction: string) =>
  on.grpc.unary(rpc.insertViolation, violation(), { transaction });
const read = (on: TestSidecar, transaction: string) => on.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction });
const commit = (on: TestSidecar, transactionId: string) => on.grpc.unary(tx.commit, { transactionId });
const rollBack = (on: TestSidecar, transactionId: string) => on.grpc.unary(tx.rollback, { transactionId });
const outcome = async (on: TestSidecar, value: string) =>
  (await on.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;
const evidence = async () => (await a.sql('select from policy_sidecar.outcomes')).length;
const stored = async () => (await a.sql('select from policy.violations')).length;

describe('a transaction of one sidecar at another', () => {
  // Story: Rollback through a second sidecar answered ROLLED_BACK for a transaction that was open and then committed.
  test('is refused with the name of its holder for as long as it is open, and goes on where it is', async () => {
    const before = await stored();
    const id = await begin(a);
    await write(a, id);
    const holders = new Set<string | undefined>();
    for (const call of [
      () => read(b, id),
      () => write(b, id),
      () => commit(b, id),
      () => rollBack(b, id),
      () => b.grpc.unary(tx.get, { transactionId: id }),
      () => b.grpc.unary(tx.savepoint, { transactionId: id, name: 's' }),
    ]) {
      const error = await refusal(call());
      expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_ELSEWHERE' });
      holders.add(error.metadata['holder']);
    }
    const own = await begin(b);
    const other = await refusal(read(a, own));
    expect(other.reason).toBe('TRANSACTION_ELSEWHERE');
    await rollBack(b, own);
    expect(holders.size).toBe(1);
    expect(holders).not.toContain(undefined);
    expect(holders).not.toContain(other.metadata['holder']);
    expect(await outcome(a, id)).toBe(Outcome.IN_PROGRESS);
    expect(await outcome(b, id)).toBe(Outcome.IN_PROGRESS);
    await commit(a, id);
    expect(await stored()).toBe(before + 1);
    for (const on of [a, b]) {
      expect(await outcome(on, id)).toBe(Outcome.COMMITTED);
      expect((await rollBack(on, id)).state).toBe(TransactionState.COMMITTED);
    }
    // Ended or not, it is not to be used there.
    expect(await refusal(write(b, id))).toMatchObject({ reason: 'TRANSACTION_ELSEWHERE' });
  });

  test('that was rolled back has aborted for both', async () => {
    const id = await begin(a);
    await write(a, id);
    await rollBack(a, id);
    for (const on of [a, b]) {
      expect(await outcome(on, id)).toBe(Outcome.ABORTED);
      expect((await rollBack(on, id)).state).toBe(TransactionState.ROLLED_BACK);
    }
  });

  test('that has failed is in progress until it ends', async () => {
    const id = await begin(a, { isolationLevel: 3 });
    await write(a, id);
    await a.sql(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
      and application_name = 'policy-sidecar transaction' and state = 'idle in transaction'`);
    await vi.waitFor(async () => expect(await outcome(b, id)).toBe(Outcome.ABORTED));
    expect(await outcome(a, id)).toBe(Outcome.ABORTED);
  });

  // Story: the race of a rollback at one sidecar against the commit at the other must have one word for its end.
  test('never is called rolled back when it commits, however close the two calls are', async () => {
    for (let turn = 0; turn < 60; turn += 1) {
      const id = await begin(a);
      await write(a, id);
      const committing = commit(a, id);
      for (let wait = 0; wait < turn % 20; wait += 1) await new Promise(setImmediate);
      const seen = await rollBack(b, id).then(
        ({ state }) => state,
        (error) => error.reason,
      );
      await committing;
      expect(['TRANSACTION_ELSEWHERE', TransactionState.COMMITTED]).toContain(seen);
      expect(await outcome(b, id)).toBe(Outcome.COMMITTED);
    }
  });

  test('leaves no row when it wrote nothing', async () => {
    const before = await evidence();
    for (const readOnly of [false, true]) {
      const id = await begin(a, { readOnly });
      await read(a, id);
      await commit(a, id);
      expect(await outcome(a, id)).toBe(Outcome.COMMITTED);
    }
    expect(await evidence()).toBe(before);
    const id = await begin(a);
    await write(a, id);
    await commit(a, id);
    expect(await evidence()).toBe(before + 1);
  });
});

// Story: outcomes were read from PostgreSQL's own numbers, which say ABORTED, or refuse, once they are forgotten.
test('an outcome past the retention is unknown, never a wrong word; later ones are known', async () => {
  const [committed, rolledBack] = [await begin(a), await begin(a)];
  await write(a, committed);
  await write(a, rolledBack);
  await commit(a, committed);
  await rollBack(a, rolledBack);
  const database = openDatabase(readTarget(a.url), {
    pooler: 'auto',
    statementMs: 5_000,
    lockMs: 5_000,
    calls: { max: 1, queue: 1, waitMs: 5_000 },
    transactions: { max: 1, queue: 1, waitMs: 5_000 },
  });
  try {
    // Not yet past it.
    await prune(database.reserve, 60_000);
    expect(await outcome(b, committed)).toBe(Outcome.COMMITTED);
    expect(await outcome(b, rolledBack)).toBe(Outcome.ABORTED);
    await prune(database.reserve, 0);
    expect(await evidence()).toBe(0);
    expect(await outcome(b, committed)).toBe(Outcome.UNKNOWN);
    expect(await outcome(b, rolledBack)).toBe(Outcome.UNKNOWN);
    expect((await rollBack(b, committed)).state).toBe(TransactionState.UNKNOWN);
    // The holder remembers by itself what was rolled back, and must not deny what was committed.
    expect(await outcome(a, rolledBack)).toBe(Outcome.ABORTED);
    expect(await outcome(a, committed)).not.toBe(Outcome.ABORTED);
    // One that began after what was pruned is known, whatever comes.
    const later = [await begin(a), await begin(a)] as const;
    await write(a, later[0]);
    await write(a, later[1]);
    expect(await outcome(b, later[0])).toBe(Outcome.IN_PROGRESS);
    await prune(database.reserve, 60_000);
    await commit(a, later[0]);
    await rollBack(a, later[1]);
    expect(await outcome(b, later[0])).toBe(Outcome.COMMITTED);
    expect(await outcome(b, later[1])).toBe(Outcome.ABORTED);
  } finally {
    await database.end(0);
  }
});

// Story: after a dump was restored, transactions that the dump did not hold were told to have committed: their numbers
// had been given to others there.
test('a copy of the database bears out what it holds, not what happened to the original since', async () => {
  const original: TestDatabase = await createDatabase();
  const server = new pg.Client({ connectionString: inject('postgresUrl') });
  await server.connect();
  const name = `copy_${randomUUID().replaceAll('-', '')}`;
  const copyUrl = new URL(original.url);
  copyUrl.pathname = `/${name}`;
  const running: TestSidecar[] = [];
  const start = async (url: string) => {
    const sidecar = await startTestSidecar({}, url);
    running.push(sidecar);
    return sidecar;
  };
  try {
    const first = await start(original.url);
    const before = await begin(first);
    await write(first, before);
    await commit(first, before);
    const dropped = await begin(first);
    await write(first, dropped);
    await rollBack(first, dropped);
    await running.pop()!.stop();
    await server.query(`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1`, [
      new URL(original.url).pathname.slice(1),
    ]);
    await server.query(
      `create database ${name} template ${new URL(original.url).pathname.slice(1)} strategy file_copy`,
    );
    const second = await start(original.url);
    const copy = await start(copyUrl.href);
    const since = await begin(second);
    await write(second, since);
    await commit(second, since);
    const gone = await begin(second);
    await write(second, gone);
    await rollBack(second, gone);
    // Others write at the copy meanwhile, under numbers that the original has given out, too.
    for (let turn = 0; turn < 20; turn += 1) await write(copy, 'single-use');
    expect(await outcome(copy, before)).toBe(Outcome.COMMITTED);
    expect(await outcome(second, before)).toBe(Outcome.COMMITTED);
    expect(await outcome(second, since)).toBe(Outcome.COMMITTED);
    for (const id of [dropped, since, gone]) expect(await outcome(copy, id)).toBe(Outcome.ABORTED);
  } finally {
    for (const sidecar of running) await sidecar.stop();
    await server.query(`drop database if exists ${name} with (force)`);
    await server.end();
    await original.drop();
  }
});
