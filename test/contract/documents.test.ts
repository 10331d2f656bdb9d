import { randomUUID } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import type { Value } from '@bufbuild/protobuf/wkt';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { textValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { MAX_ELEMENTS } from '../../src/server/elements.ts';
import { type CallInit, collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';
import { violationWith } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const AS_TEXT = { documents: 'text' };

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy.violations, policy_sidecar.requests'));

const violation = (evidence: Value, violationId: string = randomUUID()) => violationWith({ evidence, violationId });

const textOf = (value: Value | undefined): unknown =>
  value?.kind.case === 'stringValue' ? value.kind.value : value?.kind.case;

/** What a document of `Value`s would not bring back: each is told apart by a hash over the text. */
const LOST = ['{"a": 1.0}', '[12345678901234567890, 1e2, 0.10]', '{"b": -0.0, "c": 1E+5}', '"1.0"', '1.50', 'null'];

describe.each(['grpc', 'connect'] as const)('documents as text over %s', (listener) => {
  const caller = () => sidecar[listener];
  const single: CallInit = { transaction: 'single-use', headers: AS_TEXT };

  test.each(LOST)('%s is stored as it is, and comes back as PostgreSQL has it', async (text) => {
    const violationId = randomUUID();
    await caller().unary(rpc.insertViolation, violation(textValue(text), violationId), single);
    const [row] = await sidecar.sql<{ stored: string; same: boolean }>(
      'select evidence::text as stored, evidence = $1::jsonb as same from policy.violations',
      [text],
    );
    expect(row!.same).toBe(true);
    const { violation: found } = await caller().unary(rpc.fetchViolationById, { violationId }, { headers: AS_TEXT });
    expect(textOf(found!.evidence)).toBe(row!.stored);
    const { violations } = await caller().unary(rpc.fetchViolations, {}, { headers: AS_TEXT });
    expect(textOf(violations[0]!.evidence)).toBe(row!.stored);
    const streamed = await collect(caller().stream(rpc.streamViolations, {}, { headers: AS_TEXT }));
    expect(textOf(streamed[0]!.violation!.evidence)).toBe(row!.stored);
  });

  test('any document comes back as the very text that PostgreSQL has', async () => {
    const decimal = fc.tuple(fc.bigInt(), fc.nat(30)).map(([digits, point]) => {
      const text = String(digits < 0n ? -digits : digits).padStart(point + 1, '0');
      return `${digits < 0n ? '-' : ''}${text.slice(0, text.length - point)}${point === 0 ? '' : '.'}${point === 0 ? '' : text.slice(-point)}`;
    });
    const leaf = fc.oneof(
      decimal,
      fc.jsonValue({ maxDepth: 2, noUnicodeString: true }).map((value) => JSON.stringify(value)),
    );
    const documents = fc.oneof(
      leaf,
      fc.array(leaf, { maxLength: 4 }).map((each) => `[${each.join(' , ')}]`),
      fc
        .array(leaf, { maxLength: 4 })
        .map((each) => `{${each.map((value, index) => `"k${index}":${value}`).join(',')}}`),
    );
    await fc.assert(
      fc.asyncProperty(documents, async (text) => {
        const violationId = randomUUID();
        await caller().unary(rpc.insertViolation, violation(textValue(text), violationId), single);
        const { violation: found } = await caller().unary(
          rpc.fetchViolationById,
          { violationId },
          { headers: AS_TEXT },
        );
        const [row] = await sidecar.sql<{ stored: string }>('select $1::jsonb::text as stored', [text]);
        expect(textOf(found!.evidence)).toBe(row!.stored);
      }),
      { numRuns: 40 },
    );
  });

  test('Execute takes and tells them so, inside a transaction and by itself, and so does its repetition', async () => {
    const { execute, begin, rollback } = TransactionService.method;
    const operations = () => {
      const violationId = randomUUID();
      return [
        { request: { case: 'insertViolation' as const, value: violation(textValue('{"a": 1.0}'), violationId) } },
        { request: { case: 'fetchViolationById' as const, value: { violationId } } },
      ];
    };
    const told = ({ results }: { results: { response: { value?: unknown } }[] }): unknown =>
      textOf((results[1]!.response.value as { violation: { evidence: Value } }).violation.evidence);
    const headers = { ...AS_TEXT, 'idempotency-key': randomUUID() };
    const once = { operations: operations() };
    expect(told(await caller().unary(execute, once, { headers }))).toBe('{"a": 1.0}');
    expect(told(await caller().unary(execute, once, { headers }))).toBe('{"a": 1.0}');
    const differs = { ...headers, documents: 'values' };
    expect(await refusal(caller().unary(execute, once, { headers: differs }))).toMatchObject({
      reason: 'IDEMPOTENCY_KEY_REUSED',
    });
    const { transaction } = await caller().unary(begin, {});
    const init = { transaction: transaction!.id!, headers: AS_TEXT };
    expect(told(await caller().unary(execute, { operations: operations() }, init))).toBe('{"a": 1.0}');
    await caller().unary(rollback, {}, { transaction: transaction!.id! });
  });

  test('what is no text, no JSON, or no document that may be stored is refused by field name', async () => {
    const wrong: readonly (readonly [Value, string])[] = [
      [{ $typeName: 'google.protobuf.Value', kind: { case: 'numberValue', value: 1 } }, 'evidence'],
      [textValue('{"a": 01}'), 'evidence'],
      [textValue(''), 'evidence'],
      [textValue('{"a": "\\u0000"}'), 'evidence'],
      [textValue(`${'['.repeat(31)}${']'.repeat(31)}`), 'evidence'],
      [textValue(`${'['.repeat(MAX_ELEMENTS)}${']'.repeat(MAX_ELEMENTS)}`), ''],
    ];
    for (const [evidence, field] of wrong) {
      const error = await refusal(caller().unary(rpc.insertViolation, violation(evidence), single));
      const expected = field === '' ? { reason: 'REQUEST_TOO_COMPLEX' } : { code: 'INVALID_ARGUMENT', fields: [field] };
      expect(error).toMatchObject(expected);
    }
    const other = { ...single, headers: { documents: 'json' } };
    expect(await refusal(caller().unary(rpc.insertViolation, violation(textValue('1')), other))).toMatchObject({
      fields: ['header documents'],
    });
    expect(await sidecar.sql('select from policy.violations')).toEqual([]);
  });

  // Story: reading a text keeps the last of two members of one name, so what the first of them held was found by PostgreSQL alone,
  // and that aborted the transaction.
  test('what PostgreSQL would not store is refused before it, wherever in the text it is, and nothing else', async () => {
    const piece = fc.constantFrom(
      '\\u0000',
      '\\ud83d',
      '\\ude00',
      '\\ud83d\\ude00',
      '\\\\u0000',
      '\\u0001',
      '\\"',
      'a',
      '\u00e4',
      '1e999999',
    );
    const string = fc.array(piece, { maxLength: 4 }).map((parts) => `"${parts.join('')}"`);
    const size = fc.oneof(fc.nat(5), fc.constantFrom(16_382, 16_383, 16_384, 131_071, 131_072, 131_073));
    const number = fc.oneof(
      fc
        .tuple(
          fc.constantFrom('', '-'),
          fc.constantFrom('0', '1', '12'),
          fc.constantFrom('', '.0', '.10', '.001'),
          size,
          fc.constantFrom('e', 'E+', 'e-'),
        )
        .map(([sign, whole, fraction, exponent, e]) => `${sign}${whole}${fraction}${e}${exponent}`),
      fc.tuple(size, size).map(([whole, fraction]) => `1${'0'.repeat(whole)}.0${'3'.repeat(fraction)}`),
      fc.constantFrom('0e2147483647', '1e-2147483648', '0e99999999999'),
    );
    const member = fc
      .tuple(fc.constantFrom('"a"', '"b"', '"\\u0000"'), fc.oneof(string, number))
      .map((pair) => pair.join(':'));
    const documents = fc.oneof(
      string,
      number,
      fc.array(member, { maxLength: 3 }).map((all) => `{${all.join(', ')}}`),
    );
    const told = { refused: 0, stored: 0 };
    const { transaction } = await caller().unary(TransactionService.method.begin, {});
    const inside: CallInit = { transaction: transaction!.id!, headers: AS_TEXT };
    await fc.assert(
      fc.asyncProperty(documents, async (text) => {
        const isTaken = await sidecar.sql('select $1::jsonb', [text]).then(
          () => true,
          () => false,
        );
        const insert = caller().unary(rpc.insertViolation, violation(textValue(text)), inside);
        if (isTaken) await insert;
        else expect(await refusal(insert)).toMatchObject({ reason: 'INVALID_REQUEST', fields: ['evidence'] });
        told[isTaken ? 'stored' : 'refused'] += 1;
      }),
      { numRuns: 150 },
    );
    expect(told).toEqual({ refused: expect.any(Number), stored: expect.any(Number) });
    expect(Math.min(told.refused, told.stored)).toBeGreaterThan(10);
    await caller().unary(TransactionService.method.commit, { transactionId: transaction!.id! });
  });

  test('an RPC that computes documents tells their text, and without the header nothing changes', async () => {
    const { suggest } = RecoveryMatcherService.method;
    const values = await caller().unary(suggest, {}, { transaction: 'single-use' });
    const texts = await caller().unary(suggest, {}, single);
    const [explained] = [values.explain, texts.explain];
    expect(explained?.kind.case).toBe('structValue');
    const members = JSON.parse(textOf(texts.explain) as string) as JsonObject;
    expect(Object.keys(members).sort()).toEqual(
      Object.keys((explained!.kind.value as { fields: object }).fields).sort(),
    );
    await caller().unary(rpc.insertViolation, violation(textValue('{"a": 1.0}')), { transaction: 'single-use' });
    const { violations } = await caller().unary(rpc.fetchViolations, {});
    expect(textOf(violations[0]!.evidence)).toBe('{"a": 1.0}');
    expect(await sidecar.sql('select evidence #>> array[]::text[] as inner from policy.violations')).toEqual([
      { inner: '{"a": 1.0}' },
    ]);
  });
});
