import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { getOption } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import { refuse } from '../../src/contract/errors.ts';
import { codeName, meaningOf, REASONS, type Reason } from '../../src/contract/reasons.ts';
import { ErrorReasonSchema, meaning } from '../../src/gen/hoc/cus/policies/v1/error_reason_pb.ts';

const root = fileURLToPath(new URL('../../proto/hoc', import.meta.url));
const comments = globSync(`${root}/**/*.proto`).map((path) => readFileSync(path, 'utf8').replace(/^ *\/\/ ?/gm, ''));

const reasonsIn = (text: string): string[] => [...text.matchAll(/`([A-Z][A-Z_]+)`/g)].map(([, reason]) => reason!);

/** "NOT_FOUND, reason `A`", "RESOURCE_EXHAUSTED `A`, `B` or `C`". */
const sentences = comments.flatMap((text) =>
  [...text.matchAll(/\b([A-Z_]{5,})(?:,\s+reason)?\s+(`[A-Z][A-Z_]+`(?:(?:,| or)\s+`[A-Z][A-Z_]+`)*)/g)].flatMap(
    ([, code, names]) => reasonsIn(names!).map((reason) => ({ reason, code: code! })),
  ),
);

const catalogue = (Object.keys(REASONS) as Reason[]).map((reason) => {
  const { code, retryAfterMs, metadata = [] } = meaningOf(reason);
  return { reason, code: codeName(code), retry: retryAfterMs !== undefined, metadata };
});
const codes = new Map<string, string>(catalogue.map(({ reason, code }) => [reason, code]));

describe('the catalogue of reasons and the contract', () => {
  test('every value of the enum is of the catalogue, every reason is a value, and both say the same', () => {
    const values = ErrorReasonSchema.values.filter(({ number }) => number !== 0);
    const told = values.map((value) => {
      const { code, retry, metadata } = getOption(value, meaning);
      return { reason: value.name, code, retry, metadata };
    });
    expect(told).toEqual(catalogue);
  });

  test('every sentence that gives a reason with its code is of the catalogue and says the same', () => {
    expect(sentences.length).toBeGreaterThan(15);
    expect(sentences.map(({ reason }) => ({ reason, code: codes.get(reason) }))).toEqual(sentences);
  });

  test('a reason, or a fact beside it, that is not in the catalogue does not compile', () => {
    // @ts-expect-error
    expect(() => refuse('TRANSACTION_MISLAID', '')).toThrow();
    // @ts-expect-error
    refuse('TRANSACTION_ELSEWHERE', '', { metadata: { owner: '' } });
    // @ts-expect-error
    refuse('SHUTTING_DOWN', '', { metadata: { holder: '' } });
    expect(refuse('TRANSACTION_ELSEWHERE', '', { metadata: { holder: 'a' } }).metadata).toEqual({ holder: 'a' });
  });
});
