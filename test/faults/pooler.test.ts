import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { pgBouncerAvailable, startPgBouncer } from '../support/pgbouncer.ts';
import { createDatabase } from '../support/postgres.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useDatabase, useSidecar, useStarted } from '../support/use.ts';
import { violationWith } from '../support/violation.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;
const single = { transaction: 'single-use' };

if (!pgBouncerAvailable) console.log('pgbouncer is not installed: the sidecar behind a pooler is not tested');

const violation = (violationId: string = randomUUID(), severity = 0.1 + 0.2) =>
  violationWith({
    violationId,
    severity,
    evidence: jsonToValue({ 'a\u2028': [1e-7, '\\'] }),
    detectedAt: { seconds: 1n, nanos: 123_456_000 },
  });

describe.skipIf(!pgBouncerAvailable).each(['session', 'transaction'] as const)(
  'behind a PgBouncer in %s mode',
  (mode) => {
    const database = useDatabase();
    // In transaction mode fewer backends than the sidecar has connections, so that they really are shared.
    const size = mode === 'transaction' ? 6 : 60;
    const pooler = useStarted(
      () => startPgBouncer({ url: database.url, mode, settings: { default_pool_size: size } }),
      ({ stop }) => stop(),
    );
    const beside = useClient(() => database.url);
    const sidecar = useSidecar(() => startTestSidecar({}, pooler.url));
    let ceilingId: string;
    beforeAll(async () => {
      ceilingId = (await beside.query('select id from policy.risk_ceilings limit 1')).rows[0].id;
    });

    const stored = async (id: string): Promise<number> =>
      (await beside.query('select from policy.violations where id = $1', [id])).rows.length;
    const insert = (id: string, init: object) => sidecar.grpc.unary(rpc.insertViolation, violation(id), init);
    const begin = async (request = {}) => (await sidecar.grpc.unary(tx.begin, request)).transaction!.id!;

    // Story: the start-up parameter `options` was refused at the start, and in transaction mode 20 of 30 reads were INTERNAL:
    // a statement prepared on one backend was run on another.
    test('reads of every kind, many at once', async () => {
      const reads = Array.from({ length: 60 }, (_, index) =>
        index % 2 === 0
          ? sidecar.grpc.unary(rpc.fetchRiskCeilings, {})
          : sidecar.connect.unary(rpc.fetchPolicyVersions, { limit: 5 }),
      );
      await Promise.all(reads);
      await Promise.all(Array.from({ length: 5 }, () => collect(sidecar.grpc.stream(rpc.streamRiskCeilings, {}))));
    });

    test('writes, alone, once, in transactions and in lists; values stay exact', async () => {
      const [alone, once, leased, listed, undone] = Array.from({ length: 5 }, () => randomUUID()) as [
        string,
        string,
        string,
        string,
        string,
      ];
      await insert(alone, single);
      const headers = { 'idempotency-key': randomUUID() };
      for (let time = 0; time < 3; time += 1) await insert(once, { ...single, headers });
      const id = await begin();
      await insert(leased, { transaction: id });
      await sidecar.grpc.unary(tx.savepoint, { transactionId: id, name: 'a' });
      await insert(undone, { transaction: id });
      await sidecar.grpc.unary(tx.rollbackToSavepoint, { transactionId: id, name: 'a' });
      await sidecar.grpc.unary(tx.commit, { transactionId: id });
      await sidecar.grpc.unary(tx.execute, {
        operations: [{ request: { case: 'insertViolation' as const, value: violation(listed) } }],
      });
      for (const written of [alone, once, leased, listed]) expect(await stored(written)).toBe(1);
      expect(await stored(undone)).toBe(0);
      const { violation: read } = await sidecar.grpc.unary(rpc.fetchViolationById, { violationId: alone });
      expect(read).toMatchObject({ severity: 0.1 + 0.2, detectedAt: { seconds: 1n, nanos: 123_456_000 } });
      const subject = { case: 'transactionId' as const, value: id };
      expect((await sidecar.grpc.unary(tx.getOutcome, { subject })).outcome).toBe(Outcome.COMMITTED);
      const open = await begin();
      const asked = { case: 'transactionId' as const, value: open };
      expect((await sidecar.grpc.unary(tx.getOutcome, { subject: asked })).outcome).toBe(Outcome.IN_PROGRESS);
      await sidecar.grpc.unary(tx.rollback, { transactionId: open });
      expect((await sidecar.grpc.unary(tx.getOutcome, { subject: asked })).outcome).toBe(Outcome.ABORTED);
    });

    test('a held transaction ends with its stream', async () => {
      const ending = new AbortController();
      const stream = sidecar.grpc.stream(tx.hold, {}, { signal: ending.signal })[Symbol.asyncIterator]();
      const { transaction } = (await stream.next()).value!;
      const written = randomUUID();
      await insert(written, { transaction: transaction!.id! });
      ending.abort();
      await stream.next().catch(() => {});
      await vi.waitFor(async () => expect((await sidecar.grpc.unary(tx.list, {})).transactions).toEqual([]));
      expect(await stored(written)).toBe(0);
    });

    // Story: `pg_cancel_backend` got the pooler's number, answered false, and nobody looked: a deadline of 500 ms was
    // answered OK after 5.6 s, and twelve such callers starved the others.
    test('deadlines stop their statements in the database, and starve nobody', async ({ skip }) => {
      const own = await startPgBouncer({ url: database.url, mode, settings: { default_pool_size: size } });
      const { grpc, stop } = await startTestSidecar({}, own.url);
      await beside.query('begin');
      await beside.query('select from policy.risk_ceilings for update');
      try {
        const late = Array.from({ length: 12 }, () =>
          refusal(grpc.unary(rpc.resetRiskCeiling, { ceilingId }, { ...single, timeoutMs: 500 })),
        );
        await grpc.unary(rpc.fetchRiskCeilings, {});
        for (const error of await Promise.all(late)) expect(error.code).toBe('DEADLINE_EXCEEDED');
        await vi.waitFor(async () => {
          expect((await beside.query(WAITING_FOR_LOCK)).rows).toEqual([]);
        });
        await Promise.all(Array.from({ length: 20 }, () => grpc.unary(rpc.fetchRiskCeilings, {})));
        await beside.query('rollback');
        expect((await grpc.unary(rpc.resetRiskCeiling, { ceilingId }, single)).rowsAffected).toBe(1n);
      } catch (error) {
        const last = own.log().trimEnd().split('\n').slice(-5).join('\n');
        // pgbouncer#822: 1.18 may die of a statement that is cancelled under load.
        skip(own.version === '1.18.0' && /FATAL .*bad .*state/.test(last), `PgBouncer died:\n${last}`);
        throw new Error(`PgBouncer said last:\n${last}`, { cause: error });
      } finally {
        await beside.query('rollback');
        await stop();
        await own.stop();
      }
    });

    test('a lock is not waited for without limit', async () => {
      const own = await startTestSidecar({ lockTimeoutMs: 200 }, pooler.url);
      await beside.query('begin');
      await beside.query('select from policy.risk_ceilings for update');
      try {
        const error = await refusal(own.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, single));
        expect(error).toMatchObject({ code: 'ABORTED', reason: 'LOCK_NOT_AVAILABLE' });
      } finally {
        await beside.query('rollback');
        await own.stop();
      }
    });

    test('the pooler is restarted: calls go on', async () => {
      const own = await startPgBouncer({ url: database.url, mode });
      const other = await startTestSidecar({}, own.url);
      const read = () => other.grpc.unary(rpc.fetchRiskCeilings, {});
      const write = () => other.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, single);
      await read();
      await own.stop();
      expect((await refusal(read())).code).toBe('UNAVAILABLE');
      const again = await startPgBouncer({ url: database.url, mode, port: Number(new URL(own.url).port) });
      await vi.waitFor(read);
      expect((await write()).rowsAffected).toBe(1n);
      await other.stop();
      await again.stop();
    });
  },
);

