import { randomUUID } from 'node:crypto';
import { toJson } from '@bufbuild/protobuf';
import { type Value, ValueSchema } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import {
  CandidateDecision,
  CandidateStatus,
  RecoveryMatcherService,
} from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { RecoveryWriteService } from '../../src/gen/hoc/cus/policies/v1/recovery_write_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type CallError, collect, refusal } from '../support/client.ts';
import { startProvider } from '../support/provider.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar, useStarted } from '../support/use.ts';

const rpc = RecoveryMatcherService.method;
const transactions = TransactionService.method;
const single = { transaction: 'single-use' };

const json = (value: Value | undefined) => value && toJson(ValueSchema, value);

const TABLES = `public.failure_matches, public.failure_catalog, public.recovery_candidates,
  public.recovery_candidates_audit, m10_recovery.suggestion_provenance, m10_recovery.suggestion_input`;

const sidecar = useSidecar();
beforeEach(() => sidecar.sql(`truncate ${TABLES} restart identity`));

interface Past {
  readonly id?: string;
  readonly code?: string;
  readonly suggestion?: string | null;
  readonly succeeded?: boolean;
  readonly category?: string | null;
  readonly days?: number;
}

const happened = async (
  { id = randomUUID(), code = 'E1', suggestion = null, succeeded = false, category = null, days = 0 }: Past,
  on = sidecar,
) => {
  await on.sql(
    `insert into public.failure_matches
      (id, run_id, error_code, recovery_suggestion, recovery_succeeded, category, created_at)
    values ($1, 'run', $2, $3, $4, $5, now() - $6 * interval '1 day')`,
    [id, code, suggestion, succeeded, category, days],
  );
  return id;
};

interface Candidate {
  readonly decision?: string;
  readonly explain?: string | null;
  readonly seconds?: number;
}

const candidate = async ({ decision = 'pending', explain = '{}', seconds = 0 }: Candidate = {}) => {
  const [row] = await sidecar.sql<{ id: number }>(
    `insert into public.recovery_candidates (failure_match_id, suggestion, confidence, decision, explain, created_at)
    values (gen_random_uuid(), 's', 0.5, $1, $2, '2026-01-01'::timestamptz - $3 * interval '1 s') returning id`,
    [decision, explain, seconds],
  );
  return row!.id;
};

