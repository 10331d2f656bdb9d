import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { whileLocked } from '../support/locked.ts';
import { startNetwork } from '../support/network.ts';
import { openPool } from '../support/postgres.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { violation, violationWith } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;
const single = { transaction: 'single-use' };

let cluster: Cluster;
let admin: ReturnType<typeof openPool>;
/** Its commits tell where the log stood. Its replica is none, and never read. */
let marking: TestSidecar;
let ceilingId: string;
beforeAll(async () => {
  cluster = await startCluster({});
  admin = openPool(cluster.adminUrl, 4);
  marking = await startTestSidecar({ replicaUrls: [cluster.url] }, cluster.url);
  ceilingId = (await admin.query('select id from policy.risk_ceilings limit 1')).rows[0].id;
});
afterAll(async () => {
  await marking?.stop();
  await admin?.end();
  await cluster?.stop();
});

/** Waits until a statement of a sidecar has waited so long, for that; its process. */
const waiting = (event: string, seconds: number): Promise<number> =>
  vi.waitFor(async () => {
    const { rows } = await admin.query(
      `select pid from pg_stat_activity where application_name like 'policy-sidecar%' and wait_event = $1
         and clock_timestamp() - query_start > make_interval(secs => $2)`,
      [event, seconds],
    );
    expect(rows).toHaveLength(1);
    return rows[0].pid;
  });

// Story: where the log stands is asked behind each write, and that question had a second, counted from when it was asked: the
// write was cancelled for it, whatever its own clocks were.
test('a write that waits for longer than a second is not stopped for what is asked behind it', async () => {
  const person = await admin.connect();
  const lock = `select from policy.risk_ceilings where id = '${ceilingId}' for update`;
  let write: Promise<unknown> | undefined;
  await whileLocked(person, lock, async () => {
    write = marking.grpc.unary(
      rpc.updateRiskCeiling,
      { ceilingId, updates: { maxValue: 7 }, updateMask: { paths: ['max_value'] } },
      single,
    );
    await Promise.race([waiting('transactionid', 1.3), write]);
  });
  expect(await write).toMatchObject({ rowsAffected: 1n });
  person.release();
});

// Story: a clock that asked whether the write was next did not know it, and never ended its wait.
test('a single-use write is stopped when it takes as long as a statement may, though its caller would wait', async () => {
  const own = await startTestSidecar({ callTimeoutMs: 500, lockTimeoutMs: 60_000 }, cluster.url);
  const person = await admin.connect();
  await whileLocked(person, `select from policy.risk_ceilings where id = '${ceilingId}' for update`, async () => {
    const reset = own.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, { ...single, timeoutMs: 60_000 });
    expect(await refusal(reset)).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: 'STATEMENT_TIMEOUT' });
  });
  person.release();
  await own.stop();
});

// Story: of a hundred operations under way together the last were stopped for the time that those before them had taken.
test('an operation has its time from when those before it are done', async () => {
  const own = await startTestSidecar({ callTimeoutMs: 2_000 }, cluster.url);
  await admin.query(`create function policy.takes_long() returns trigger language plpgsql as
      $$ begin perform pg_sleep(0.5); return new; end $$;
    create trigger takes_long before insert on policy.violations for each row execute function policy.takes_long()`);
  try {
    const operations = Array.from({ length: 6 }, () => ({
      request: { case: 'insertViolation' as const, value: violation() },
    }));
    const { results } = await own.grpc.unary(tx.execute, { operations }, { timeoutMs: 60_000 });
    expect(results).toHaveLength(6);
  } finally {
    await admin.query('drop function policy.takes_long cascade');
    await own.stop();
  }
});

/** Runs work while commits wait for a standby that there is not. */
const withoutStandby = async (work: () => Promise<void>): Promise<void> => {
  const set = async (names: string): Promise<void> => {
    await admin.query(`alter system set synchronous_standby_names = '${names}'`);
    await admin.query('select pg_reload_conf()');
  };
  await set('nobody');
  try {
    await work();
  } finally {
    await set('');
  }
};

