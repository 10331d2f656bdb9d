import { randomUUID } from 'node:crypto';
import type { Value } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { CandidateDecision } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import {
  ExecutionStatus,
  RecoveryWriteService,
  SuggestionEventType,
} from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = RecoveryWriteService.method;
const transactions = TransactionService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar();
beforeEach(async () => {
  await sidecar.sql(`truncate public.failure_matches, public.failure_catalog, public.recovery_candidates,
    public.recovery_candidates_audit, m10_recovery.suggestion_provenance, m10_recovery.suggestion_input,
    m10_recovery.work_queue restart identity`);
  await sidecar.sql(
    `update m10_recovery.suggestion_action set total_applications = 0, successful_applications = 0, success_rate = 0`,
  );
});

const report = (failureMatchId: string, more: object = {}) => ({
  failureMatchId,
  suggestion: 'retry',
  confidence: 0.8123456789,
  explain: jsonToValue({ method: 'x' }),
  errorCode: 'TIMEOUT',
  errorSignature: '0123456789abcdef',
  source: 'api',
  ...more,
});

const candidateOf = async (failureMatchId: string) =>
  (
    await sidecar.sql<Record<string, unknown>>('select * from public.recovery_candidates where failure_match_id = $1', [
      failureMatchId,
    ])
  )[0]!;