describe.each(['grpc', 'connect'] as const)('suggestions over %s', (listener) => {
  const caller = () => sidecar[listener];
  const suggest = (failureMatchId: string | undefined, failurePayload: object = {}, more: object = {}) =>
    caller().unary(
      rpc.suggest,
      { ...(failureMatchId === undefined ? {} : { failureMatchId }), failurePayload, ...more },
      single,
    );
  const hybrid = (failureMatchId: string, failurePayload: object) =>
    caller().unary(rpc.suggestHybrid, { failureMatchId, failurePayload }, single);
  const stored = (failureMatchId: string) =>
    sidecar.sql('select * from public.recovery_candidates where failure_match_id = $1', [failureMatchId]);

  // Their text could not be read, or their weight was infinite: INTERNAL, or an answer that JSON cannot hold.
  test.each(['infinity', '-infinity', '0044-03-15 BC', '20000-01-01', '2150-01-01'])(
    'an earlier failure of %s is named',
    async (created) => {
      const earlier = await happened({ suggestion: 'fix' });
      await sidecar.sql('update public.failure_matches set created_at = $1', [created]);
      await happened({ suggestion: 'fix' });
      for (const call of [suggest, hybrid]) {
        expect(await refusal(call(randomUUID(), { errorCode: 'E1' }))).toMatchObject({
          code: 'FAILED_PRECONDITION',
          reason: 'FAILURE_UNREADABLE',
          metadata: { failure_match_id: earlier },
        });
      }
    },
  );

  test('the latest recovery that helped, exact by category, is stored', async () => {
    const failure = randomUUID();
    await happened({ suggestion: 'fix A' });
    await happened({ suggestion: 'fix B', succeeded: true, days: 9 });
    const exact = await happened({ suggestion: 'fix C', succeeded: true, category: 'TRANSIENT', days: 20 });
    await happened({ category: 'PERMANENT', days: 1 });
    const found = await suggest(failure, { errorType: 'E1', raw: 'boom' }, { source: 'w' });
    expect(found).toMatchObject({
      suggestedRecovery: 'fix B',
      confidence: 0.95,
      failureMatchId: failure,
      errorCode: 'E1',
      errorSignature: '88d961cd534fcae5',
    });
    const entry = { catalog_id: exact, error_code: 'E1', category: 'TRANSIENT' };
    expect(json(found.matchedEntry)).toEqual(entry);
    expect(json(found.explain)).toEqual({ method: 'exact_match', confidence: 0.95 });
    expect(await stored(failure)).toMatchObject([
      {
        id: found.candidateId,
        suggestion: 'fix B',
        confidence: 0.95,
        explain: { method: 'exact_match', confidence: 0.95 },
        matched_catalog_entry: entry,
        created_by: 'recovery_matcher',
        source: 'w',
        error_code: 'E1',
        error_signature: '88d961cd534fcae5',
        decision: 'pending',
        occurrence_count: 1,
      },
    ]);
  });

  test('a second suggestion overwrites the candidate and keeps its decision', async () => {
    const failure = randomUUID();
    await happened({ suggestion: 'fix', succeeded: true, category: 'RESOURCE' });
    const first = await suggest(failure, { errorType: 'E1' });
    await caller().unary(rpc.approveCandidate, { candidateId: first.candidateId!, approvedBy: 'bob' }, single);
    const second = await suggest(failure, { errorType: 'e1' });
    expect(second.candidateId).toBe(first.candidateId);
    expect(second.matchedEntry).toBe(undefined);
    expect(await stored(failure)).toMatchObject([
      {
        suggestion: "Review error 'e1' and implement appropriate error handling",
        confidence: 0.2,
        explain: { method: 'no_history', confidence: 0.2 },
        matched_catalog_entry: null,
        occurrence_count: 2,
        decision: 'approved',
        error_code: 'E1',
        source: 'unknown',
      },
    ]);
  });

  test('confidence decays with age; little of it is not stored', async () => {
    const failure = randomUUID();
    await happened({ suggestion: 'fix', succeeded: true, days: 1 });
    for (let count = 0; count < 3; count += 1) await happened({});
    const { confidence, explain, candidateId } = await suggest(failure, { errorCode: 'E1' });
    const weighted = Math.exp((-Math.LN2 / 30) * 1) / (4 * Math.exp((-Math.LN2 / 30) * 7));
    expect(confidence).toBeCloseTo(0.7 * weighted + 0.3 * 0.25, 6);
    expect(json(explain)).toMatchObject({
      method: 'weighted_time_decay',
      matches: 1,
      occurrences: 4,
      score_basic: 0.25,
    });
    expect(candidateId).toBeGreaterThan(0);
    await sidecar.sql(`truncate ${TABLES} restart identity`);
    await happened({ suggestion: 'fix', succeeded: true, days: 400 });
    for (let count = 0; count < 100; count += 1) await happened({});
    const weak = await suggest(failure, { errorCode: 'E1' });
    expect(weak.confidence).toBeLessThan(0.1);
    expect([weak.candidateId, weak.suggestedRecovery]).toEqual([undefined, 'fix']);
    expect(await stored(failure)).toEqual([]);
  });

  test('only ten similar failures count, the newest by time, then by id', async () => {
    await happened({ suggestion: 'old', succeeded: true, category: 'OLD', days: 2 });
    for (let count = 0; count < 10; count += 1) await happened({ suggestion: '', succeeded: true, days: 1 });
    const { matchedEntry, explain, suggestedRecovery } = await suggest(undefined, { errorCode: 'E1' });
    expect(matchedEntry).toBe(undefined);
    expect(json(explain)).toMatchObject({ matches: 10, occurrences: 11 });
    expect(suggestedRecovery).toBe("Review error 'E1' and implement appropriate error handling");
  });

  test('without a failure nothing is stored', async () => {
    for (const failure of [undefined, '']) {
      const { candidateId, failureMatchId, errorCode, errorSignature } = await suggest(failure);
      expect([candidateId, failureMatchId, errorCode, errorSignature]).toEqual([
        undefined,
        '',
        'UNKNOWN',
        '8e3b77157d9b0fa6',
      ]);
    }
    expect(await sidecar.sql('select * from public.recovery_candidates')).toEqual([]);
  });

  test('present fields count, even if they are empty', async () => {
    const payload = async (failurePayload: object) => {
      const { errorCode, errorSignature } = await suggest(undefined, failurePayload);
      return [errorCode, errorSignature];
    };
    expect(await payload({ errorType: 'A', errorCode: 'B', raw: 'r', errorMessage: 'm' })).toEqual([
      'A',
      'd15287234a1b0143',
    ]);
    expect(await payload({ errorCode: 'HTTP_5XX', errorMessage: 'Bad gateway' })).toEqual([
      'HTTP_5XX',
      '7652ad93e422e209',
    ]);
    expect((await payload({ errorType: '', errorCode: 'B' }))[0]).toBe('');
    expect((await payload({ errorType: 'A', raw: '', errorMessage: 'm' }))[1]).toBe(
      (await payload({ errorType: 'A' }))[1],
    );
  });

  test('the signature knows no secret, no letter case and no blanks around', async () => {
    const signature = async (raw: string) => (await suggest(undefined, { errorType: 'T', raw })).errorSignature;
    expect(await signature(`\n Login  password=hunter22 ${'x'.repeat(600)}\u00a0`)).toBe(
      await signature(`LOGIN  PASSWORD: "another-one" ${'x'.repeat(700)}`),
    );
    expect(await signature('token ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')).toBe(
      await signature('token ghp_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'),
    );
    const started = performance.now();
    await signature('a.'.repeat(1_000_000));
    expect(performance.now() - started).toBeLessThan(3_000);
  });

  test('wrong fields are named', async () => {
    const wrong = suggest('abc', { raw: 'a\0', errorType: '\0' }, { source: '\0' });
    expect([...(await refusal(wrong)).fields].sort()).toEqual([
      'failure_match_id',
      'failure_payload.error_type',
      'failure_payload.raw',
      'source',
    ]);
    const hybrid = caller().unary(rpc.suggestHybrid, { failureMatchId: 'abc' }, single);
    expect((await refusal(hybrid)).fields).toEqual(['failure_match_id']);
    expect((await refusal(caller().unary(rpc.suggest, {}))).reason).toBe('TRANSACTION_REQUIRED');
    expect((await refusal(caller().unary(rpc.suggestHybrid, {}))).reason).toBe('TRANSACTION_REQUIRED');
  });

  test('a candidate that cannot be stored costs neither the suggestion nor the transaction', async () => {
    await sidecar.sql(
      `alter table public.recovery_candidates add constraint no_such check (source <> 'refused') not valid`,
    );
    try {
      const { transaction } = await caller().unary(transactions.begin, {});
      const inside = { transaction: transaction!.id! };
      const failed = await caller().unary(
        rpc.suggest,
        { failureMatchId: randomUUID(), source: 'refused', failurePayload: { errorType: 'TIMEOUT_X' } },
        inside,
      );
      expect(failed.candidateId).toBe(undefined);
      expect(failed.suggestedRecovery).toMatch(/^Increase timeout/);
      const failure = randomUUID();
      await caller().unary(rpc.suggest, { failureMatchId: failure }, inside);
      await caller().unary(transactions.commit, { transactionId: transaction!.id! });
      expect(await stored(failure)).toHaveLength(1);
    } finally {
      await sidecar.sql('alter table public.recovery_candidates drop constraint no_such');
    }
  });

  test('without configuration the hybrid is the fallback, and says what it passed over', async () => {
    const failure = randomUUID();
    const found = await caller().unary(rpc.suggestHybrid, { failureMatchId: failure }, single);
    expect(json(found.explain)).toEqual({
      method: 'no_history',
      confidence: 0.2,
      skipped_layers: ['embedding', 'llm'],
    });
    expect(await stored(failure)).toMatchObject([
      { id: found.candidateId, explain: { method: 'no_history', confidence: 0.2 } },
    ]);
  });

  test('candidates are listed newest first, then by id, and streamed alike', async () => {
    const ids: number[] = [];
    for (const seconds of [5, 3, 3, 9]) ids.push(await candidate({ seconds }));
    const decided = await candidate({ decision: 'rejected' });
    const order = [ids[2], ids[1], ids[0], ids[3]];
    const list = async (request: object = {}) =>
      (await caller().unary(rpc.getCandidates, request)).candidates.map(({ id }) => id);
    expect(await list()).toEqual(order);
    expect(await list({ status: CandidateStatus.PENDING })).toEqual(order);
    expect(await list({ status: CandidateStatus.ALL })).toEqual([decided, ...order]);
    expect(await list({ status: CandidateStatus.REJECTED })).toEqual([decided]);
    expect(await list({ status: CandidateStatus.APPROVED })).toEqual([]);
    expect(await list({ limit: 2, offset: 1 })).toEqual(order.slice(1, 3));
    expect(await list({ limit: 0 })).toEqual([]);
    expect(await list({ offset: 100 })).toEqual([]);
    const wrong = await refusal(list({ limit: -1, offset: -1, status: 9 }));
    expect(wrong.fields).toEqual(['status', 'limit', 'offset']);
    const all = await caller().unary(rpc.getCandidates, { status: CandidateStatus.ALL });
    const streamed = await collect(caller().stream(rpc.streamCandidates, { status: CandidateStatus.ALL }));
    expect(streamed.map((each) => each.candidate)).toEqual(all.candidates);
    expect(await collect(caller().stream(rpc.streamCandidates, {}))).toHaveLength(4);
    const count = async (request: object = {}) => (await caller().unary(rpc.countCandidates, request)).count;
    expect([await count(), await count({ status: CandidateStatus.ALL })]).toEqual([4n, 5n]);
    for (const status of [CandidateStatus.UNSPECIFIED, 9]) {
      expect((await refusal(count({ status }))).fields).toEqual(['status']);
    }
    expect(await caller().unary(rpc.countByStatus, {})).toMatchObject({ pending: 4n, approved: 0n, rejected: 1n });
  });

  test('more than the default page', async () => {
    await sidecar.sql(`insert into public.recovery_candidates (failure_match_id, suggestion, confidence)
      select gen_random_uuid(), 's', 0.5 from generate_series(1, 1200)`);
    expect((await caller().unary(rpc.getCandidates, {})).candidates).toHaveLength(50);
    expect((await caller().unary(rpc.getCandidates, { limit: 2_147_483_647 })).candidates).toHaveLength(1200);
    expect(await collect(caller().stream(rpc.streamCandidates, {}))).toHaveLength(1200);
  });

  test('explanations, whatever is stored', async () => {
    const shown = async (explain: string | null) => {
      await sidecar.sql('truncate public.recovery_candidates cascade');
      await candidate({ explain });
      return json((await caller().unary(rpc.getCandidates, {})).candidates[0]!.explain);
    };
    for (const nothing of [null, 'null', 'false', '0', '""', '[]', '{}', '"null"', '"[]"', '"0"']) {
      expect(await shown(nothing)).toEqual({});
    }
    expect(await shown('{"a": [1, {"ü": null}]}')).toEqual({ a: [1, { ü: null }] });
    expect(await shown('[1, 2]')).toEqual([1, 2]);
    expect(await shown('"{\\"k\\": [1]}"')).toEqual({ k: [1] });
    expect(await shown('"plain"')).toBe('plain');
  });

  test('decisions and their trail', async () => {
    const candidateId = await candidate();
    const decide = async (more: object = {}) =>
      (await caller().unary(rpc.approveCandidate, { candidateId, ...more }, single)).candidate!;
    const approved = await decide({ approvedBy: 'bob' });
    expect(approved).toMatchObject({
      id: candidateId,
      decision: CandidateDecision.APPROVED,
      approvedByHuman: 'bob',
      reviewNote: '',
    });
    expect(approved.approvedAt).toBeDefined();
    const rejected = await decide({ decision: CandidateDecision.REJECTED, note: 'no "way"' });
    expect(rejected).toMatchObject({ decision: CandidateDecision.REJECTED, reviewNote: 'no "way"' });
    expect(rejected.approvedByHuman).toBe(undefined);
    await decide({ decision: CandidateDecision.REJECTED, approvedBy: '' });
    expect(
      await sidecar.sql(
        'select action, actor, old_decision, new_decision, note from public.recovery_candidates_audit order by id',
      ),
    ).toEqual([
      { action: 'approved', actor: 'bob', old_decision: 'pending', new_decision: 'approved', note: '' },
      { action: 'rejected', actor: null, old_decision: 'approved', new_decision: 'rejected', note: 'no "way"' },
      { action: 'rejected', actor: '', old_decision: 'rejected', new_decision: 'rejected', note: '' },
    ]);
    for (const decision of [CandidateDecision.PENDING, CandidateDecision.UNSPECIFIED, 9]) {
      expect(await refusal(decide({ decision }))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['decision'] });
    }
    expect(await refusal(decide({ candidateId: 999_999 }))).toMatchObject({
      code: 'NOT_FOUND',
      reason: 'CANDIDATE_NOT_FOUND',
      metadata: { candidate_id: '999999' },
    });
    expect((await refusal(caller().unary(rpc.approveCandidate, { candidateId }))).reason).toBe('TRANSACTION_REQUIRED');
  });
});

