import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { jsonToValue, valueToJson } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };

let sidecar: TestSidecar;
beforeAll(async () => {
  sidecar = await startTestSidecar();
});
afterAll(() => sidecar?.stop());

const evaluation = (fields: object) => ({
  evaluationId: randomUUID(),
  actionType: 'execute',
  requestContext: jsonToValue({}),
  decision: 'allow',
  policiesChecked: 0,
  evaluatedAt: { seconds: 0n, nanos: 0 },
  ...fields,
});

/** Text that PostgreSQL can hold: any but U+0000, no lone surrogates. */
const text = fc.string({ unit: 'binary' }).filter((each) => !each.includes('\0') && each.isWellFormed());

describe.each(['grpc', 'connect'] as const)('round trips over %s', (listener) => {
  const caller = () => sidecar[listener];
  const trip = async (fields: object) => {
    const sent = evaluation(fields);
    await caller().unary(rpc.insertEvaluation, sent, single);
    const { evaluation: read } = await caller().unary(rpc.fetchEvaluationById, { evaluationId: sent.evaluationId });
    return read!;
  };

  test('text, text lists and documents come back exactly', async () => {
    const json = fc.jsonValue({ noUnicodeString: false, maxDepth: 4 }).filter((each) => {
      const plain = JSON.stringify(each);
      return !plain.includes('\\u0000') && plain.isWellFormed() && !plain.includes('\\ud');
    });
    await fc.assert(
      fc.asyncProperty(text, fc.array(text), json, async (reason, rules, document) => {
        const read = await trip({
          decisionReason: reason,
          rulesMatched: { values: rules },
          modifications: jsonToValue(document),
        });
        expect(read.decisionReason).toBe(reason);
        expect(read.rulesMatched?.values).toEqual(rules);
        // jsonb knows no negative zero; everything else is exact.
        expect(JSON.stringify(sorted(valueToJson(read.modifications!)))).toBe(JSON.stringify(sorted(document)));
      }),
      { numRuns: 60 },
    );
  });

  test.each([
    [['NULL'], 'the word NULL'],
    [['null', ' lead', 'trail ', '\n', '\t', ''], 'blanks'],
    [['{', '}', '{a,b}', ',', '"', '\\', '\\"', "'", '$1', '?'], 'punctuation'],
    [[], 'an empty list'],
  ])('a text list of %j', async (values) => {
    expect((await trip({ rulesMatched: { values } })).rulesMatched?.values).toEqual(values);
  });

  test('an absent list is not an empty one', async () => {
    expect((await trip({})).rulesMatched).toBeUndefined();
    expect((await trip({ rulesMatched: {} })).rulesMatched?.values).toEqual([]);
  });

  test('instants are exact to the microsecond from the year 1 to 9999', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.bigInt(-62_135_596_800n, 253_402_300_799n),
        fc.integer({ min: 0, max: 999_999 }),
        async (seconds, micros) => {
          const read = await trip({ evaluatedAt: { seconds, nanos: micros * 1000 } });
          expect(read.evaluatedAt).toMatchObject({ seconds, nanos: micros * 1000 });
        },
      ),
      {
        numRuns: 80,
        examples: [
          [-62_135_596_800n, 1],
          [253_402_300_799n, 999_999],
          [-1n, 999_999],
          [0n, 0],
        ],
      },
    );
  });

  test('doubles are exact', async () => {
    await fc.assert(
      fc.asyncProperty(fc.double({ noNaN: true, noDefaultInfinity: true }), async (evaluationMs) => {
        expect((await trip({ evaluationMs })).evaluationMs).toBe(evaluationMs);
      }),
      { numRuns: 80, examples: [[5e-324], [Number.MAX_VALUE], [0.1], [-0], [1e21], [1e-7]] },
    );
  });

  test('a document keeps hostile keys', async () => {
    const document = JSON.parse(
      '{"__proto__": {"x": 1}, "constructor": null, "": [], "a.b": {"$": "\\u2028"}, "toString": 0}',
    );
    const read = valueToJson((await trip({ modifications: jsonToValue(document) })).modifications!);
    expect(sorted(read)).toEqual(sorted(document));
    expect(Object.keys(read as object)).toContain('__proto__');
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  test('numbers that a double cannot hold keep their digits, as text', async () => {
    const id = randomUUID();
    await sidecar.sql(
      `insert into policy.evaluations (id, action_type, decision, request_context)
       values ($1, 'x', 'allow', '[9007199254740993, 12345678901234567890.0123456789, 1e400, 1.10, 100, 1e3, 0.1, 9007199254740991]')`,
      [id],
    );
    const { evaluation: read } = await caller().unary(rpc.fetchEvaluationById, { evaluationId: id });
    expect(valueToJson(read!.requestContext!)).toEqual([
      '9007199254740993',
      '12345678901234567890.0123456789',
      expect.stringMatching(/^10{400}$/),
      1.1,
      100,
      1000,
      0.1,
      9007199254740991,
    ]);
  });

  test('decimals keep every digit', async () => {
    await sidecar.sql(`truncate limits cascade`);
    await sidecar.sql(`insert into limits (id, tenant_id, name, limit_category, limit_type, scope, max_value)
      values ('l', 't', 'n', 'RATE', 'X', 'TENANT', 12345678901234.5678)`);
    const { limits } = await caller().unary(PolicyGraphService.method.fetchAllLimits, { tenantId: 't' });
    expect(limits[0]?.limitValue).toBe('12345678901234.5678');
  });

  test('ten megabytes of text', async () => {
    const decisionReason = 'ü'.repeat(5_000_000);
    expect((await trip({ decisionReason })).decisionReason === decisionReason).toBe(true);
  });

  test.each([
    ['a text', { decisionReason: 'a\0b' }, 'decision_reason'],
    ['a list', { rulesMatched: { values: ['ok', 'a\0'] } }, 'rules_matched.values[1]'],
    ['a document', { modifications: jsonToValue({ deep: [{ 'k\0': 1 }] }) }, 'modifications'],
    ['a document text', { modifications: jsonToValue(['\0']) }, 'modifications'],
  ])('U+0000 in %s is refused by name', async (_what, fields, field) => {
    const error = await refusal(caller().unary(rpc.insertEvaluation, evaluation(fields), single));
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', fields: [field] });
  });

  test('a stored NULL in a text list is not dropped in silence', async () => {
    const id = randomUUID();
    await sidecar.sql(
      `insert into policy.evaluations (id, action_type, decision, rules_matched) values ($1, 'x', 'allow', '{a,NULL}')`,
      [id],
    );
    expect(await refusal(caller().unary(rpc.fetchEvaluationById, { evaluationId: id }))).toMatchObject({
      code: 'DATA_LOSS',
      reason: 'UNREPRESENTABLE_VALUE',
    });
  });

  test.each([
    '{00000000-0000-0000-0000-0000000000Ab}',
    '000000000000000000000000000000AB',
    '0000-0000-0000-0000-0000-0000-0000-00ab',
  ])('the UUID %s is read as PostgreSQL reads it', async (evaluationId) => {
    await sidecar.sql('truncate policy.evaluations');
    await caller().unary(rpc.insertEvaluation, evaluation({ evaluationId }), single);
    const read = await caller().unary(rpc.fetchEvaluationById, { evaluationId });
    expect(read.evaluation?.id).toBe('00000000-0000-0000-0000-0000000000ab');
  });

  test.each([
    '',
    'x',
    'urn:uuid:00000000-0000-0000-0000-0000000000ab',
    '{00000000-0000-0000-0000-0000000000ab',
    ' 00000000-0000-0000-0000-0000000000ab',
  ])('the text %j is no UUID', async (evaluationId) => {
    const error = await refusal(caller().unary(rpc.fetchEvaluationById, { evaluationId }));
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['evaluation_id'] });
  });
});

/** The same JSON with the keys of every object in order. */
const sorted = (json: unknown): unknown => {
  if (json === null || typeof json !== 'object') return Object.is(json, -0) ? 0 : json;
  if (Array.isArray(json)) return json.map(sorted);
  const result: Record<string, unknown> = Object.create(null);
  for (const key of Object.keys(json).sort()) result[key] = sorted((json as Record<string, unknown>)[key]);
  return result;
};
