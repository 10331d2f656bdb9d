import { randomUUID } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Code, type RpcError } from '../../src/contract/errors.ts';
import { CallNotes } from '../../src/database/notes.ts';
import { jsonToValue, valueToJson } from '../../src/database/values.ts';
import { Evaluation } from '../../src/entities/evaluation.ts';
import type { Operation } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { EvaluationSchema, PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { LimitScope, PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { PolicyRulesService, RetireRuleRequestSchema } from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { projection } from '../../src/statements/projection.ts';
import { type CallInit, collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar({ maxMessageBytes: 33_554_432, maxResponseBytes: 33_554_432 });

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

  // Story: digits on both sides of the point were counted apart, and 12345678901.123456789 lost its last three.
  test('a number has all of its digits wherever its point is, or is a double that has them', async () => {
    /** Its digits and where the point is, whatever zeros stand around. */
    const exactly = (text: string): string => {
      const [, sign, whole, fraction = '', power = '0'] = /^(-?)(\d+)(?:\.(\d*))?(?:e([+-]?\d+))?$/.exec(text)!;
      const digits = BigInt(whole! + fraction).toString();
      const significant = digits.replace(/0+$/, '');
      return `${sign}${significant}e${Number(power) - fraction.length + digits.length - significant.length}`;
    };
    const digit = fc.nat({ max: 9 });
    const digits = fc.array(digit, { minLength: 1, maxLength: 17 }).map((all) => all.join(''));
    const number = fc.tuple(fc.constantFrom('', '-'), fc.integer({ min: 1, max: 9 }), digits, digits);
    await fc.assert(
      fc.asyncProperty(fc.array(number, { minLength: 1, maxLength: 50 }), async (numbers) => {
        const texts = numbers.map(([sign, first, whole, fraction]) => `${sign}${first}${whole}.${fraction}`);
        const id = randomUUID();
        await sidecar.sql(
          `insert into policy.evaluations (id, action_type, decision, request_context) values ($1, 'x', 'allow', $2::jsonb)`,
          [id, `[${texts.join(',')}]`],
        );
        const { evaluation: read } = await caller().unary(rpc.fetchEvaluationById, { evaluationId: id });
        const found = valueToJson(read!.requestContext!) as (string | number)[];
        expect(found.map((each) => exactly(String(each)))).toEqual(texts.map(exactly));
      }),
      { numRuns: 20 },
    );
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

describe.each(['grpc', 'connect'] as const)('stored values that a field cannot hold, over %s', (listener) => {
  const caller = () => sidecar[listener];
  /** Answer of a call, and what its trailer says of values that were not carried exactly. */
  const noted = async <T>(call: (init: CallInit) => Promise<T>) => {
    let inexact: string | undefined;
    const answer = await call({
      onTrailer: (trailer) => {
        inexact = trailer('inexact-values');
      },
    });
    return { answer, inexact };
  };
  const evaluationOf = async (column: string, sql: string) => {
    const id = randomUUID();
    await sidecar.sql(
      `insert into policy.evaluations (id, action_type, decision, ${column}) values ($1, 'x', 'allow', ${sql})`,
      [id],
    );
    const { answer, inexact } = await noted((init) =>
      caller().unary(rpc.fetchEvaluationById, { evaluationId: id }, init),
    );
    return { read: answer.evaluation!, inexact: inexact?.replaceAll(id, 'id') };
  };

  const FIRST = { seconds: -62_135_596_800n, nanos: 0 };
  const LAST = { seconds: 253_402_300_799n, nanos: 999_999_000 };

  test.each([
    [`'infinity'`, LAST, 'latest'],
    [`'-infinity'`, FIRST, 'earliest'],
    [`'0044-03-15 BC'`, FIRST, 'earliest'],
    [`'4713-01-01 BC'`, FIRST, 'earliest'],
    [`'0001-12-31 23:59:59.999999+00 BC'`, FIRST, 'earliest'],
    [`'10000-01-01'`, LAST, 'latest'],
    [`'294276-12-31 23:59:59.999999'`, LAST, 'latest'],
    [`'0001-01-01'`, FIRST, undefined],
    [`'9999-12-31 23:59:59.999999'`, LAST, undefined],
  ])('the instant %s', async (sql, expected, how) => {
    const { read, inexact } = await evaluationOf('evaluated_at', sql);
    expect(read.evaluatedAt).toMatchObject(expected);
    expect(inexact).toBe(how && `policy.evaluations.evaluated_at[id]=${how}`);
  });

  const place = 'policy.evaluations.rules_matched[id]';
  test.each([
    [`'{a,NULL,b}'`, ['a', '', 'b'], `${place}=null-as-empty`],
    [`'{NULL}'`, [''], `${place}=null-as-empty`],
    [`'{{a,b},{c,d}}'`, ['a', 'b', 'c', 'd'], `${place}=flattened`],
    [`array[array[array['"','\\']],array[array['{,}',' ']]]`, ['"', '\\', '{,}', ' '], `${place}=flattened`],
    [`'{{"NULL",NULL},{"",a}}'`, ['NULL', '', '', 'a'], `${place}=flattened, ${place}=null-as-empty`],
    [`'[2:3]={a,b}'`, ['a', 'b'], undefined],
    [`'[0:0][5:6]={{"[1:2]={",NULL}}'`, ['[1:2]={', ''], `${place}=flattened, ${place}=null-as-empty`],
    [`'{}'`, [], undefined],
  ])('the text array %s', async (sql, expected, how) => {
    const { read, inexact } = await evaluationOf('rules_matched', sql);
    expect(read.rulesMatched?.values).toEqual(expected);
    expect(inexact).toBe(how);
  });

  test.each([
    [`'NaN'`, Number.NaN],
    [`'Infinity'`, Number.POSITIVE_INFINITY],
    [`'-Infinity'`, Number.NEGATIVE_INFINITY],
  ])('the double %s is one of the field', async (sql, expected) => {
    const { read, inexact } = await evaluationOf('evaluation_ms', sql);
    expect(read.evaluationMs).toBe(expected);
    expect(inexact).toBeUndefined();
  });

  test('a document too deep to be read', async () => {
    const { read, inexact } = await evaluationOf(
      'request_context',
      `(repeat('[', 4000) || '1e400' || repeat(']', 4000))::jsonb`,
    );
    const text = read.requestContext?.kind.value as string;
    expect(text.length).toBe(4000 + 401 + 4000);
    expect(inexact).toBe('policy.evaluations.request_context[id]=as-text');
  });

  test('a text that the enum does not know, a decimal that is no number, a key of any text', async () => {
    await sidecar.sql('alter table public.limits drop constraint if exists ck_limits_scope');
    await sidecar.sql('truncate public.limits cascade');
    await sidecar.sql(
      `insert into public.limits (id, tenant_id, name, limit_category, limit_type, scope, max_value)
       values ($1, 't', 'n', 'RATE', 'X', 'GALAXY', 'NaN'), ('plain', 't', 'n', 'RATE', 'X', 'TENANT', 1)`,
      ['a,=]\n\u{1f600}ü'.repeat(20)],
    );
    const { answer, inexact } = await noted((init) =>
      caller().unary(PolicyGraphService.method.fetchAllLimits, { tenantId: 't' }, init),
    );
    expect(answer.limits.map(({ scope }) => scope)).toEqual([LimitScope.UNSPECIFIED, LimitScope.TENANT]);
    expect(answer.limits.map(({ limitValue }) => limitValue)).toEqual(['NaN', '1.0000']);
    expect(inexact).toMatch(/^public\.limits\.scope\[a%2C%3D%5D%0A%F0%9F%98%80%C3%BC[\w%]*\]=unspecified$/);
    expect(inexact!.length).toBeLessThan(400);
  });

  test.each([
    ['NaN', 0n, true],
    ['999999.9999', 999_999n, false],
  ])('a sum with %s', async (cost, total, isOdd) => {
    await sidecar.sql('truncate public.proxy_calls');
    await sidecar.sql(
      `insert into public.proxy_calls (id, tenant_id, endpoint, model, request_hash, request_json, cost_cents)
       values ('1', 't', 'e', 'm', 'h', '{}', $1)`,
      [cost],
    );
    const { answer, inexact } = await noted((init) =>
      caller().unary(PolicyReadService.method.getUsageSumSince, { tenantId: 't', since: FIRST }, init),
    );
    expect(answer.totalCents).toBe(total);
    expect(inexact).toBe(isOdd ? 'GetUsageSumSinceResponse.total_cents=nearest' : undefined);
  });

  test('a list and a stream bring every row; names are bounded, the rest is counted', async () => {
    await sidecar.sql('truncate policy.evaluations');
    await sidecar.sql(
      `insert into policy.evaluations (id, action_type, decision, evaluated_at, rules_matched)
       select lpad(n::text, 32, '0')::uuid, 'x', 'allow', case when n <= 15 then 'infinity' else now() end, '{a}'
       from generate_series(1, 1200) n`,
    );
    const list = await noted((init) => caller().unary(rpc.fetchEvaluations, { limit: 2000 }, init));
    expect(list.answer.evaluations).toHaveLength(1200);
    const stream = await noted((init) => collect(caller().stream(rpc.streamEvaluations, {}, init)));
    expect(stream.answer).toHaveLength(1200);
    const inexact = [
      ...Array.from({ length: 10 }, (_, index) => {
        const key = `00000000-0000-0000-0000-${String(15 - index).padStart(12, '0')}`;
        return `policy.evaluations.evaluated_at[${key}]=latest`;
      }),
      '+5',
    ].join(', ');
    expect(list.inexact).toBe(inexact);
    expect(stream.inexact).toBe(inexact);
    const lines = sidecar.log().filter(({ inexact: names }) => names === inexact);
    expect(lines.map(({ method, code }) => `${method} ${code}`)).toEqual(
      expect.arrayContaining(['PolicyEngineService/FetchEvaluations OK', 'PolicyEngineService/StreamEvaluations OK']),
    );
  });

  test('inside a transaction, and in the answer of a write', async () => {
    await sidecar.sql('truncate public.policy_rules cascade');
    await sidecar.sql(
      `insert into public.policy_rules (id, tenant_id, name, created_at) values ('r', 't', 'n', '-infinity')`,
    );
    const begun = await caller().unary(TransactionService.method.begin, {});
    const id = begun.transaction!.id!;
    const retired = await noted((init) =>
      caller().unary(
        PolicyRulesService.method.retireRule,
        { tenantId: 't', ruleId: 'r' },
        { ...init, transaction: id },
      ),
    );
    expect(retired.inexact).toBe('public.policy_rules.created_at[r]=earliest');
    await caller().unary(TransactionService.method.rollback, { transactionId: id });
    const request: Operation['request'] = {
      case: 'retireRule',
      value: create(RetireRuleRequestSchema, { tenantId: 't', ruleId: 'r' }),
    };
    const executed = await noted((init) =>
      caller().unary(TransactionService.method.execute, { operations: [{ request }] }, init),
    );
    expect(executed.inexact).toBe('public.policy_rules.created_at[r]=earliest');
  });

  test('no stored value fails a list', async () => {
    const year = fc.integer({ min: 1, max: 294_275 });
    const instant = fc.oneof(
      fc.constantFrom('infinity', '-infinity', '4713-11-24 00:00:00+00 BC'),
      fc.date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) }).map((date) => date.toISOString()),
      year.map((each) => `${String(each).padStart(4, '0')}-02-28 23:59:59.5+00`),
      fc.integer({ min: 1, max: 4712 }).map((each) => `${String(each).padStart(4, '0')}-06-01 00:00:00+00 BC`),
    );
    const cell = fc.option(text);
    const array = fc.oneof(
      fc.array(cell),
      fc.integer({ min: 1, max: 3 }).chain((width) => fc.array(fc.array(cell, { minLength: width, maxLength: width }))),
    );
    const number = fc.oneof(
      fc.double().map(String),
      fc.tuple(fc.maxSafeInteger(), fc.nat(400)).map(([digits, power]) => `${digits}e${power}`),
    );
    const json = fc.oneof(
      fc.json({ noUnicodeString: true }).filter((each) => !/\\u(0000|d)/.test(each)),
      number.filter((each) => /^-?[\d.e+-]+$/.test(each)),
      fc.nat(3000).map((depth) => '[{"a":'.repeat(depth) + 1 + '}]'.repeat(depth)),
    );
    const row = fc.tuple(instant, array, json, fc.double().map(String), fc.constantFrom('NaN', '-12345.6789', '0'));
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 20 }), async (rows) => {
        await sidecar.sql('truncate policy.evaluations; truncate public.limits cascade');
        for (const [at, rules, document, double, decimal] of rows) {
          await sidecar.sql(
            `insert into policy.evaluations (action_type, decision, evaluated_at, rules_matched, request_context, evaluation_ms)
             values ('x', 'allow', $1, $2, $3, $4)`,
            [at, rules, document, double],
          );
          await sidecar.sql(
            `insert into public.limits (id, tenant_id, name, limit_category, limit_type, max_value, created_at)
             values (gen_random_uuid()::text, 't', 'n', 'RATE', 'X', $1, $2)`,
            [decimal, at],
          );
        }
        const { answer, inexact } = await noted((init) => caller().unary(rpc.fetchEvaluations, {}, init));
        expect(answer.evaluations).toHaveLength(rows.length);
        const isOdd = rows.some(
          ([at, rules]) => /infinity|BC|^\d{5}/.test(at) || rules.some((each) => each === null || Array.isArray(each)),
        );
        if (isOdd) expect(inexact).toBeDefined();
        const limits = await caller().unary(PolicyGraphService.method.fetchAllLimits, { tenantId: 't' });
        expect(limits.limits).toHaveLength(rows.length);
      }),
      { numRuns: 25 },
    );
  });
});

test('what no form comes near is DATA_LOSS that names its place', () => {
  const { map } = projection(EvaluationSchema, Evaluation);
  const cells = EvaluationSchema.fields.map(({ name }) => {
    if (name === 'id') return '00000000-0000-0000-0000-0000000000ab';
    return name === 'evaluated_at' ? '2026-11-23 14:11:26+02' : null;
  });
  const error = (() => {
    try {
      map(cells, new CallNotes());
    } catch (thrown) {
      return thrown as RpcError;
    }
  })();
  expect(error).toMatchObject({
    code: Code.DATA_LOSS,
    reason: 'UNREPRESENTABLE_VALUE',
    message: 'a stored value cannot be represented: an instant that is not in UTC',
    metadata: {
      table: 'policy.evaluations',
      column: 'evaluated_at',
      key: '00000000-0000-0000-0000-0000000000ab',
    },
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