describe('many at once', () => {
  const report = RecoveryWriteService.method.upsertRecoveryCandidate;
  const reportOf = (failureMatchId: string, keyed = true) => ({
    failureMatchId,
    suggestion: 's',
    confidence: 0.5,
    ...(keyed ? { idempotencyKey: randomUUID() } : {}),
  });

  test('suggestions and reports of one failure neither collide nor get lost', async () => {
    for (let round = 0; round < 20; round += 1) {
      const failureMatchId = randomUUID();
      await Promise.all(
        Array.from({ length: 16 }, (_each, caller) =>
          caller % 2 === 0
            ? sidecar.grpc.unary(rpc.suggest, { failureMatchId, failurePayload: { errorType: 'E' } }, single)
            : sidecar.grpc.unary(report, reportOf(failureMatchId), single),
        ),
      );
      expect(
        await sidecar.sql('select occurrence_count from public.recovery_candidates where failure_match_id = $1', [
          failureMatchId,
        ]),
      ).toEqual([{ occurrence_count: 16 }]);
    }
  });

  test.each(['suggestions', 'reports', 'reports with keys'])(
    'transactions that take two failures crosswise, %s: one goes without, the other has both',
    async (kind) => {
      const failures = [randomUUID(), randomUUID()];
      const begun = await Promise.all(failures.map(() => sidecar.grpc.unary(transactions.begin, {})));
      const ids = begun.map(({ transaction }) => transaction!.id!);
      const take = async (caller: number, failure: string) => {
        const within = { transaction: ids[caller]! };
        const { candidateId } =
          kind === 'suggestions'
            ? await sidecar.grpc.unary(rpc.suggest, { failureMatchId: failure }, within)
            : await sidecar.grpc.unary(report, reportOf(failure, kind === 'reports with keys'), within);
        return { caller, candidateId, refused: undefined };
      };
      await Promise.all(failures.map((failure, caller) => take(caller, failure)));
      const crossed = failures
        .toReversed()
        .map((failure, caller) =>
          take(caller, failure).catch((refused: CallError) => ({ caller, candidateId: undefined, refused })),
        );
      // Whose locks are gone with its refusal may hear of that after the other has heard of its success.
      const loser = await Promise.any(
        crossed.map(async (taking) => {
          const taken = await taking;
          if (taken.candidateId !== undefined) throw new Error('went on');
          return taken;
        }),
      );
      // A suggestion is stored as well as possible: its caller is told nothing worse.
      if (kind !== 'suggestions') {
        expect(loser.refused).toMatchObject({ code: 'ABORTED', reason: 'DEADLOCK_DETECTED' });
        expect(loser.refused!.retryAfterMs).toBeGreaterThan(0);
      }
      await sidecar.grpc.unary(transactions.rollback, { transactionId: ids[loser.caller]! });
      const winner = await crossed[1 - loser.caller]!;
      expect(winner.candidateId).toBeGreaterThan(0);
      await sidecar.grpc.unary(transactions.commit, { transactionId: ids[winner.caller]! });
      expect(await sidecar.sql('select from public.recovery_candidates')).toHaveLength(2);
    },
  );

  test('the trail of many deciders has no gap', async () => {
    const candidateId = await candidate();
    await Promise.all(
      Array.from({ length: 16 }, (_each, index) => {
        const decision = index % 2 === 0 ? CandidateDecision.APPROVED : CandidateDecision.REJECTED;
        return sidecar.grpc.unary(rpc.approveCandidate, { candidateId, decision }, single);
      }),
    );
    const trail = await sidecar.sql<{ old_decision: string; new_decision: string }>(
      'select old_decision, new_decision from public.recovery_candidates_audit order by id',
    );
    expect(trail).toHaveLength(16);
    expect(trail.map(({ old_decision }) => old_decision)).toEqual([
      'pending',
      ...trail.slice(0, -1).map(({ new_decision }) => new_decision),
    ]);
  });
});