// Story: PostgreSQL answers a commit whose wait for a standby was ended with a warning and COMMIT, and so did the sidecar: a
// failover lost what had been acknowledged. The question behind it ended that wait after a second.
test('a commit that no standby has is not told as one', async () => {
  const { transaction } = await marking.grpc.unary(tx.begin, {});
  const transactionId = transaction!.id!;
  await marking.grpc.unary(rpc.insertViolation, violation(), { transaction: transactionId });
  await withoutStandby(async () => {
    // The setting is taken over by each process in its own time.
    const told = refusal(marking.grpc.unary(tx.commit, { transactionId }));
    const pid = await waiting('SyncRep', 1.3);
    await admin.query('select pg_cancel_backend($1)', [pid]);
    expect(await told).toMatchObject({ code: 'UNAVAILABLE', reason: 'COMMIT_OUTCOME_UNKNOWN' });
    const alone = refusal(marking.grpc.unary(rpc.insertViolation, violation(), single));
    await admin.query('select pg_cancel_backend($1)', [await waiting('SyncRep', 0)]);
    expect(await alone).toMatchObject({ code: 'UNAVAILABLE', reason: 'COMMIT_OUTCOME_UNKNOWN' });
  });
  const subject = { case: 'transactionId' as const, value: transactionId };
  expect((await marking.grpc.unary(tx.getOutcome, { subject })).outcome).toBe(Outcome.COMMITTED);
});

// Its wait for a standby was ended by the clock of statements, and everybody saw then what no standby had.
test('a commit that takes longer than a statement may is left to its wait, and nobody sees it yet', async () => {
  const own = await startTestSidecar({ callTimeoutMs: 500 }, cluster.url);
  const row = violation();
  try {
    const { transaction } = await own.grpc.unary(tx.begin, {});
    const transactionId = transaction!.id!;
    await own.grpc.unary(rpc.insertViolation, row, { transaction: transactionId });
    await withoutStandby(async () => {
      const told = await refusal(own.grpc.unary(tx.commit, { transactionId }, { timeoutMs: 60_000 }));
      expect(told).toMatchObject({ code: 'UNAVAILABLE', reason: 'COMMIT_OUTCOME_UNKNOWN' });
      await waiting('SyncRep', 0);
      const seen = await admin.query('select from policy.violations where id = $1', [row.violationId]);
      expect(seen.rowCount).toBe(0);
    });
  } finally {
    await own.stop();
  }
});

/** What a server says when it has closed something. */
const CLOSE_COMPLETE = Buffer.from([0x33, 0, 0, 0, 4]);

/** What PgBouncer sends to its client when it has lost the server. */
const POOLERS_ERROR = (() => {
  const body = Buffer.from('SFATAL\0C08P01\0Mserver conn crashed?\0\0');
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
})();

// Story: a stream that was cancelled kept its portal, with all that it sorted, until its transaction ended.
test('a stream that is left inside a transaction is closed in the database', async () => {
  const network = await startNetwork(cluster.url);
  const sidecar = await startTestSidecar({}, network.url);
  await admin.query(
    `insert into policy.violations (id, evaluation_id, violation_type, severity, description, evidence, routed_to_governor)
     select gen_random_uuid(), null, 'x', 0.5, repeat('d', 2000), '{}', false from generate_series(1, 3000)`,
  );
  let closed = 0;
  network.meddle((chunk) => {
    for (let at = chunk.indexOf(CLOSE_COMPLETE); at !== -1; at = chunk.indexOf(CLOSE_COMPLETE, at + 1)) closed += 1;
    return chunk;
  });
  try {
    const { transaction } = await sidecar.grpc.unary(tx.begin, {});
    const inside = { transaction: transaction!.id! };
    for (let count = 1; count <= 3; count += 1) {
      for await (const _ of sidecar.grpc.stream(rpc.streamViolations, {}, inside)) break;
      await vi.waitFor(() => expect(closed).toBe(count));
    }
    await sidecar.grpc.unary(tx.rollback, { transactionId: transaction!.id! });
  } finally {
    await sidecar.stop();
    await network.close();
  }
});

// Story: what a pooler says of a server that it has lost counted as the server's own word that it had done nothing, and the
// write was sent again: it took effect twice.
test('a write whose answer a pooler has lost is not sent again, and nobody says that it was not done', async () => {
  const network = await startNetwork(cluster.url);
  const sidecar = await startTestSidecar({}, network.url);
  const insert = (description: string) =>
    sidecar.grpc.unary(rpc.insertViolation, violationWith({ description }), single);
  try {
    // The connection has been lent before.
    await insert('first');
    network.meddle((chunk, _at, client) => {
      if (!chunk.includes('INSERT 0 1')) return chunk;
      network.meddle(undefined);
      client.write(POOLERS_ERROR);
      client.end();
      return Buffer.alloc(0);
    });
    expect(await refusal(insert('second'))).toMatchObject({ code: 'UNAVAILABLE', reason: 'COMMIT_OUTCOME_UNKNOWN' });
    const { rows } = await admin.query(`select count(*) from policy.violations where description = 'second'`);
    expect(rows).toEqual([{ count: '1' }]);
  } finally {
    await sidecar.stop();
    await network.close();
  }
});
