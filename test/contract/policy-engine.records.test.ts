import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { timestampFromMs, type Value, ValueSchema } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test } from 'vitest';
import { jsonToValue, valueToJson } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };
const json = (text: string) => ({ kind: { case: 'stringValue' as const, value: text } });
const at = (ms: number) => timestampFromMs(1_750_000_000_000 + ms);

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy.evaluations, policy.violations, policy.policy_provenance'));

describe.each(['grpc', 'connect'] as const)('evaluations, violations and provenance over %s', (listener) => {
  const caller = () => sidecar[listener];
  const evaluation = (fields = {}) => ({
    evaluationId: randomUUID(),
    actionType: 'execute',
    requestContext: json('context'),
    decision: 'allow',
    policiesChecked: 3,
    evaluatedAt: at(0),
    ...fields,
  });
  const violation = (fields = {}) => ({
    violationId: randomUUID(),
    violationType: 'ethical_violation',
    severity: 0.5,
    description: 'd',
    evidence: json('evidence'),
    routedToGovernor: false,
    detectedAt: at(0),
    ...fields,
  });
  const insert = (fields = {}) => caller().unary(rpc.insertViolation, violation(fields), single);

  test('an evaluation is stored as it was sent', async () => {
    const sent = evaluation({
      evaluationId: randomUUID().toUpperCase(),
      agentId: '',
      rulesMatched: { values: ['a', 'b,c', '', 'NULL', 'say "x" \\'] },
      modifications: { kind: { case: 'nullValue' as const, value: 0 } },
      evaluationMs: 12.375,
      evaluatedAt: { seconds: 1_750_000_000n, nanos: 123_456_789 },
    });
    const inserted = await caller().unary(rpc.insertEvaluation, sent, single);
    expect(inserted).toMatchObject({ evaluationId: sent.evaluationId.toLowerCase(), rowsAffected: 1n });
    const { evaluation: read } = await caller().unary(rpc.fetchEvaluationById, { evaluationId: sent.evaluationId });
    expect(read).toMatchObject({
      agentId: '',
      evaluationMs: 12.375,
      evaluatedAt: { seconds: 1_750_000_000n, nanos: 123_456_000 },
      rulesMatched: { values: ['a', 'b,c', '', 'NULL', 'say "x" \\'] },
      modifications: { kind: { case: 'nullValue' } },
      temporalPoliciesChecked: 0,
    });
    expect(read?.tenantId).toBeUndefined();
    expect(read?.policyId).toBeUndefined();
    const again = await refusal(caller().unary(rpc.insertEvaluation, sent, single));
    expect(again).toMatchObject({ code: 'ALREADY_EXISTS', metadata: { constraint: 'evaluations_pkey' } });
  });

  // What fitted a request was deeper in an answer by its own messages, and to readers of Python and Java, which count the
  // entries of maps, deeper still: none of them took it back, and one such row failed every list it was in.
  test.each(['listValue', 'structValue'] as const)('what a document may hold can be read: %s', async (kind) => {
    const nested = (levels: number): Value => {
      if (levels === 0) return jsonToValue(1);
      const inner = nested(levels - 1);
      return kind === 'listValue'
        ? create(ValueSchema, { kind: { case: kind, value: { values: [inner] } } })
        : create(ValueSchema, { kind: { case: kind, value: { fields: { a: inner } } } });
    };
    await insert({ evidence: nested(30) });
    const { violations } = await caller().unary(rpc.fetchViolations, {});
    expect(violations.map(({ evidence }) => evidence)).toEqual([nested(30)]);
    expect(await refusal(insert({ evidence: nested(31) }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: ['evidence'],
    });
    // What somebody else has stored deeper is read, its depths as text.
    const deep = (levels: number): unknown =>
      levels === 0 ? [{ b: 1 }] : kind === 'listValue' ? [deep(levels - 1)] : { a: deep(levels - 1) };
    await sidecar.sql('update policy.violations set evidence = $1', [JSON.stringify(deep(30))]);
    const read = await caller().unary(rpc.fetchViolations, {});
    let inner = valueToJson(read.violations[0]!.evidence!) as Record<string, unknown>;
    for (let level = 0; level < 30; level += 1) inner = Object.values(inner)[0] as Record<string, unknown>;
    expect(inner).toBe('[{"b":1}]');
  });

  test('every missing or unfit field of an evaluation is named', async () => {
    const error = await refusal(
      caller().unary(
        rpc.insertEvaluation,
        { evaluationId: 'x', decision: 'd'.repeat(21), evaluationMs: Number.NaN },
        single,
      ),
    );
    expect(error.code).toBe('INVALID_ARGUMENT');
    expect([...error.fields].sort()).toEqual(
      [
        'action_type',
        'decision',
        'evaluated_at',
        'evaluation_id',
        'evaluation_ms',
        'policies_checked',
        'request_context',
      ].sort(),
    );
  });

  test('evaluations are filtered, newest first, and stream in the same order', async () => {
    for (let index = 0; index < 5; index += 1) {
      await caller().unary(
        rpc.insertEvaluation,
        evaluation({ evaluatedAt: at(index % 3), agentId: `a${index % 2}`, decision: index === 4 ? 'block' : 'allow' }),
        single,
      );
    }
    const { evaluations } = await caller().unary(rpc.fetchEvaluations, {});
    const keys = evaluations.map((each) => `${each.evaluatedAt?.nanos} ${each.id}`);
    expect(keys).toEqual([...keys].sort().reverse());
    expect(await collect(caller().stream(rpc.streamEvaluations, {}))).toMatchObject(
      evaluations.map((each) => ({ evaluation: { id: each.id } })),
    );
    const counted = async (filter: object) => (await caller().unary(rpc.fetchEvaluations, filter)).evaluations.length;
    expect(await counted({ agentId: 'a0' })).toBe(3);
    expect(await counted({ agentId: 'a0', decision: 'block', actionType: 'execute' })).toBe(1);
    expect(await counted({ agentId: '', tenantId: '', decision: '', actionType: '' })).toBe(5);
    expect(await counted({ tenantId: 't' })).toBe(0);
    expect(await counted({ since: at(2) })).toBe(1);
    expect(await counted({ limit: 2 })).toBe(2);
    expect(await counted({ limit: 0 })).toBe(0);
    expect((await refusal(counted({ limit: -1 }))).fields).toEqual(['limit']);
  });

  test('a missing evaluation is an answer, an id that is none is not', async () => {
    expect((await caller().unary(rpc.fetchEvaluationById, { evaluationId: randomUUID() })).evaluation).toBeUndefined();
    const error = await refusal(caller().unary(rpc.fetchEvaluationById, { evaluationId: 'e-1' }));
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['evaluation_id'] });
  });

  test('a violation is read back by id and in lists', async () => {
    const sent = violation({
      violationId: `{${randomUUID()}}`,
      agentId: 'agent-1',
      severity: 7,
      policyName: 'p "q" ü',
    });
    const { violationId } = await caller().unary(rpc.insertViolation, sent, single);
    expect(violationId).toBe(sent.violationId.slice(1, -1));
    const { violation: read } = await caller().unary(rpc.fetchViolationById, { violationId });
    expect(read).toMatchObject({
      id: violationId,
      policyName: 'p "q" ü',
      severity: 7,
      agentId: 'agent-1',
      evidence: { kind: { case: 'stringValue', value: 'evidence' } },
      routedToGovernor: false,
      detectedAt: { seconds: 1_750_000_000n, nanos: 0 },
    });
    expect(read?.governorAction).toBeUndefined();
    expect((await caller().unary(rpc.fetchViolations, {})).violations).toEqual([read]);
    expect((await caller().unary(rpc.fetchViolationById, { violationId: randomUUID() })).violation).toBeUndefined();
  });

  test('violation filters combine, and zero is a severity', async () => {
    await insert({ severity: -1, agentId: 'a', tenantId: 't' });
    await insert({ severity: 0, agentId: 'a', violationType: 'x' });
    await insert({ severity: 0.7, tenantId: 't', detectedAt: at(5) });
    const counted = async (filter: object) => (await caller().unary(rpc.fetchViolations, filter)).violations.length;
    expect(await counted({ severityMin: 0 })).toBe(2);
    expect(await counted({ severityMin: 0.7000000000000001 })).toBe(0);
    expect(await counted({ agentId: '', tenantId: '', violationType: '' })).toBe(3);
    expect(await counted({ agentId: 'a', tenantId: 't' })).toBe(1);
    expect(await counted({ violationType: 'x', severityMin: 0 })).toBe(1);
    expect(await counted({ since: at(5) })).toBe(1);
    expect(await counted({ limit: 1 })).toBe(1);
    expect(await collect(caller().stream(rpc.streamViolations, { tenantId: 't', severityMin: -5 }))).toHaveLength(2);
  });

  test('a violation needs its severity to be finite and its ids to be UUIDs', async () => {
    const error = await refusal(
      insert({ severity: Number.POSITIVE_INFINITY, evaluationId: 'e', policyName: 'p'.repeat(129) }),
    );
    expect([...error.fields].sort()).toEqual(['evaluation_id', 'policy_name', 'severity']);
  });

  test('acknowledging overwrites notes and counts', async () => {
    const { violationId } = await insert();
    const acknowledge = async (fields: object) =>
      (await caller().unary(rpc.updateViolationAcknowledged, { violationId, ...fields }, single)).rowsAffected;
    const stored = async () =>
      (
        await sidecar.sql<{ notes: string; done: boolean }>(
          `select acknowledgement_notes as notes, acknowledged_at is not null as done from policy.violations`,
        )
      )[0];
    expect(await acknowledge({ notes: "it's fine" })).toBe(1n);
    expect(await stored()).toEqual({ notes: "it's fine", done: true });
    expect(await acknowledge({})).toBe(1n);
    expect(await stored()).toEqual({ notes: null, done: true });
    expect(await acknowledge({ violationId: randomUUID() })).toBe(0n);
  });

  test('provenance is recorded and listed by version', async () => {
    const entry = {
      policyId: randomUUID(),
      policyType: 'version',
      action: 'rollback',
      changedBy: 'ann',
      policyVersion: '1.0.1',
    };
    const first = await caller().unary(rpc.insertProvenance, { ...entry, reason: 'why' }, single);
    expect(first).toMatchObject({ rowsAffected: 1n, provenanceId: expect.stringMatching(/^[0-9a-f-]{36}$/) });
    await caller().unary(rpc.insertProvenance, { ...entry, policyVersion: '1.0.2' }, single);
    const { provenance } = await caller().unary(rpc.fetchProvenance, {});
    expect(provenance.map(({ reason }) => reason)).toEqual([undefined, 'why']);
    const of = async (filter: object) => (await caller().unary(rpc.fetchProvenance, filter)).provenance.length;
    expect(await of({ policyVersion: '1.0.1' })).toBe(1);
    expect(await of({ policyVersion: '' })).toBe(2);
    expect(await of({ limit: 1 })).toBe(1);
    expect(await collect(caller().stream(rpc.streamProvenance, { policyVersion: '1.0.2' }))).toHaveLength(1);
    const error = await refusal(caller().unary(rpc.insertProvenance, { policyId: 'abc' }, single));
    expect([...error.fields].sort()).toEqual(['action', 'changed_by', 'policy_id', 'policy_type', 'policy_version']);
  });

  test('a write without a transaction is refused, and one that is rolled back leaves nothing', async () => {
    const error = await refusal(caller().unary(rpc.insertViolation, violation()));
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_REQUIRED' });
    const { transaction } = await caller().unary(TransactionService.method.begin, {});
    const inside = { transaction: transaction!.id! };
    await caller().unary(rpc.insertViolation, violation(), inside);
    expect((await caller().unary(rpc.fetchViolations, {}, inside)).violations).toHaveLength(1);
    await caller().unary(TransactionService.method.rollback, {}, inside);
    expect((await caller().unary(rpc.fetchViolations, {})).violations).toEqual([]);
  });
});