// Story: with a server whose defaults differ every list was DATA_LOSS and doubles lost digits, in silence: behind a pooler
// that shares sessions a setting cannot be made, so it is looked at.
test.skipIf(!pgBouncerAvailable)(
  'settings of the server that answers do not rest on are refused by name, or made',
  async () => {
    const database = await createDatabase();
    const name = new URL(database.url).pathname.slice(1);
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(`alter database ${name} set extra_float_digits = 0`);
    await client.end();
    const [shared, own] = await Promise.all([
      startPgBouncer({ url: database.url, mode: 'transaction' }),
      startPgBouncer({ url: database.url, mode: 'session' }),
    ]);
    await expect(startTestSidecar({}, shared.url)).rejects.toMatchObject({
      reason: 'DATABASE_SETTINGS',
      metadata: { setting: 'extra_float_digits' },
    });
    // What looks for itself takes any pooler for one that shares sessions.
    await expect(startTestSidecar({}, own.url)).rejects.toMatchObject({ reason: 'DATABASE_SETTINGS' });
    for (const pooler of ['session', 'none'] as const) {
      const sidecar = await startTestSidecar({ pooler }, own.url);
      const id = randomUUID();
      await sidecar.grpc.unary(rpc.insertViolation, violation(id), single);
      const { violation: read } = await sidecar.grpc.unary(rpc.fetchViolationById, { violationId: id });
      expect(read!.severity).toBe(0.1 + 0.2);
      await sidecar.stop();
    }
    await Promise.all([shared.stop(), own.stop()]);
    await database.drop();
  },
);