describe('layers of the hybrid', () => {
  const llm = useStarted(startProvider, ({ close }) => close());
  const embedder = useStarted(startProvider, ({ close }) => close());
  const layered = useSidecar(() =>
    startTestSidecar({
      anthropicApiKey: 'llm-key',
      llmUrl: llm.url,
      embeddingUrl: `${embedder.url}/v1`,
      embeddingKey: 'embedding-key',
    }),
  );
  beforeEach(async () => {
    await layered.sql(`truncate ${TABLES} restart identity`);
    for (const provider of [llm, embedder]) provider.requests.length = 0;
    llm.answer = { json: { content: [{ type: 'text', text: 'no idea' }] } };
    embedder.answer = { json: { data: [{ embedding: [1, 0, 0] }] } };
  });

  const know = (id: string, embedding: readonly number[], more: { action?: string; rate?: number | null } = {}) =>
    layered.sql(
      `insert into public.failure_catalog (id, error_code, error_pattern, recovery_action, success_rate, embedding)
      values ($1, 'E', 'pat', $2, $3, $4)`,
      [id, more.action ?? null, more.rate ?? null, embedding],
    );
  // Every test has an error code of its own: the cache outlives them.
  const ask = (errorType: string, more: object = {}, failureMatchId = randomUUID()) =>
    layered.grpc.unary(
      rpc.suggestHybrid,
      { failureMatchId, failurePayload: { errorType, raw: 'boom password=hunter22', ...more } },
      single,
    );

  test('a known failure that is similar enough', async () => {
    await know('far', [0.5, 0.5, 0], { action: 'nothing' });
    await know('near', [0.95, 0.1, 0], { action: 'restart', rate: 0.5 });
    await know('other-model', [1, 0], { action: 'wrong' });
    await know('zero', [0, 0, 0], { action: 'wrong' });
    await know('huge', [1e308, 1e308, 0], { action: 'wrong' });
    await know('tiny', [5e-324, 1e-300, 1e-300], { action: 'wrong' });
    const found = await ask('EMBEDDED');
    const similarity = 0.95 / Math.hypot(0.95, 0.1);
    expect(found.suggestedRecovery).toBe('restart');
    expect(found.confidence).toBeCloseTo(similarity * 0.5, 12);
    expect(found.candidateId).toBe(undefined);
    expect(json(found.explain)).toEqual({
      method: 'embedding',
      similarity: expect.closeTo(similarity, 12),
      catalog_id: 'near',
    });
    expect(json(found.matchedEntry)).toEqual({
      id: 'near',
      error_code: 'E',
      error_pattern: 'pat',
      recovery_action: 'restart',
      success_rate: 0.5,
      similarity: expect.closeTo(similarity, 12),
      source: 'embedding',
    });
    expect(embedder.requests).toMatchObject([
      {
        method: 'POST',
        path: '/v1/embeddings',
        headers: { authorization: 'Bearer embedding-key' },
        body: { model: 'text-embedding-3-small', input: 'boom password=[REDACTED]' },
      },
    ]);
    expect(llm.requests).toEqual([]);
    const again = await ask('EMBEDDED');
    expect(json(again.explain)).toEqual({ method: 'cache', cache_hit: true });
    expect([again.suggestedRecovery, again.confidence]).toEqual([found.suggestedRecovery, found.confidence]);
    expect(json(again.matchedEntry)).toEqual(json(found.matchedEntry));
    expect(embedder.requests).toHaveLength(1);
    expect(await layered.sql('select * from public.recovery_candidates')).toEqual([]);
  });

  // NaN sorts above every similarity, and hid all that are known.
  test('a corrupt embedding hides no other', async () => {
    await know('nan', [Number.NaN, 0, 0], { action: 'wrong' });
    await know('infinite', [Number.POSITIVE_INFINITY, 0, 0], { action: 'wrong' });
    await know('near', [1, 0, 0], { action: 'restart', rate: 0.5 });
    expect((await ask('CORRUPT')).suggestedRecovery).toBe('restart');
  });

  test('a known failure without recovery and rate', async () => {
    await know('c1', [2, 0, 0]);
    const found = await ask('BARE');
    expect([found.suggestedRecovery, found.confidence]).toEqual([undefined, 0]);
    expect(json(found.matchedEntry)).toMatchObject({ recovery_action: null, success_rate: 0 });
  });

  test('equally similar failures: the lowest id', async () => {
    for (const id of ['b', 'a', 'c']) await know(id, [1, 0, 0], { action: id, rate: 1 });
    const found = await ask('TIES');
    expect([found.suggestedRecovery, found.confidence]).toEqual(['a', 0.95]);
  });

  test('then the model, which is told no secret', async () => {
    await know('far', [0.8, 0.6, 0], { action: 'nothing' });
    llm.answer = {
      json: {
        content: [
          {
            type: 'text',
            text: '```json\n{"suggested_action": "act", "confidence": 0.7, "reasoning": "why", "requires_human": true}\n```',
          },
        ],
      },
    };
    const found = await ask('MODEL sk-aaaaaaaaaaaaaaaaaaaaaaaa');
    expect([found.suggestedRecovery, found.confidence, found.candidateId]).toEqual(['act', 0.7, undefined]);
    expect(json(found.matchedEntry)).toEqual({ source: 'llm', reasoning: 'why' });
    expect(json(found.explain)).toEqual({ method: 'llm', requires_human: true });
    expect(llm.requests).toMatchObject([
      {
        method: 'POST',
        path: '/v1/messages',
        headers: { 'x-api-key': 'llm-key', 'anthropic-version': '2023-06-01', 'content-type': 'application/json' },
        body: { model: 'claude-sonnet-4-20250514', max_tokens: 500, messages: [{ role: 'user' }] },
      },
    ]);
    const said = JSON.stringify(llm.requests[0]!.body);
    expect(said).toContain('boom password=[REDACTED]');
    expect(said).toContain('[REDACTED_API_KEY]');
    expect(said).not.toContain('hunter22');
    expect(said).not.toContain('sk-aaaa');
    expect(json((await ask('MODEL sk-aaaaaaaaaaaaaaaaaaaaaaaa')).explain)).toEqual({
      method: 'cache',
      cache_hit: true,
    });
  });

  test('what nobody knows is left to history, and not kept', async () => {
    const failure = randomUUID();
    const found = await ask('UNHEARD_OF', {}, failure);
    expect(json(found.explain)).toEqual({ method: 'no_history', confidence: 0.2 });
    expect(found.candidateId).toBeGreaterThan(0);
    await ask('UNHEARD_OF', {}, failure);
    expect([embedder.requests.length, llm.requests.length]).toEqual([2, 2]);
    expect(await layered.sql('select occurrence_count from public.recovery_candidates')).toEqual([
      { occurrence_count: 2 },
    ]);
  });

  test.each([
    ['429', { status: 429, json: { error: { type: 'rate_limit_error' } } }],
    ['no JSON', { text: '<html>' }],
    ['another form', { json: { data: [{ embedding: ['x'] }], content: [{ text: 7 }] } }],
    ['null', { json: null }],
    ['a redirect', { status: 307, headers: { location: 'http://127.0.0.1:9/' } }],
  ])('providers that answer with %s are passed over', async (name, answer) => {
    await know('c1', [1, 0, 0], { action: 'restart' });
    llm.answer = answer;
    embedder.answer = answer;
    expect(json((await ask(`PASSED_OVER ${name}`)).explain)).toEqual({ method: 'no_history', confidence: 0.2 });
    expect([embedder.requests.length, llm.requests.length]).toEqual([1, 1]);
  });

  test('vectors that cannot be compared do not end the transaction', async () => {
    await know('c1', [1e200, 1, 1], { action: 'restart' });
    embedder.answer = { json: { data: [{ embedding: [1e200, 1, 1] }] } };
    const failure = randomUUID();
    const found = await ask('OVERFLOW', {}, failure);
    expect(json(found.explain)).toEqual({ method: 'no_history', confidence: 0.2 });
    expect(found.candidateId).toBeGreaterThan(0);
  });

  // It once held its connection from the start, so as many slow answers as connections stopped everybody; then from the
  // comparison of embeddings on, while the model was thinking.
  test.each([
    ['', undefined],
    [', known failures looked at', 'on'],
  ])('while a provider thinks, others use the only connection%s', async (_name, compared) => {
    const narrow = await startTestSidecar({
      poolMax: 1,
      anthropicApiKey: 'llm-key',
      llmUrl: llm.url,
      embeddingUrl: compared && `${embedder.url}/v1`,
    });
    llm.answer = { silent: true };
    const ended = new AbortController();
    const thinking = refusal(
      narrow.grpc.unary(
        rpc.suggestHybrid,
        { failurePayload: { errorType: 'THINKING' } },
        { ...single, signal: ended.signal },
      ),
    );
    await vi.waitFor(() => expect(llm.requests).toHaveLength(1));
    expect(await narrow.grpc.unary(rpc.countCandidates, { status: CandidateStatus.ALL })).toMatchObject({
      count: 0n,
    });
    ended.abort();
    expect((await thinking).code).toBe('CANCELLED');
    await narrow.stop();
  });

  test('the caller does not wait for a provider longer than for the call', async () => {
    embedder.answer = { silent: true };
    const started = performance.now();
    const late = layered.grpc.unary(
      rpc.suggestHybrid,
      { failurePayload: { errorType: 'SILENT' } },
      { ...single, timeoutMs: 300 },
    );
    expect((await refusal(late)).code).toBe('DEADLINE_EXCEEDED');
    expect(performance.now() - started).toBeLessThan(2_000);
  });
});