describe.each(['grpc', 'connect'] as const)('recovery writes over %s', (listener) => {
  const caller = () => sidecar[listener];
  const upsert = (request: Parameters<typeof report>[1] & object, failureMatchId: string = randomUUID()) =>
    caller().unary(rpc.upsertRecoveryCandidate, report(failureMatchId, request), single);

  test('a first report stores everything, a second one only counts', async () => {
    const failure = randomUUID();
    const key = randomUUID();
    const first = await upsert({ idempotencyKey: key.toUpperCase() }, failure.toUpperCase());
    expect(first).toMatchObject({ isInsert: true, occurrenceCount: 1 });
    expect(await candidateOf(failure)).toMatchObject({
      id: first.candidateId,
      suggestion: 'retry',
      confidence: 0.8123456789,
      explain: { method: 'x' },
      matched_catalog_entry: null,
      error_code: 'TIMEOUT',
      error_signature: '0123456789abcdef',
      source: 'api',
      created_by: 'ingest_api',
      decision: 'pending',
      idempotency_key: key,
    });
    const second = await upsert({ suggestion: 'other', confidence: 0, idempotencyKey: randomUUID() }, failure);
    expect(second).toMatchObject({ candidateId: first.candidateId, isInsert: false, occurrenceCount: 2 });
    expect(await candidateOf(failure)).toMatchObject({ suggestion: 'retry', confidence: 0.8123456789 });
    expect((await candidateOf(failure))['idempotency_key']).toBe(key);
    const found = await caller().unary(rpc.getCandidateByIdempotencyKey, { idempotencyKey: key.toUpperCase() });
    expect(found.candidate).toMatchObject({ id: first.candidateId, failureMatchId: failure });
  });

  test('nothing but failure, suggestion and confidence has to be given', async () => {
    const failure = randomUUID();
    const { candidateId } = await caller().unary(
      rpc.upsertRecoveryCandidate,
      { failureMatchId: failure, suggestion: '', confidence: 1 },
      single,
    );
    expect(await candidateOf(failure)).toMatchObject({
      id: candidateId,
      suggestion: '',
      explain: null,
      error_code: null,
      error_signature: null,
      source: null,
      idempotency_key: null,
    });
    const jsonNull: Value = jsonToValue(null);
    const other = randomUUID();
    await upsert({ explain: jsonNull }, other);
    expect(
      await sidecar.sql(
        `select explain::text from public.recovery_candidates where failure_match_id = '${other}' and explain is not null`,
      ),
    ).toEqual([{ explain: 'null' }]);
  });

  test('all offending fields are named', async () => {
    const wrong = await refusal(
      caller().unary(
        rpc.upsertRecoveryCandidate,
        { failureMatchId: 'x', confidence: 1.0000001, idempotencyKey: 'y', source: 'a\0b' },
        single,
      ),
    );
    expect(wrong.code).toBe('INVALID_ARGUMENT');
    expect([...wrong.fields].sort()).toEqual([
      'confidence',
      'failure_match_id',
      'idempotency_key',
      'source',
      'suggestion',
    ]);
    expect((await refusal(upsert({ confidence: Number.NaN }))).fields).toEqual(['confidence']);
    expect((await refusal(upsert({ explain: jsonToValue({ a: '\0' }) }))).fields).toEqual(['explain']);
    const bad = await refusal(caller().unary(rpc.getCandidateByIdempotencyKey, { idempotencyKey: '' }));
    expect(bad.fields).toEqual(['idempotency_key']);
    expect((await caller().unary(rpc.getCandidateByIdempotencyKey, { idempotencyKey: randomUUID() })).candidate).toBe(
      undefined,
    );
  });

  // It was stored as U+FFFD: binary messages cannot hold it, but protobuf's JSON form lets it into a Value.
  test('half a surrogate pair inside JSON is refused', async () => {
    for (const json of ['"a\\ud800"', '{"\\udc00": 1}', '[["\\ud83d"]]']) {
      const answer = await fetch(
        `http://${sidecar.server.httpAddress}/${RecoveryWriteService.typeName}/UpsertRecoveryCandidate`,
        {
          method: 'POST',
          headers: { 'content-type': 'application/json', transaction: 'single-use' },
          body: `{"failureMatchId": "${randomUUID()}", "suggestion": "s", "confidence": 1, "explain": ${json}}`,
        },
      );
      expect(answer.status).toBe(400);
      expect(((await answer.json()) as { message: string }).message).toMatch(/explain .*surrogate/);
    }
  });

  // A queue item for candidate 0 was made for whoever forgot the id, and stayed there: no candidate has it.
  test('an id left out is no id', async () => {
    const queued = caller().unary(rpc.enqueueEvaluationDbFallback, {}, single);
    expect(await refusal(queued)).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['candidate_id'] });
    const recorded = caller().unary(rpc.insertSuggestionProvenance, { details: jsonToValue({}) }, single);
    expect((await refusal(recorded)).fields).toEqual(['suggestion_id', 'event_type']);
  });

  test('a key of another failure is refused with its owner, and the transaction goes on', async () => {
    const [owner, other, key] = [randomUUID(), randomUUID(), randomUUID()];
    const { candidateId } = await upsert({ idempotencyKey: key }, owner);
    const { transaction } = await caller().unary(transactions.begin, {});
    const inside = { transaction: transaction!.id! };
    const error = await refusal(
      caller().unary(rpc.upsertRecoveryCandidate, report(other, { idempotencyKey: key }), inside),
    );
    expect(error).toMatchObject({
      code: 'ALREADY_EXISTS',
      reason: 'UNIQUE_VIOLATION',
      metadata: {
        constraint: 'recovery_candidates_idempotency_key_key',
        candidate_id: String(candidateId),
        failure_match_id: owner,
      },
    });
    await caller().unary(rpc.upsertRecoveryCandidate, report(other), inside);
    await caller().unary(transactions.commit, { transactionId: transaction!.id! });
    expect(await candidateOf(other)).toMatchObject({ occurrence_count: 1, idempotency_key: null });
    // The failure's own key, or any other for a failure that has a candidate, is no conflict.
    expect((await upsert({ idempotencyKey: key }, owner)).occurrenceCount).toBe(2);
    expect((await upsert({ idempotencyKey: key }, other)).occurrenceCount).toBe(2);
  });

  test('a patch takes the time from the database where it is asked to', async () => {
    const failure = randomUUID();
    const { candidateId } = await upsert({}, failure);
    const change = (fields: object) =>
      caller().unary(rpc.updateRecoveryCandidate, { candidateId, executedNow: true, ...fields }, single);
    const executed = async () => (await candidateOf(failure))['executed_at'];
    const [{ before }] = (await sidecar.sql<{ before: Date }>('select clock_timestamp() as before')) as [
      { before: Date },
    ];
    expect((await change({})).rowsAffected).toBe(1n);
    expect(((await executed()) as Date) >= before).toBe(true);
    const updates = { executionStatus: ExecutionStatus.EXECUTING };
    await change({ updates, updateMask: { paths: ['execution_status'] } });
    expect(await candidateOf(failure)).toMatchObject({ execution_status: 'executing' });
    for (const paths of [['executed_at'], ['*']]) {
      expect((await refusal(change({ updates, updateMask: { paths } }))).fields).toContain('update_mask');
    }
  });

  test('a patch changes what its mask names', async () => {
    const failure = randomUUID();
    const { candidateId } = await upsert({}, failure);
    const patch = async (paths: string[], updates: object, id = candidateId) =>
      (await caller().unary(rpc.updateRecoveryCandidate, { candidateId: id, updates, updateMask: { paths } }, single))
        .rowsAffected;
    const [action] = await sidecar.sql<{ id: number }>('select min(id) as id from m10_recovery.suggestion_action');
    expect(
      await patch(['execution_status', 'selected_action_id', 'executed_at', 'decision'], {
        executionStatus: ExecutionStatus.EXECUTING,
        selectedActionId: action!.id,
        executedAt: { seconds: 1_700_000_000n, nanos: 123_456_000 },
        decision: CandidateDecision.APPROVED,
        suggestion: 'ignored',
      }),
    ).toBe(1n);
    expect(await candidateOf(failure)).toMatchObject({
      execution_status: 'executing',
      selected_action_id: action!.id,
      decision: 'approved',
      suggestion: 'retry',
    });
    await patch(['execution_status', 'execution_result', 'rules_evaluated'], {
      executionStatus: ExecutionStatus.ROLLED_BACK,
      executionResult: jsonToValue({ ok: [1, 'ü'] }),
      rulesEvaluated: jsonToValue([]),
    });
    expect(await candidateOf(failure)).toMatchObject({
      execution_status: 'rolled_back',
      execution_result: { ok: [1, 'ü'] },
      rules_evaluated: [],
    });
    await patch(['execution_status', 'executed_at', 'execution_result', 'review_note', 'confidence', 'suggestion'], {
      confidence: 0,
      suggestion: 'new',
    });
    expect(await candidateOf(failure)).toMatchObject({
      execution_status: null,
      executed_at: null,
      execution_result: null,
      confidence: 0,
      suggestion: 'new',
    });
    expect(await patch(['suggestion'], { suggestion: 'x' }, 999_999)).toBe(0n);
    expect((await refusal(patch([], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(patch(['status', 'id'], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(patch(['confidence'], { confidence: 1.5 }))).fields).toEqual(['updates.confidence']);
    expect((await refusal(patch(['decision'], {}))).fields).toEqual(['updates.decision']);
    expect(await refusal(patch(['selected_action_id'], { selectedActionId: 999_999 }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      metadata: { constraint: 'recovery_candidates_selected_action_id_fkey' },
    });
  });

  test('an action counts how often it helped, in double precision', async () => {
    const [action] = await sidecar.sql<{ id: number }>('select min(id) as id from m10_recovery.suggestion_action');
    const finish = async (executionStatus: ExecutionStatus, candidateId: number) =>
      caller().unary(
        rpc.updateRecoveryCandidate,
        {
          candidateId,
          updates: { executionStatus, selectedActionId: action!.id },
          updateMask: { paths: ['execution_status', 'selected_action_id'] },
        },
        single,
      );
    const ids = await Promise.all(Array.from({ length: 3 }, async () => (await upsert({})).candidateId));
    await finish(ExecutionStatus.SUCCEEDED, ids[0]!);
    await finish(ExecutionStatus.SUCCEEDED, ids[0]!);
    await finish(ExecutionStatus.FAILED, ids[1]!);
    await finish(ExecutionStatus.SKIPPED, ids[2]!);
    await finish(ExecutionStatus.FAILED, ids[2]!);
    expect(
      await sidecar.sql(
        'select total_applications, successful_applications, success_rate from m10_recovery.suggestion_action where id = $1',
        [action!.id],
      ),
    ).toEqual([{ total_applications: 3, successful_applications: 1, success_rate: 1 / 3 }]);
  });

  test('events of a candidate', async () => {
    const { candidateId } = await upsert({});
    const record = (more: object) =>
      caller().unary(
        rpc.insertSuggestionProvenance,
        {
          suggestionId: candidateId,
          eventType: SuggestionEventType.MANUAL_OVERRIDE,
          details: jsonToValue({ k: 1 }),
          ...more,
        },
        single,
      );
    const { provenanceId, rowsAffected } = await record({ confidenceBefore: 0.1, actor: '' });
    expect(rowsAffected).toBe(1n);
    await record({});
    expect(
      await sidecar.sql('select * from m10_recovery.suggestion_provenance where id >= $1 order by id', [provenanceId]),
    ).toMatchObject([
      {
        suggestion_id: candidateId,
        event_type: 'manual_override',
        details: { k: 1 },
        confidence_before: 0.1,
        actor: '',
        actor_type: 'system',
      },
      { actor: 'api', confidence_before: null, rule_id: null, confidence_after: null, duration_ms: null },
    ]);
    expect((await refusal(record({ details: undefined, eventType: 0 }))).fields).toEqual(['event_type', 'details']);
    expect((await refusal(record({ suggestionId: 999_999 }))).metadata).toMatchObject({
      constraint: 'fk_sp_suggestion',
    });
    expect((await refusal(record({ actionId: 999_999 }))).metadata).toMatchObject({
      constraint: 'suggestion_provenance_action_id_fkey',
    });
  });

  test('the life of queued work', async () => {
    const enqueue = async (candidateId: number, priority?: number) => {
      const { enqueued, workId } = await caller().unary(
        rpc.enqueueEvaluationDbFallback,
        { candidateId, ...(priority === undefined ? {} : { priority }) },
        single,
      );
      expect(enqueued).toBe(true);
      return workId;
    };
    const claim = async (workerId: string, batchSize?: number) =>
      (await caller().unary(rpc.claimWork, { workerId, ...(batchSize === undefined ? {} : { batchSize }) }, single))
        .work;
    const complete = async (workId: number, more: object = {}) =>
      (await caller().unary(rpc.completeWork, { workId, ...more }, single)).rowsAffected === 1n;
    const ids = [await enqueue(901), await enqueue(902, 9), await enqueue(903, 1)];
    expect(await claim('w1', 0)).toEqual([]);
    expect((await claim('w1', 2)).map(({ workId, priority }) => [workId, priority])).toEqual([
      [ids[1], 9],
      [ids[2], 1],
    ]);
    expect(await enqueue(902)).toBe(ids[1]);
    expect(await complete(ids[1]!)).toBe(true);
    expect(await complete(ids[2]!, { success: false, error: 'boom' })).toBe(true);
    expect(await complete(999_999)).toBe(false);
    const again = await enqueue(902);
    expect(ids).not.toContain(again);
    expect((await claim('w2')).map(({ workId, retryCount }) => [workId, retryCount])).toEqual([
      [ids[2], 1],
      [ids[0], 0],
      [again, 0],
    ]);
    expect(await claim('w3')).toEqual([]);
    await sidecar.sql(`update m10_recovery.work_queue set claimed_at = now() - interval '301 s' where id = $1`, [
      ids[0],
    ]);
    expect((await caller().unary(rpc.releaseStalledWork, {}, single)).rowsAffected).toBe(1n);
    expect((await caller().unary(rpc.releaseStalledWork, { stalledSeconds: 0 }, single)).rowsAffected).toBe(2n);
    expect((await claim('w4', 2 ** 31 - 1)).length).toBe(3);
    expect((await refusal(claim('', -1))).fields).toEqual(['worker_id', 'batch_size']);
    const key = caller().unary(rpc.enqueueEvaluationDbFallback, { candidateId: 1, idempotencyKey: 'x' }, single);
    expect((await refusal(key)).fields).toEqual(['idempotency_key']);
  });

  test('failures are recorded and what became of them', async () => {
    const { failureMatchId, rowsAffected } = await caller().unary(
      rpc.insertFailureMatch,
      { runId: 'run', errorCode: 'E1' },
      single,
    );
    expect(rowsAffected).toBe(1n);
    expect(await sidecar.sql('select * from public.failure_matches')).toMatchObject([
      {
        id: failureMatchId,
        run_id: 'run',
        match_type: 'unknown',
        confidence_score: 0,
        is_retryable: false,
        recovery_attempted: false,
        recovery_succeeded: false,
        context_json: {},
        semantic_owner: 'recovery_rule_engine',
      },
    ]);
    const id: string = randomUUID();
    const given = { id, runId: 'r', errorCode: 'E2', category: '', stepIndex: -1, context: jsonToValue(null) };
    await caller().unary(
      rpc.insertFailureMatch,
      { ...given, createdAt: { seconds: 1_700_000_000n, nanos: 1_000 }, isRetryable: true },
      single,
    );
    expect((await refusal(caller().unary(rpc.insertFailureMatch, given, single))).code).toBe('ALREADY_EXISTS');
    const update = async (paths: string[], updates: object, failure = id) =>
      (
        await caller().unary(
          rpc.updateFailureMatch,
          { failureMatchId: failure, updates, updateMask: { paths } },
          single,
        )
      ).rowsAffected;
    expect(
      await update(['recovery_suggestion', 'recovery_succeeded', 'category'], {
        recoverySuggestion: 'restart',
        recoverySucceeded: true,
      }),
    ).toBe(1n);
    expect(await sidecar.sql('select * from public.failure_matches where id = $1', [id])).toMatchObject([
      { recovery_suggestion: 'restart', recovery_succeeded: true, category: null, step_index: -1, is_retryable: true },
    ]);
    expect(await update([], {})).toBe(0n);
    expect(await update(['category'], {}, randomUUID())).toBe(0n);
    expect((await refusal(update(['category'], {}, 'x'))).fields).toEqual(['failure_match_id']);
    expect((await refusal(update(['error_code'], {}))).fields).toEqual(['update_mask']);
    const wrong = caller().unary(rpc.insertFailureMatch, { id: 'x', runId: 'r', errorCode: '\0' }, single);
    expect((await refusal(wrong)).fields).toEqual(['id', 'error_code']);
  });

  test('known failures are stored and replaced', async () => {
    const store = (more: object) =>
      caller().unary(rpc.upsertFailureCatalogEntry, { id: 'c1', errorCode: 'E', ...more }, single);
    expect(await store({ embedding: [1, -0.5, 1e-300], successRate: 0.5, recoveryAction: 'restart' })).toMatchObject({
      isInsert: true,
      rowsAffected: 1n,
    });
    expect(await sidecar.sql('select * from public.failure_catalog')).toMatchObject([
      { embedding: [1, -0.5, 1e-300], success_rate: 0.5, recovery_action: 'restart', error_pattern: null },
    ]);
    expect((await store({ errorPattern: 'p' })).isInsert).toBe(false);
    expect(await sidecar.sql('select * from public.failure_catalog')).toMatchObject([
      { embedding: null, success_rate: null, recovery_action: null, error_pattern: 'p' },
    ]);
    expect((await refusal(store({ id: '', successRate: 1.1, embedding: [1, Number.NaN] }))).fields).toEqual([
      'id',
      'success_rate',
      'embedding[1]',
    ]);
  });

  test('a write without a transaction is refused', async () => {
    const calls = [
      caller().unary(rpc.upsertRecoveryCandidate, report(randomUUID())),
      caller().unary(rpc.enqueueEvaluationDbFallback, { candidateId: 1 }),
      caller().unary(rpc.claimWork, { workerId: 'w' }),
    ];
    for (const call of calls) expect((await refusal(call)).reason).toBe('TRANSACTION_REQUIRED');
  });
});

describe('many at once', () => {
  const CALLERS = 16;
  const ROUNDS = 25;
  const storm = (work: (caller: number) => Promise<void>) =>
    Promise.all(Array.from({ length: CALLERS }, (_each, caller) => work(caller)));

  test.each(['one key', 'a key each', 'no key', 'mixed'])(
    'reports of one failure, %s: all are counted',
    async (keys) => {
      const shared = randomUUID();
      const keyOf = (caller: number) =>
        keys === 'one key' || (keys === 'mixed' && caller % 2 === 0)
          ? { idempotencyKey: shared }
          : keys === 'no key' || caller % 3 === 0
            ? {}
            : { idempotencyKey: randomUUID() };
      for (let round = 0; round < ROUNDS; round += 1) {
        const failure = randomUUID();
        await sidecar.sql('update public.recovery_candidates set idempotency_key = null');
        const answers: boolean[] = [];
        await storm(async (caller) => {
          const { isInsert } = await sidecar.grpc.unary(
            rpc.upsertRecoveryCandidate,
            report(failure, keyOf(caller)),
            single,
          );
          answers.push(isInsert);
        });
        expect(answers.filter(Boolean)).toHaveLength(1);
        expect(await candidateOf(failure)).toMatchObject({ occurrence_count: CALLERS });
      }
    },
  );

  test('one key for many failures: one has it, the others learn whose it is', async () => {
    const key = randomUUID();
    const failures = Array.from({ length: CALLERS }, () => randomUUID());
    const outcomes: (string | undefined)[] = [];
    await storm(async (caller) => {
      const call = sidecar.grpc.unary(
        rpc.upsertRecoveryCandidate,
        report(failures[caller]!, { idempotencyKey: key }),
        single,
      );
      outcomes.push(await call.then(() => undefined).catch((error) => error.metadata.failure_match_id));
    });
    const [owner] = await sidecar.sql<{ id: string }>('select failure_match_id as id from public.recovery_candidates');
    expect(outcomes.filter((each) => each === undefined)).toHaveLength(1);
    expect(new Set(outcomes.filter((each) => each !== undefined))).toEqual(new Set([owner!.id]));
  });

  test('workers never claim the same item', async () => {
    await Promise.all(
      Array.from({ length: 100 }, (_each, index) =>
        sidecar.grpc.unary(rpc.enqueueEvaluationDbFallback, { candidateId: index + 1 }, single),
      ),
    );
    const claimed: number[] = [];
    await storm(async (caller) => {
      for (let round = 0; round < 4; round += 1) {
        const { work } = await sidecar.grpc.unary(rpc.claimWork, { workerId: `w${caller}`, batchSize: 3 }, single);
        claimed.push(...work.map(({ workId }) => workId));
      }
    });
    expect(new Set(claimed).size).toBe(claimed.length);
    expect(claimed.length).toBe(100);
  });

  test('one candidate queued by many has one item', async () => {
    const ids = new Set<number>();
    await storm(async () => {
      ids.add((await sidecar.grpc.unary(rpc.enqueueEvaluationDbFallback, { candidateId: 7 }, single)).workId);
    });
    expect(ids.size).toBe(1);
    expect(await sidecar.sql('select retry_count from m10_recovery.work_queue')).toEqual([
      { retry_count: CALLERS - 1 },
    ]);
  });
});
