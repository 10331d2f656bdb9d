import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { refuse } from '../../src/contract/errors.ts';
import { codeName, meaningOf, REASONS, type Reason } from '../../src/contract/reasons.ts';

const root = fileURLToPath(new URL('../../proto/hoc', import.meta.url));
const comments = globSync(`${root}/**/*.proto`).map((path) => readFileSync(path, 'utf8').replace(/^ *\/\/ ?/gm, ''));

/** What a comment says of a reason. */
interface Said {
  readonly reason: string;
  readonly code: string;
  /** True for a row of a table that promises RetryInfo. */
  readonly retry: boolean;
}

const reasonsIn = (text: string): string[] => [...text.matchAll(/`([A-Z][A-Z_]+)`/g)].map(([, reason]) => reason!);

const rows: readonly Said[] = comments.flatMap((text) =>
  [...text.matchAll(/^\| (`[A-Z_`, ]+`) \| ([A-Z_]+)( \*)? \|/gm)].flatMap(([, names, code, star]) =>
    reasonsIn(names!).map((reason) => ({ reason, code: code!, retry: star !== undefined })),
  ),
);

/** "NOT_FOUND, reason `A`", "RESOURCE_EXHAUSTED `A`, `B` or `C`". */
const sentences: readonly Said[] = comments.flatMap((text) =>
  [...text.matchAll(/\b([A-Z_]{5,})(?:,\s+reason)?\s+(`[A-Z][A-Z_]+`(?:(?:,| or)\s+`[A-Z][A-Z_]+`)*)/g)].flatMap(
    ([, code, names]) => reasonsIn(names!).map((reason) => ({ reason, code: code!, retry: false })),
  ),
);

const catalogue = (Object.keys(REASONS) as Reason[]).map((reason) => {
  const { code, retryAfterMs } = meaningOf(reason);
  return { reason, code: codeName(code), retry: retryAfterMs !== undefined };
});
const byReason = new Map<string, Said>(catalogue.map((each) => [each.reason, each]));

describe('the catalogue of reasons and the contract', () => {
  test('every reason is documented, with its retry where there is one', () => {
    const said = new Map([...sentences, ...rows].map((each) => [each.reason, each]));
    expect(catalogue.filter(({ reason }) => !said.has(reason)).map(({ reason }) => reason)).toEqual([]);
    expect(catalogue.map(({ reason }) => said.get(reason))).toEqual(catalogue);
  });

  test('every row of a table is of the catalogue and says the same', () => {
    expect(rows.length).toBeGreaterThan(50);
    expect(rows.map(({ reason }) => byReason.get(reason))).toEqual(rows);
  });

  test('every sentence that gives a reason with its code is of the catalogue and says the same', () => {
    expect(sentences.length).toBeGreaterThan(15);
    expect(sentences.map(({ reason }) => ({ reason, code: byReason.get(reason)?.code }))).toEqual(
      sentences.map(({ reason, code }) => ({ reason, code })),
    );
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
