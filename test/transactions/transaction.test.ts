import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { durationFromMs, durationMs, timestampMs } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import {
  IsolationLevel,
  Outcome,
  TransactionService,
  TransactionState,
} from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { whileLocked } from '../support/locked.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useSidecar } from '../support/use.ts';
import { violationWith } from '../support/violation.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

/** Calls that may wait inside a transaction. */
const QUEUE = 5;
const sidecar = useSidecar({ transactionsMax: 4, poolWaitMs: 5_000, transactionQueue: QUEUE, lockTimeoutMs: 60_000 });
/** A person at the database, who holds locks. */
const person = useClient(() => sidecar.url);
beforeEach(() => sidecar.sql('truncate policy.violations, policy_sidecar.requests'));

const violation = (description: string, fields: object = {}) => violationWith({ description, ...fields });

/** What is committed. */
const stored = async (): Promise<string[]> =>
  (await sidecar.sql<{ description: string }>('select description from policy.violations order by description')).map(
    ({ description }) => description,
  );

describe.each(['grpc', 'connect'] as const)('transactions over %s', (listener) => {
  const caller = () => sidecar[listener];
  const begin = async (request: object = {}) => (await caller().unary(tx.begin, request)).transaction!;
  const insert = (description: string, transaction?: string, headers: Record<string, string> = {}, fields = {}) =>
    caller().unary(rpc.insertViolation, violation(description, fields), {
      ...(transaction === undefined ? {} : { transaction }),
      headers,
    });
  const list = (transaction?: string) =>
    caller().unary(rpc.fetchViolations, {}, transaction === undefined ? {} : { transaction });
  const commit = (transactionId: string) => caller().unary(tx.commit, { transactionId });
  const rollback = (transactionId: string) => caller().unary(tx.rollback, { transactionId });
  const fail = (transaction: string) => refusal(insert('x', transaction, {}, { policyName: null, violationId: taken }));
  const outcome = async (id: string) =>
    (await caller().unary(tx.getOutcome, { subject: { case: 'transactionId', value: id } })).outcome;
  let taken = '';

  test('a write without a transaction is refused and leaves nothing', async () => {
    expect(await refusal(insert('a'))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_REQUIRED' });
    expect(await stored()).toEqual([]);
  });

  test('single-use commits before it answers', async () => {
    await insert('a', 'single-use');
    expect(await stored()).toEqual(['a']);
    expect((await list('single-use')).violations).toHaveLength(1);
  });

  test('inside a transaction its writes are seen, outside only when it has committed', async () => {
    const { id } = await begin();
    await insert('a', id);
    expect((await list(id)).violations).toHaveLength(1);
    expect((await list()).violations).toHaveLength(0);
    const streamed = await collect(caller().stream(rpc.streamViolations, {}, { transaction: id! }));
    expect(streamed).toHaveLength(1);
    expect(await outcome(id!)).toBe(Outcome.IN_PROGRESS);
    await commit(id!);
    expect(await stored()).toEqual(['a']);
    expect(await outcome(id!)).toBe(Outcome.COMMITTED);
    expect(await refusal(commit(id!))).toMatchObject({ reason: 'TRANSACTION_COMMITTED' });
    expect(await refusal(list(id!))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_COMMITTED' });
    expect(await rollback(id!)).toMatchObject({ state: TransactionState.COMMITTED });
  });

  test('a rollback undoes everything and can be repeated', async () => {
    const { id } = await begin();
    await insert('a', id);
    expect(await rollback(id!)).toMatchObject({ state: TransactionState.ROLLED_BACK });
    expect(await rollback(id!)).toMatchObject({ state: TransactionState.ROLLED_BACK });
    expect(await outcome(id!)).toBe(Outcome.ABORTED);
    expect(await refusal(insert('b', id))).toMatchObject({ reason: 'TRANSACTION_ROLLED_BACK' });
    expect(await stored()).toEqual([]);
  });

  test.each(['x', 'SINGLE-USE', 'a'.repeat(43), `${'A'.repeat(42)}E`])('the id %j was never issued', async (id) => {
    const calls = [
      () => insert('a', id),
      () => list(id),
      () => collect(caller().stream(rpc.streamViolations, {}, { transaction: id })),
    ];
    for (const call of calls) {
      const error = await refusal(call());
      expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_UNKNOWN' });
    }
    expect(await stored()).toEqual([]);
  });

  test('leases are clamped, told, renewed by use, and end in a rollback that is remembered', async () => {
    const granted = await begin({ idleLease: durationFromMs(1e12), totalLease: durationFromMs(1e12), label: 'l' });
    expect(durationMs(granted.idleLease!)).toBe(300_000);
    expect(durationMs(granted.totalLease!)).toBe(3_600_000);
    await rollback(granted.id!);
    const { id } = await begin({ idleLease: durationFromMs(2_000) });
    await insert('a', id);
    const expiresAt = async () =>
      timestampMs((await caller().unary(tx.get, { transactionId: id! })).transaction!.expiresAt!);
    const first = await expiresAt();
    while (Date.now() <= first) await list(id);
    await insert('b', id);
    expect(await expiresAt()).toBeGreaterThan(first);
    await vi.waitFor(async () =>
      expect((await caller().unary(tx.list, {})).transactions.filter((each) => each.id === id)).toEqual([]),
    );
    const error = await refusal(commit(id!));
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_EXPIRED' });
    expect(error.metadata['how']).toBe('idle for 2000 ms');
    expect(await rollback(id!)).toMatchObject({ state: TransactionState.EXPIRED });
    expect(await outcome(id!)).toBe(Outcome.ABORTED);
    expect(await stored()).toEqual([]);
  });

  test('one that has written nothing is committed, too, though no row bears it out', async () => {
    const { id = '' } = await begin();
    await list(id);
    await commit(id);
    expect(await outcome(id)).toBe(Outcome.COMMITTED);
  });

  // Story: a lease was noted as ended before PostgreSQL had rolled it back, so for a moment the transaction was gone from
  // List while GetOutcome still said IN_PROGRESS.
  test('a transaction that is no longer listed has its outcome', async () => {
    const { id } = await begin({ idleLease: durationFromMs(1_000) });
    await insert('a', id);
    const backends = await sidecar.sql<{ pid: number }>(
      `select pid from pg_stat_activity where datname = current_database()
       and application_name = 'policy-sidecar transaction' and state = 'idle in transaction'`,
    );
    expect(backends).toHaveLength(1);
    const [backend] = backends;
    process.kill(backend!.pid, 'SIGSTOP');
    const told: Promise<Outcome>[] = [];
    try {
      while ((await caller().unary(tx.list, {})).transactions.some((each) => each.id === id));
      told.push(outcome(id!));
      await caller().unary(tx.list, {});
    } finally {
      process.kill(backend!.pid, 'SIGCONT');
    }
    expect(await Promise.all(told)).toEqual([Outcome.ABORTED]);
  });

  test('the total lease ends a busy transaction too', async () => {
    const { id } = await begin({ totalLease: durationFromMs(150) });
    const error = await refusal(
      (async () => {
        for (;;) await list(id);
      })(),
    );
    expect(error.reason).toBe('TRANSACTION_EXPIRED');
  });

  test('a commit that races the reaper has one winner, and the caller hears which', async () => {
    const told = new Map<string, boolean>();
    for (let round = 0; round < 25; round += 1) {
      const description = `race-${round}`;
      const { id } = await begin({ idleLease: durationFromMs(20) });
      const inserted = await insert(description, id).then(
        () => true,
        () => false,
      );
      const until = performance.now() + 19 + (round % 5) * 0.5;
      while (performance.now() < until) await new Promise(setImmediate);
      const won = await commit(id!).then(
        () => true,
        (error) => {
          expect(error.reason).toBe('TRANSACTION_EXPIRED');
          return false;
        },
      );
      told.set(description, inserted && won);
    }
    const committed = new Set(await stored());
    for (const [description, won] of told)
      expect([description, committed.has(description)]).toEqual([description, won]);
  });

  test('a failed statement aborts the transaction until a rollback to a savepoint', async () => {
    const first = violation('first');
    taken = first.violationId;
    await caller().unary(rpc.insertViolation, first, { transaction: 'single-use' });
    const { id } = await begin();
    await insert('kept', id);
    await caller().unary(tx.savepoint, { transactionId: id!, name: 's' });
    await insert('undone', id);
    expect(await fail(id!)).toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(await refusal(list(id))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_ABORTED' });
    expect((await caller().unary(tx.get, { transactionId: id! })).transaction?.state).toBe(TransactionState.FAILED);
    await caller().unary(tx.rollbackToSavepoint, { transactionId: id!, name: 's' });
    await insert('after', id);
    await caller().unary(tx.releaseSavepoint, { transactionId: id!, name: 's' });
    await commit(id!);
    expect(await stored()).toEqual(['after', 'first', 'kept']);
  });

  test('a commit of an aborted transaction is refused and rolls back', async () => {
    const first = violation('first');
    taken = first.violationId;
    await caller().unary(rpc.insertViolation, first, { transaction: 'single-use' });
    const { id } = await begin();
    await insert('a', id);
    await fail(id!);
    expect(await refusal(commit(id!))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_ABORTED' });
    expect(await outcome(id!)).toBe(Outcome.ABORTED);
    expect(await stored()).toEqual(['first']);
  });

  test('a request that is refused before it reaches the database harms no transaction', async () => {
    const { id } = await begin();
    const error = await refusal(caller().unary(rpc.fetchViolationById, { violationId: 'x' }, { transaction: id! }));
    expect(error.code).toBe('INVALID_ARGUMENT');
    await insert('a', id);
    await commit(id!);
    expect(await stored()).toEqual(['a']);
  });

  test('savepoints of one name hide each other', async () => {
    const { id } = await begin();
    const savepoint = (name: string) => caller().unary(tx.savepoint, { transactionId: id!, name });
    const back = (name: string) => caller().unary(tx.rollbackToSavepoint, { transactionId: id!, name });
    await savepoint('s');
    await insert('a', id);
    await savepoint('s');
    await insert('b', id);
    await back('s');
    await insert('c', id);
    await caller().unary(tx.releaseSavepoint, { transactionId: id!, name: 's' });
    expect((await list(id)).violations.map(({ description }) => description).sort()).toEqual(['a', 'c']);
    await back('s');
    expect((await list(id)).violations).toEqual([]);
    await caller().unary(tx.releaseSavepoint, { transactionId: id!, name: 's' });
    expect(await refusal(back('s'))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'SAVEPOINT_UNKNOWN' });
    await insert('d', id);
    await commit(id!);
    expect(await stored()).toEqual(['d']);
    expect(await refusal(savepoint('a b'))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['name'] });
  });

  test('read-only transactions refuse writes', async () => {
    const { id } = await begin({ readOnly: true, isolationLevel: IsolationLevel.SERIALIZABLE, deferrable: true });
    expect(await refusal(insert('a', id))).toMatchObject({ reason: 'READ_ONLY_TRANSACTION' });
    await rollback(id!);
    expect(await refusal(begin({ deferrable: true }))).toMatchObject({ fields: ['deferrable'] });
  });

  test('repeatable read keeps its snapshot, read committed does not', async () => {
    const frozen = await begin({ isolationLevel: IsolationLevel.REPEATABLE_READ });
    const open = await begin();
    await insert('a', 'single-use');
    expect((await list(frozen.id)).violations).toHaveLength(0);
    expect((await list(open.id)).violations).toHaveLength(1);
    await commit(frozen.id!);
    await commit(open.id!);
  });

  test('calls that arrive together run in order, and too many are refused', async () => {
    const { id } = await begin();
    const [ceiling] = await sidecar.sql<{ id: string }>('select id from policy.risk_ceilings limit 1');
    const waiting: Promise<unknown>[] = [];
    await whileLocked(person, 'select from policy.risk_ceilings for update', async () => {
      waiting.push(caller().unary(rpc.resetRiskCeiling, { ceilingId: ceiling!.id }, { transaction: id! }));
      await vi.waitFor(async () => expect(await sidecar.sql(WAITING_FOR_LOCK)).toHaveLength(1));
      for (let place = 1; place <= QUEUE; place += 1) {
        waiting.push(insert(`n${place}`, id));
        // The next one arrives behind it.
        await vi.waitFor(async () => {
          const { transaction } = await caller().unary(tx.get, { transactionId: id! });
          expect(transaction?.pendingCalls).toBe(1 + place);
        });
      }
      const refused = Array.from({ length: 7 }, (_, index) => refusal(insert(`too many ${index}`, id)));
      for (const error of await Promise.all(refused)) expect(error.reason).toBe('TRANSACTION_QUEUE_FULL');
    });
    await Promise.all(waiting);
    await commit(id!);
    const rows = await sidecar.sql<{ description: string }>(
      'select description from policy.violations order by cmin::text::integer',
    );
    expect(rows.map(({ description }) => description)).toEqual(['n1', 'n2', 'n3', 'n4', 'n5']);
  });

  test('a stream shares its transaction with other calls', async () => {
    await sidecar.sql(`insert into policy.violations (id, violation_type, description)
      select gen_random_uuid(), 'x', n::text from generate_series(1, 1200) n`);
    const { id } = await begin();
    let read = 0;
    for await (const _ of caller().stream(rpc.streamViolations, {}, { transaction: id! })) {
      read += 1;
      if (read === 700) await insert('beside', id);
    }
    expect(read).toBe(1200);
    await commit(id!);
    expect(await stored()).toHaveLength(1201);
  });

  test('a stream that is left early leaves its transaction usable', async () => {
    await sidecar.sql(`insert into policy.violations (id, violation_type, description)
      select gen_random_uuid(), 'x', repeat(n::text, 1000) from generate_series(1, 5000) n`);
    const { id } = await begin();
    /** Nobody reads on: what has been fetched waits, and no fetch is under way that leaving would have to stop. */
    const atRest = () =>
      vi.waitFor(async () => {
        const look = () =>
          sidecar.sql<{ state: string; since: string }>(`select state, state_change::text as since from pg_stat_activity
            where datname = current_database() and application_name = 'policy-sidecar transaction'
            and state <> 'idle'`);
        const before = await look();
        expect(before.map(({ state }) => state)).toEqual(['idle in transaction']);
        await sleep(50);
        expect(await look()).toEqual(before);
      });
    const abort = new AbortController();
    await collect(
      (async function* () {
        for await (const each of caller().stream(
          rpc.streamViolations,
          {},
          { transaction: id!, signal: abort.signal },
        )) {
          yield each;
          await atRest();
          abort.abort();
        }
      })(),
    ).catch(() => {});
    await vi.waitFor(async () => {
      const state = (await caller().unary(tx.get, { transactionId: id! })).transaction;
      expect(state?.pendingCalls).toBe(0);
    });
    const { transaction } = await caller().unary(tx.get, { transactionId: id! });
    expect(transaction?.state).toBe(TransactionState.OPEN);
    await insert('after', id);
    await commit(id!);
  });

  test('all connections taken: others wait a while, the holder itself is refused at once', async () => {
    const held = await Promise.all([begin(), begin(), begin(), begin()]);
    const started = performance.now();
    const error = await refusal(begin());
    expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'TRANSACTION_LIMIT' });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(performance.now() - started).toBeLessThan(2_000);
    expect((await list()).violations).toEqual([]);
    expect(await outcome(held[0]!.id!)).toBe(Outcome.IN_PROGRESS);
    await Promise.all(held.map(({ id }) => rollback(id!)));
  });

  test('Get and List tell what is open', async () => {
    const { id } = await begin({ label: 'nightly', isolationLevel: IsolationLevel.SERIALIZABLE });
    await insert('a', id);
    const { transactions } = await caller().unary(tx.list, {});
    expect(transactions).toMatchObject([
      {
        id,
        caller: 'local',
        label: 'nightly',
        isolationLevel: IsolationLevel.SERIALIZABLE,
        state: TransactionState.OPEN,
        lastMethod: 'PolicyEngineService/InsertViolation',
        calls: 1n,
        pendingCalls: 0,
      },
    ]);
    await caller().unary(tx.savepoint, { name: 'here' }, { transaction: id! });
    const { transaction } = await caller().unary(tx.get, {}, { transaction: id! });
    expect(transaction).toMatchObject({ id, lastMethod: 'TransactionService/Savepoint' });
    await rollback(id!);
    expect((await caller().unary(tx.list, {})).transactions).toEqual([]);
  });

  test('Hold rolls back when its stream is left, and says how it ended otherwise', async () => {
    const abort = new AbortController();
    let id = '';
    let left = 0;
    await collect(
      (async function* () {
        for await (const { transaction } of caller().stream(tx.hold, {}, { signal: abort.signal })) {
          id = transaction!.id!;
          await insert('a', id);
          left = performance.now();
          abort.abort();
          yield transaction;
        }
      })(),
    ).catch(() => {});
    await vi.waitFor(async () => expect((await caller().unary(tx.list, {})).transactions).toEqual([]), { interval: 2 });
    expect(performance.now() - left).toBeLessThan(1_000);
    expect(await refusal(commit(id))).toMatchObject({ reason: 'TRANSACTION_ROLLED_BACK' });
    const states: TransactionState[] = [];
    for await (const { transaction } of caller().stream(tx.hold, { begin: { label: 'held' } })) {
      states.push(transaction!.state);
      if (transaction!.state === TransactionState.OPEN) {
        await insert('held', transaction!.id);
        await commit(transaction!.id!);
      }
    }
    expect(states).toEqual([TransactionState.OPEN, TransactionState.COMMITTED]);
    expect(await stored()).toEqual(['held']);
  });

  test('a sequence number runs once', async () => {
    const { id } = await begin();
    const numbered = (sequence: string, request: ReturnType<typeof violation>) =>
      caller().unary(rpc.insertViolation, request, {
        transaction: id!,
        headers: { 'transaction-sequence': sequence },
      });
    const request = violation('once');
    const [first, second] = await Promise.all([numbered('1', request), numbered('1', request)]);
    expect(second).toEqual(first);
    expect(await numbered('1', request)).toEqual(first);
    expect(await refusal(numbered('1', violation('other')))).toMatchObject({ reason: 'SEQUENCE_REUSED' });
    expect(await refusal(numbered('one', request))).toMatchObject({ fields: ['header transaction-sequence'] });
    await numbered('2', violation('two'));
    await commit(id!);
    expect(await stored()).toEqual(['once', 'two']);
  });

  test('of the numbered calls the last 1,024 are remembered; one before them is refused, and not run again', async () => {
    const { id } = await begin();
    const requests = Array.from({ length: 1_025 }, (_, index) => violation(`n${index}`));
    const numbered = (index: number) =>
      caller().unary(rpc.insertViolation, requests[index]!, {
        transaction: id!,
        headers: { 'transaction-sequence': `${index + 1}` },
      });
    const first = await numbered(0);
    for (let index = 1; index < 1_024; index += 1) await numbered(index);
    expect(await numbered(0)).toEqual(first);
    await numbered(1_024);
    expect(await refusal(numbered(0))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'SEQUENCE_FORGOTTEN' });
    await numbered(1);
    await commit(id!);
    expect(await stored()).toHaveLength(1_025);
  });

  test('of the answers to numbered calls no more than 8 MiB are kept', async () => {
    await sidecar.sql(`insert into policy.violations (id, violation_type, description)
      select gen_random_uuid(), 'x', repeat('d', 1000000) from generate_series(1, 3)`);
    const { id } = await begin();
    const numbered = (sequence: number) =>
      caller().unary(rpc.fetchViolations, {}, { transaction: id!, headers: { 'transaction-sequence': `${sequence}` } });
    for (const sequence of [1, 2, 1, 3]) await numbered(sequence);
    expect(await refusal(numbered(1))).toMatchObject({ reason: 'SEQUENCE_FORGOTTEN' });
    expect((await numbered(2)).violations).toHaveLength(3);
    await rollback(id!);
  });

  test('an idempotency key takes effect once, also when it comes twice at once', async () => {
    const key = randomUUID();
    const send = (request: ReturnType<typeof violation>, id: string = key) =>
      caller().unary(rpc.insertViolation, request, { transaction: 'single-use', headers: { 'idempotency-key': id } });
    const asked = async () =>
      (await caller().unary(tx.getOutcome, { subject: { case: 'idempotencyKey', value: key } })).outcome;
    expect(await asked()).toBe(Outcome.ABORTED);
    const request = violation('once');
    const answers = await Promise.all([send(request), send(request), send(request, key.toUpperCase())]);
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(await send(request)).toEqual(answers[0]);
    expect(await stored()).toEqual(['once']);
    expect(await asked()).toBe(Outcome.COMMITTED);
    expect(await refusal(send(violation('other')))).toMatchObject({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    expect(await refusal(send(request, 'x'))).toMatchObject({ fields: ['header idempotency-key'] });
    const read = caller().unary(rpc.fetchViolations, {}, { headers: { 'idempotency-key': key } });
    expect((await read).violations.length).toBeGreaterThan(0);
    expect(await send(request, `"${key}"`)).toEqual(answers[0]);
  });

  test('a request that fails may be sent again under its id', async () => {
    const first = violation('first');
    await caller().unary(rpc.insertViolation, first, { transaction: 'single-use' });
    const headers = { 'idempotency-key': randomUUID() };
    const again = { transaction: 'single-use', headers };
    expect(await refusal(caller().unary(rpc.insertViolation, first, again))).toMatchObject({ code: 'ALREADY_EXISTS' });
    await sidecar.sql('truncate policy.violations');
    await caller().unary(rpc.insertViolation, first, again);
    expect(await stored()).toEqual(['first']);
  });

  describe('Execute', () => {
    const operation = (description: string, expectedRows?: bigint, fields = {}) => ({
      request: { case: 'insertViolation' as const, value: violation(description, fields) },
      ...(expectedRows === undefined ? {} : { expectedRows }),
    });
    const acknowledge = (violationId: string, expectedRows: bigint) => ({
      request: { case: 'updateViolationAcknowledged' as const, value: { violationId } },
      expectedRows,
    });

    test('runs in order and answers in order', async () => {
      const id = randomUUID();
      const { results, attempts } = await caller().unary(tx.execute, {
        operations: [
          operation('a', 1n, { violationId: id }),
          acknowledge(id, 1n),
          { request: { case: 'fetchViolationById', value: { violationId: id } }, expectedRows: 1n },
        ],
      });
      expect(attempts).toBe(1);
      expect(results.map(({ response, rows }) => [response.case, rows])).toEqual([
        ['insertViolation', 1n],
        ['updateViolationAcknowledged', 1n],
        ['fetchViolationById', 1n],
      ]);
      expect(await stored()).toEqual(['a']);
    });

    // It once counted the one row that such a statement returns.
    test('a step that moves rows within its statement counts those it moved', async () => {
      await sidecar.sql('truncate policy.temporal_metric_events, policy.temporal_metric_windows');
      await sidecar.sql(
        `insert into policy.temporal_metric_events (policy_id, metric, value, occurred_at)
        select gen_random_uuid(), 'm', 1, now() - interval '3 hours' from generate_series(1, 3)`,
      );
      const compact = (expectedRows: bigint) => ({
        request: { case: 'compactTemporalEvents' as const, value: { compactHours: 1n, retentionHours: 100n } },
        expectedRows,
      });
      expect(await refusal(caller().unary(tx.execute, { operations: [compact(1n)] }))).toMatchObject({
        reason: 'UNEXPECTED_ROW_COUNT',
        metadata: { expected: '1', found: '3' },
      });
      const { results } = await caller().unary(tx.execute, { operations: [compact(3n)] });
      expect(results).toMatchObject([{ rows: 3n, response: { value: { rowsAffected: 3n, windowsWritten: 3n } } }]);
    });

    // Story: in a transaction of its own, what ran under a savepoint was counted nowhere, and a correct list was refused.
    test('a step under a savepoint counts as it does without one, and as inside a transaction', async () => {
      const steps = [{}, { idempotencyKey: randomUUID() }].map((more) => ({
        request: {
          case: 'upsertRecoveryCandidate' as const,
          value: { failureMatchId: randomUUID(), suggestion: 'retry', confidence: 1, ...more },
        },
        expectedRows: 1n,
      }));
      const alone = await caller().unary(tx.execute, { operations: steps });
      const { transaction } = await caller().unary(tx.begin, {});
      const inside = await caller().unary(tx.execute, { operations: steps }, { transaction: transaction!.id! });
      await caller().unary(tx.rollback, { transactionId: transaction!.id! });
      for (const { results } of [alone, inside]) expect(results.map(({ rows }) => rows)).toEqual([1n, 1n]);
    });

    // Story: the snapshot of the second was older than the commit that it had waited for, so it ran again and met the first's
    // rows: its caller was told of a conflict although its list had taken effect.
    test.each([IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])(
      'that comes twice at once with one idempotency key is answered the same, isolated by %s',
      async (isolationLevel) => {
        const [row] = await sidecar.sql<{ id: string }>('select id from policy.risk_ceilings limit 1');
        const ceilingId = row!.id;
        const waiting = async (event: string): Promise<number> => {
          const text = `select from pg_stat_activity where datname = current_database() and wait_event = '${event}'`;
          return (await sidecar.sql(text)).length;
        };
        const send = (request: object) => caller().unary(tx.execute, request, { headers: { 'idempotency-key': key } });
        const key = randomUUID();
        const operations = [
          operation('once'),
          { request: { case: 'resetRiskCeiling' as const, value: { ceilingId } } },
        ];
        const { id } = await begin();
        await caller().unary(rpc.resetRiskCeiling, { ceilingId }, { transaction: id! });
        const answers = [send({ operations, isolationLevel })];
        await vi.waitFor(async () => expect(await waiting('transactionid')).toBe(1));
        answers.push(send({ operations, isolationLevel }));
        await vi.waitFor(async () => expect(await waiting('advisory')).toBe(1));
        await rollback(id!);
        const [first, second] = await Promise.all(answers);
        expect(second).toEqual(first);
        expect(await stored()).toEqual(['once']);
      },
    );

    test('all or nothing: a row count that differs undoes everything', async () => {
      const error = await refusal(
        caller().unary(tx.execute, { operations: [operation('a'), acknowledge(randomUUID(), 1n), operation('b')] }),
      );
      expect(error).toMatchObject({
        code: 'FAILED_PRECONDITION',
        reason: 'UNEXPECTED_ROW_COUNT',
        metadata: { operation: '1', expected: '1', found: '0' },
      });
      expect(error.preconditions).toHaveLength(1);
      expect(await stored()).toEqual([]);
    });

    test('a failing operation is named by its place', async () => {
      const violationId = randomUUID();
      const error = await refusal(
        caller().unary(tx.execute, {
          operations: [operation('a', 1n, { violationId }), operation('b', 1n, { violationId })],
        }),
      );
      expect(error).toMatchObject({ code: 'ALREADY_EXISTS', metadata: { operation: '1' } });
      expect(await stored()).toEqual([]);
    });

    test('every offending field of every operation is named before anything runs', async () => {
      const error = await refusal(
        caller().unary(tx.execute, {
          operations: [operation('a'), operation('b', 1n, { violationId: 'x', severity: Number.NaN }), {}],
        }),
      );
      expect(error.code).toBe('INVALID_ARGUMENT');
      expect([...error.fields].sort()).toEqual([
        'operations[1].insert_violation.severity',
        'operations[1].insert_violation.violation_id',
        'operations[2].request',
      ]);
      expect(await refusal(caller().unary(tx.execute, {}))).toMatchObject({ fields: ['operations'] });
      const many = { operations: Array.from({ length: 1001 }, () => operation('a')) };
      expect(await refusal(caller().unary(tx.execute, many))).toMatchObject({ fields: ['operations'] });
      const attempts = caller().unary(tx.execute, { operations: [operation('a')], maxAttempts: 11 });
      expect(await refusal(attempts)).toMatchObject({ fields: ['max_attempts'] });
      expect(await stored()).toEqual([]);
    });

    test('an idempotency key makes the whole list take effect once', async () => {
      const request = { operations: [operation('a'), operation('b')] };
      const init = { headers: { 'idempotency-key': randomUUID() } };
      const first = await caller().unary(tx.execute, request, init);
      expect(await caller().unary(tx.execute, request, init)).toEqual(first);
      expect(await stored()).toEqual(['a', 'b']);
    });

    describe('inside an open transaction', () => {
      const execute = (transaction: string, operations: object[], headers = {}) =>
        caller().unary(tx.execute, { operations: operations as never }, { transaction, headers });

      test('is seen there, and outside only when that has committed', async () => {
        const { id } = await begin();
        const { results, attempts } = await execute(id!, [operation('a', 1n), operation('b', 1n)]);
        expect([results.length, attempts]).toEqual([2, 1]);
        expect((await list(id)).violations).toHaveLength(2);
        expect(await stored()).toEqual([]);
        await commit(id!);
        expect(await stored()).toEqual(['a', 'b']);
      });

      test('what fails is undone whole, and the transaction goes on as it was', async () => {
        const { id } = await begin();
        await insert('before', id);
        const violationId = randomUUID();
        const repeated = [operation('a', 1n, { violationId }), operation('b', 1n, { violationId })];
        expect(await refusal(execute(id!, repeated))).toMatchObject({
          code: 'ALREADY_EXISTS',
          metadata: { operation: '1' },
        });
        expect(await refusal(execute(id!, [operation('c'), acknowledge(randomUUID(), 1n)]))).toMatchObject({
          reason: 'UNEXPECTED_ROW_COUNT',
          metadata: { operation: '1' },
        });
        await insert('after', id);
        await commit(id!);
        expect(await stored()).toEqual(['after', 'before']);
      });

      test('a sequence number makes it run once', async () => {
        const { id } = await begin();
        const operations = [operation('a', 1n)];
        const first = await execute(id!, operations, { 'transaction-sequence': '1' });
        expect(await execute(id!, operations, { 'transaction-sequence': '1' })).toEqual(first);
        expect(await refusal(execute(id!, [operation('b')], { 'transaction-sequence': '1' }))).toMatchObject({
          reason: 'SEQUENCE_REUSED',
        });
        await commit(id!);
        expect(await stored()).toEqual(['a']);
      });

      test('an aborted, an ended and an unknown one are refused, and so is what only a whole transaction can have', async () => {
        const { id } = await begin();
        taken = randomUUID();
        await insert('a', id, {}, { violationId: taken });
        await fail(id!);
        expect(await refusal(execute(id!, [operation('b')]))).toMatchObject({ reason: 'TRANSACTION_ABORTED' });
        await rollback(id!);
        expect(await refusal(execute(id!, [operation('b')]))).toMatchObject({ reason: 'TRANSACTION_ROLLED_BACK' });
        expect(await refusal(execute('x', [operation('b')]))).toMatchObject({ reason: 'TRANSACTION_UNKNOWN' });
        const { id: other } = await begin();
        const wanting = { operations: [operation('b')], maxAttempts: 1, isolationLevel: IsolationLevel.SERIALIZABLE };
        expect(await refusal(caller().unary(tx.execute, wanting, { transaction: other! }))).toMatchObject({
          fields: ['isolation_level', 'max_attempts'],
        });
        await rollback(other!);
        const alone = caller().unary(
          tx.execute,
          { operations: [operation('b')] },
          { headers: { 'transaction-sequence': '1' } },
        );
        expect(await refusal(alone)).toMatchObject({ fields: ['header transaction-sequence'] });
        expect(await stored()).toEqual([]);
      });

      test('a key that some proxies send with every call means nothing to it', async () => {
        const { id } = await begin();
        await execute(id!, [operation('a')], { 'idempotency-key': 'no uuid' });
        await commit(id!);
        expect(await stored()).toEqual(['a']);
      });
    });
  });
});

test('leases that nobody asks for are those of the settings', async () => {
  const own = await startTestSidecar({ transactionIdleLeaseMs: 40_000, transactionTotalLeaseMs: 70_000 });
  const { transaction } = await own.grpc.unary(tx.begin, {});
  expect([durationMs(transaction!.idleLease!), durationMs(transaction!.totalLease!)]).toEqual([40_000, 70_000]);
  await own.stop();
});

test('a restarted sidecar knows its transactions, and how they ended', async () => {
  const first = await startTestSidecar();
  const { id: committed } = (await first.grpc.unary(tx.begin, {})).transaction!;
  await first.grpc.unary(rpc.insertViolation, violation('a'), { transaction: committed! });
  await first.grpc.unary(tx.commit, { transactionId: committed! });
  const { id: open } = (await first.grpc.unary(tx.begin, {})).transaction!;
  await first.grpc.unary(rpc.insertViolation, violation('b'), { transaction: open! });
  const second = await startTestSidecar({}, first.url);
  try {
    const outcome = async (value: string) =>
      (await second.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value } })).outcome;
    expect(await outcome(committed!)).toBe(Outcome.COMMITTED);
    expect(await outcome(open!)).toBe(Outcome.IN_PROGRESS);
    const lost = await refusal(second.grpc.unary(tx.commit, { transactionId: open! }));
    expect(lost).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_ELSEWHERE' });
    await first.grpc.unary(tx.rollback, { transactionId: open! });
    expect(await outcome(open!)).toBe(Outcome.ABORTED);
    expect(await second.grpc.unary(tx.rollback, { transactionId: open! })).toMatchObject({
      state: TransactionState.ROLLED_BACK,
    });
  } finally {
    await second.stop();
    await first.stop();
  }
});
