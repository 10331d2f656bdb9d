import type { DescMessage } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { ExecuteRequestSchema, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { decodeJson } from '../../src/server/decode.ts';
import { useSidecar } from '../support/use.ts';
import { answerOf, envelope, openCall, openH2, pathOf } from '../support/wire.ts';

const FETCH = PolicyEngineService.method.fetchViolations;
const INSERT = PolicyEngineService.method.insertViolation;
const UPDATE = PolicyEngineService.method.updateRiskCeiling;
const BEGIN = TransactionService.method.begin;
const METRICS = PolicyEngineService.method.recordTemporalMetricEvents;

/** The fields a request in JSON is refused for; the reason where none is named; undefined when it is taken. */
const refused = (desc: DescMessage, text: string): unknown => {
  try {
    decodeJson(desc, text);
  } catch (error) {
    const { reason, fields } = error as { reason: string; fields: { field: string }[] };
    return fields.length > 0 ? fields.map(({ field }) => field) : reason;
  }
  return undefined;
};

const instant = (text: string) => refused(FETCH.input, JSON.stringify({ since: text }));

describe('instants', () => {
  // The first was stored as 03-02, the second as the next day.
  test.each([
    '2026-02-30T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2025-02-29T00:00:00Z',
    '1900-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-13-01T00:00:00Z',
    '2026-00-01T00:00:00Z',
    '2026-01-00T00:00:00Z',
    '2026-01-01T00:60:00Z',
    '2026-01-01T00:00:60Z',
    '2026-01-01T00:00:00+24:00',
    '2026-01-01T00:00:00+00:60',
    '2026-01-01T00:00:00',
    '2026-01-01 00:00:00Z',
    '2026-01-01T00:00:00.1234567890Z',
    '2026-1-1T00:00:00Z',
    ' 2026-01-01T00:00:00Z',
    'now',
    '',
  ])('%s is refused by the field', (text) => {
    expect(instant(text)).toEqual(['since']);
  });

  test.each([
    '2024-02-29T23:59:59.999999999Z',
    '2000-02-29T00:00:00+14:00',
    '0001-01-01T00:00:00Z',
    '9999-12-31T23:59:59Z',
  ])('%s is taken', (text) => {
    expect(instant(text)).toBeUndefined();
  });
});

describe('whole numbers', () => {
  const operation = (expectedRows: string) => `{"operations":[{"expectedRows":${expectedRows}}]}`;
  const rows = (text: string) =>
    (decodeJson(ExecuteRequestSchema, operation(text)) as never as { operations: { expectedRows: bigint }[] })
      .operations[0]!.expectedRows;

  // It became 750727362669609000.
  test.each([
    ['750727362669608961', 750727362669608961n],
    ['"750727362669608961"', 750727362669608961n],
    ['9223372036854775807', 2n ** 63n - 1n],
    ['-9223372036854775808', -(2n ** 63n)],
    ['9007199254740993.0', 9007199254740993n],
    ['9007199254740993e0', 9007199254740993n],
    ['1e3', 1000n],
    // ProtoJSON takes it in quotes, too; it was told to be out of range.
    ['"1e3"', 1000n],
    ['"9007199254740993.0"', 9007199254740993n],
    ['"9.223372036854775807E+18"', 2n ** 63n - 1n],
    ['-0', 0n],
  ])('%s is taken exactly', (text, value) => {
    expect(rows(text)).toBe(value);
  });

  test.each(['9223372036854775808', '1.5', '1e19', '1e-1', '"1.5"', '""', '" 1"', '"0x10"', '1e99999999'])(
    '%s is refused by the field',
    (text) => {
      expect(refused(ExecuteRequestSchema, operation(text))).toEqual(['operations[0].expected_rows']);
    },
  );

  test.each(['2147483648', '1.0000000000000000001', '"1e400"', '"1 "', '"0b1"'])(
    'an int32 of %s is refused',
    (text) => {
      expect(refused(FETCH.input, `{"limit":${text}}`)).toEqual(['limit']);
    },
  );

  test.each(['7', '7.0', '"7"', '70e-1', 'null'])('an int32 of %s is taken', (text) => {
    expect(refused(FETCH.input, `{"limit":${text}}`)).toBeUndefined();
  });

  test('several are replaced, each at its place', () => {
    const text = `{"operations":[{"expectedRows":9007199254740993},{"expectedRows":3},{"expectedRows":9007199254740995}]}`;
    const { operations } = decodeJson(ExecuteRequestSchema, text) as never as {
      operations: { expectedRows: bigint }[];
    };
    expect(operations.map(({ expectedRows }) => expectedRows)).toEqual([9007199254740993n, 3n, 9007199254740995n]);
  });
});

describe('doubles', () => {
  test.each(['1e400', '-1e400', '"1e400"', '"0x10"', '"1e"', '" 1"', '""', '9007199254740993', '"9007199254740993"'])(
    '%s is refused by the field',
    (text) => {
      expect(refused(FETCH.input, `{"severityMin":${text}}`)).toEqual(['severity_min']);
    },
  );

  test.each(['0.1', '1e-400', '"0.5"', '"NaN"', '"-Infinity"', '9007199254740992', '1e300', '-0'])(
    '%s is taken',
    (text) => {
      expect(refused(FETCH.input, `{"severityMin":${text}}`)).toBeUndefined();
    },
  );
});

describe('spans, masks, documents', () => {
  test.each(['"1.5"', '"1.5s and more"', '"1.1234567890s"', '"s"', '"1,5s"', '" 1s"'])(
    'a span of %s is refused',
    (text) => {
      expect(refused(BEGIN.input, `{"idleLease":${text}}`)).toEqual(['idle_lease']);
    },
  );

  test.each(['"1.5s"', '"-3s"', '"0.000000001s"'])('a span of %s is taken', (text) => {
    expect(refused(BEGIN.input, `{"idleLease":${text}}`)).toBeUndefined();
  });

  test.each(['"max_value"', '"maxValue,"', '" maxValue"', '"maxValue, name"', '"MaxValue"'])(
    'a mask of %s is refused',
    (text) => {
      expect(refused(UPDATE.input, `{"updateMask":${text}}`)).toEqual(['update_mask']);
    },
  );

  test.each(['{"a":[{"b":750727362669608961}]}', '1e999', '[[9007199254740993]]'])(
    'a document with a number that is not kept, %s, is refused by the field',
    (text) => {
      expect(refused(INSERT.input, `{"evidence":${text}}`)).toEqual(['evidence']);
    },
  );

  test.each(['null', '{"a":[1,2.5,"x",true,null,{"":{}}]}', '9007199254740992', '"750727362669608961"'])(
    'a document %s is taken',
    (text) => {
      expect(refused(INSERT.input, `{"evidence":${text}}`)).toBeUndefined();
    },
  );

  test.each(['{"a":1,"a":2}', '{"a":1,"\\u0061":2}'])(
    'a document that says two things of one key, %s, is refused',
    (text) => {
      expect(refused(INSERT.input, `{"evidence":${text}}`)).toBe('MALFORMED_REQUEST');
    },
  );
});

describe('text', () => {
  test.each(['"\\ud800"', '"a\\udc00b"', '"\\udc00\\ud800"'])(
    'half of a surrogate pair, %s, is refused by the field',
    (text) => {
      expect(refused(FETCH.input, `{"agentId":${text}}`)).toEqual(['agent_id']);
      expect(refused(INSERT.input, `{"evidence":{"a":${text}}}`)).toEqual(['evidence']);
      expect(refused(INSERT.input, `{"evidence":{${text}:1}}`)).toEqual(['evidence']);
    },
  );

  test.each(['"\\ud83d\\ude00"', '"\\\\"', '"\\""', '"\\\\\\""', '"\u2028"', '"\\u0041"'])('%s is taken', (text) => {
    expect(refused(FETCH.input, `{"agentId":${text}}`)).toBeUndefined();
  });
});

test('every offending field is named, with its place in a list', () => {
  const events = '[{"occurredAt":"2026-01-01T00:00:00Z"},{"occurredAt":"2026-02-30T00:00:00Z","value":1e999}]';
  expect(refused(METRICS.input, `{"events":${events}}`)).toEqual(['events[1].occurred_at', 'events[1].value']);
});

test.each([
  '',
  '{',
  '{"limit":}',
  '{"limit":1',
  '{"limit":1}}',
  '[]',
  '"x"',
  'nul',
  '{"limit":01}',
  '{"limit":+1}',
  '{a:1}',
  `${'['.repeat(5_000)}`,
  '{"limit":1,"limit":2}',
  '{"agentId":"a","agent_id":"b"}',
  '{"no":1}',
  '{"agentId":1}',
  '{"agentId":"\n"}',
])('what is no JSON of its type is malformed: %s', (text) => {
  expect(refused(FETCH.input, text)).toBe('MALFORMED_REQUEST');
});

describe('over every protocol that carries JSON', () => {
  const sidecar = useSidecar();

  const BAD = '{"since":"2026-02-30T00:00:00Z"}';

  test('Connect', async () => {
    const response = await fetch(`http://${sidecar.server.httpAddress}${pathOf(FETCH)}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: BAD,
    });
    expect(response.status).toBe(400);
    expect(JSON.stringify(await response.json())).toContain('"field":"since"');
  });

  test.each([
    ['Connect streaming', PolicyEngineService.method.streamViolations, 'application/connect+json'],
    ['gRPC-Web', FETCH, 'application/grpc-web+json'],
    ['gRPC', FETCH, 'application/grpc+json'],
  ] as const)('%s', async (_what, method, type) => {
    const session = openH2(sidecar.server.httpAddress!);
    const stream = openCall(session, pathOf(method), { 'content-type': type });
    const chunks: Buffer[] = [];
    let trailers = {};
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('trailers', (found) => {
      trailers = found;
    });
    stream.end(envelope(Buffer.from(BAD)));
    await new Promise((resolve) => stream.once('close', resolve));
    const text = Buffer.concat(chunks).toString() + JSON.stringify(trailers);
    expect(decodeURIComponent(text.replaceAll(/[^ -~]/g, ''))).toContain('since names a day that does not exist');
    session.close();
  });

  // It was never answered: the refusal could not be written.
  test.each([
    ['application/grpc-web+json', FETCH, '{"agentId":"\\ud800"}'],
    ['application/grpc-web+json', FETCH, '{"\\ud800":1}'],
    ['application/grpc+json', FETCH, '{"agentId":"\\ud800"}'],
    ['application/grpc+json', FETCH, '{"\\ud800":1}'],
    ['application/connect+json', PolicyEngineService.method.streamViolations, '{"\\ud800":1}'],
    ['application/connect+json', PolicyEngineService.method.streamViolations, '{"agentId":"\\ud800"}'],
  ] as const)('half of a surrogate pair is answered: %s', async (type, method, body) => {
    const session = openH2(sidecar.server.httpAddress!);
    const stream = openCall(session, pathOf(method), { 'content-type': type });
    const chunks: Buffer[] = [];
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    const answer = answerOf(stream).catch(() => undefined);
    stream.end(envelope(Buffer.from(body)));
    const status = (await answer)?.status;
    if (type === 'application/grpc+json') expect(status).toBe(3);
    else expect(Buffer.concat(chunks).toString()).toMatch(/grpc-status: ?3|invalid_argument/);
    session.close();
  });

  test('half of a surrogate pair is answered: application/json', async () => {
    for (const body of ['{"agentId":"\\ud800"}', '{"\\ud800":1}']) {
      const response = await fetch(`http://${sidecar.server.httpAddress}${pathOf(FETCH)}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      expect(response.status).toBe(400);
      await response.json();
    }
  });
});
