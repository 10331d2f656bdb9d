import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type Instruction,
  type PolicyModule,
  resolveConflicts,
} from '../../src/drivers/conflict-resolver/resolution.ts';
import {
  arbitrate,
  resolveActionConflict,
  resolveLimitConflict,
} from '../../src/drivers/policy-arbitrator/arbitration.ts';
import { advicePrompt, parseAdvice } from '../../src/drivers/recovery-matcher/advice.ts';
import { computeConfidence, timeWeight, UnreadableTime } from '../../src/drivers/recovery-matcher/confidence.ts';
import { normalizeError, sanitizedStart } from '../../src/drivers/recovery-matcher/normalize.ts';
import { EVERYTHING, sanitize } from '../../src/drivers/recovery-matcher/sanitizer.ts';
import { generateSuggestion } from '../../src/drivers/recovery-matcher/suggestion.ts';
import { idsJson, isoText, listedIds } from '../../src/drivers/scope-resolver/scope-matching.ts';
import { SymbolTables } from '../../src/drivers/symbol-table/symbol-tables.ts';
import { SymbolTable } from '../../src/drivers/symbol-table/symbols.ts';
import { byCodePoint, floatText, pythonJson } from '../../src/statements/python-json.ts';

describe('JSON as Python writes it', () => {
  test.each([
    [0, '0.0'],
    [-0, '-0.0'],
    [1000, '1000.0'],
    [0.1, '0.1'],
    [0.0001, '0.0001'],
    [0.00001, '1e-05'],
    [-1.5e-7, '-1.5e-07'],
    [9999999999999998, '9999999999999998.0'],
    [1e16, '1e+16'],
    [123456789012345680, '1.2345678901234568e+17'],
    [1.5e22, '1.5e+22'],
    [5e-324, '5e-324'],
    [1.7976931348623157e308, '1.7976931348623157e+308'],
    [Number.NaN, 'NaN'],
    [Number.POSITIVE_INFINITY, 'Infinity'],
    [Number.NEGATIVE_INFINITY, '-Infinity'],
  ])('%d is %s', (value, text) => {
    expect(floatText(value)).toBe(text);
  });

  test('ASCII, blanks, sorted keys', () => {
    const value = { b: [1n, 1, true, null], '\uffee': '', '\u{1f600}': '/', a: { z: 'ü"\\\n\b\f\r\t\x1f\x7f', A: [] } };
    expect(pythonJson(value)).toBe(
      '{"a": {"A": [], "z": "\\u00fc\\"\\\\\\n\\b\\f\\r\\t\\u001f\\u007f"}, "b": [1, 1.0, true, null], "\\uffee": "", "\\ud83d\\ude00": "/"}',
    );
  });

  test('texts sort by code point', () => {
    expect(['\u{1f600}', '\uffee', 'b', 'B', ''].sort(byCodePoint)).toEqual(['', 'B', 'b', '\uffee', '\u{1f600}']);
  });
});

describe('arbitration', () => {
  const limits = (...values: number[]) => values.map((value, index) => ({ policyId: `p${index}`, value }));

  test('the first of equals is kept, and a NaN that leads', () => {
    expect(resolveLimitConflict([], 'most_restrictive', new Map())).toEqual([null, 0]);
    expect(Object.is(resolveLimitConflict(limits(0, -0), 'most_restrictive', new Map())[0], 0)).toBe(true);
    expect(resolveLimitConflict(limits(Number.NaN, 1), 'most_restrictive', new Map())).toEqual([Number.NaN, 1]);
    expect(resolveLimitConflict(limits(2, Number.NaN, 1), 'fail_closed', new Map())).toEqual([1, 2]);
    const actions = ['warn', 'audit'].map((action) => ({ policyId: 'p', action }));
    expect(resolveActionConflict(actions, 'most_restrictive', new Map())).toEqual(['warn', 1]);
    expect(resolveActionConflict([], 'fail_closed', new Map())).toEqual(['stop', 0]);
  });

  test('a settled limit can exceed 64 bits, but not be infinite', () => {
    expect(arbitrate([], [], { tokenLimits: limits(1e22) }).effectiveTokenLimit).toBe(10n ** 22n);
    expect(() => arbitrate([], [], { costLimits: limits(Number.POSITIVE_INFINITY) })).toThrow(RangeError);
  });
});

describe('conflicts', () => {
  const routes = (count: number, target: (index: number) => string): PolicyModule =>
    new Map(
      Array.from({ length: count }, (_, index) => {
        const entry: Instruction[] = [{ kind: 'IRAction', action: 'route', target: target(index) }];
        return [`p${index}`, { entryBlock: 'entry', blocks: new Map([['entry', entry]]), governance: undefined }];
      }),
    );

  test('a hundred thousand routes, in a chain, in a circle, all to one', () => {
    const count = 100_000;
    expect(resolveConflicts(routes(count, (index) => `p${index + 1}`)).conflicts).toEqual([]);
    expect(resolveConflicts(routes(count, () => 'nowhere')).conflicts).toEqual([]);
    const { conflicts } = resolveConflicts(routes(count, (index) => `p${(index + 1) % count}`));
    expect(conflicts.map(({ kind, policies }) => [kind, policies.length])).toEqual([['CIRCULAR', count + 1]]);
  }, 60_000);
});

describe('symbol tables', () => {
  test('a handle is bound to its caller, and their number is limited', () => {
    const tables = new SymbolTables();
    const handle = tables.create('ann', 60_000);
    expect(tables.find(handle, 'ann')).toBeInstanceOf(SymbolTable);
    for (const call of [() => tables.find(handle, 'bob'), () => tables.drop(handle, 'bob')]) {
      expect(call).toThrow(expect.objectContaining({ reason: 'TABLE_NOT_YOURS' }));
    }
    for (let count = 1; count < 1_000; count += 1) tables.create('ann', 60_000);
    expect(() => tables.create('bob', 60_000)).toThrow(expect.objectContaining({ reason: 'TABLE_LIMIT' }));
    tables.drop(handle, 'ann');
    expect(tables.create('bob', 60_000)).not.toBe(handle);
  });

  test('a table holds a hundred thousand symbols, those of closed scopes too', () => {
    const table = new SymbolTable();
    const [builtin] = table.current.allSymbols();
    table.enterScope('s', undefined);
    for (let count = table.size; count < 100_000; count += 1) table.define({ ...builtin!, name: String(count) });
    table.exitScope();
    expect(() => table.define({ ...builtin!, name: 'more' })).toThrow(
      expect.objectContaining({ reason: 'SYMBOL_LIMIT' }),
    );
  });
});

describe('scopes', () => {
  test('ids as text', () => {
    expect(idsJson([])).toBe(null);
    expect(idsJson(['ü', 'x"y'])).toBe('["\\u00fc", "x\\"y"]');
    for (const text of [null, undefined, '', 'null', '{', '{"a": 1}', '"a"']) expect(listedIds(text)).toEqual([]);
    expect(listedIds('["a", 1, null, "b"]')).toEqual(['a', 'b']);
    // Python reads these.
    expect(listedIds('["NaN", NaN, -Infinity, "a\\"NaN", Infinity]')).toEqual(['NaN', 'a"NaN']);
    for (const text of ['[-NaN]', '[NaN1]', '["a" NaN', "['a']"]) expect(listedIds(text)).toEqual([]);
  });

  test('microseconds are left out when they are 0', () => {
    expect(isoText(new Date('2026-01-02T03:04:05Z'))).toBe('2026-01-02T03:04:05+00:00');
    expect(isoText(new Date('2026-01-02T03:04:05.007Z'))).toBe('2026-01-02T03:04:05.007000+00:00');
  });
});

describe('sanitizer', () => {
  test('nothing to remove', () => {
    for (const text of ['', 'plain', '1.2.3', '$& $1']) {
      expect(sanitize(text, EVERYTHING)).toBe(text);
      expect(sanitize(text)).toBe(text);
    }
  });

  test('what is removed can be chosen', () => {
    const text = 'a@b.co 10.0.0.1 0123456789abcdef0123456789abcdef';
    const hex = '0123456789abcdef0123456789abcdef';
    expect(sanitize(text)).toBe('[REDACTED_EMAIL] 10.0.0.1 [REDACTED_HEX]');
    expect(sanitize(text, { redactEmails: false, redactIps: true, redactHexSecrets: false })).toBe(
      `a@b.co [REDACTED_IP] ${hex}`,
    );
  });

  test('digits, blanks and letters of other scripts', () => {
    expect(sanitize('٣٤٥-٦٧-٨٩٠١', EVERYTHING)).toBe('[REDACTED_SSN]');
    expect(sanitize('Bearer\u00a0abc', EVERYTHING)).toBe('Bearer [REDACTED_TOKEN]');
    expect(sanitize('pa\u017f\u017fword=abcd', EVERYTHING)).toBe('password=[REDACTED]');
    expect(sanitize('AP\u0130_\u212aEY=aaaaaaaaaaaaaaaaaaaa', EVERYTHING)).toBe('[REDACTED_API_KEY]');
    // A letter before it makes it part of a word.
    expect(sanitize('é123-45-6789', EVERYTHING)).toBe('é123-45-6789');
  });

  test.each(['a.', 'ab-', 'postgresql://a:', '-----BEGIN A PRIVATE KEY-----', ' x', 'a+'])(
    'a long message made of %j does not hold anything up',
    (part) => {
      // The code went into the prompt whole, at quadratic time: a quarter of an hour for a megabyte. Of the time of a busy
      // machine only its growth says something.
      const cost = (parts: number): number => {
        const text = part.repeat(parts);
        const times = Array.from({ length: 3 }, () => {
          const before = process.cpuUsage();
          normalizeError({ raw: text });
          advicePrompt(text, 'm');
          const { user, system } = process.cpuUsage(before);
          return user + system;
        });
        return Math.min(...times);
      };
      cost(1_000);
      // Eight times as much is eight times as long, or sixty-four times. What is below a millisecond is not told apart.
      expect(cost(400_000)).toBeLessThan(20 * Math.max(cost(50_000), 1_000));
    },
  );

  // Beginning at each of 2,500 words before an `@`, and coming to the same end of the domain each time, took a second.
  test('an address that is none does not hold anything up', () => {
    const cost = (text: string): number => {
      const before = process.cpuUsage();
      for (let round = 0; round < 5; round += 1) sanitize(text);
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    const hostile = `${'x.'.repeat(2_500)}@a.${'-'.repeat(4_990)}`;
    cost(hostile);
    expect(cost(hostile)).toBeLessThan(50 * Math.max(cost('x y '.repeat(2_500)), 2_000));
  });

  test('addresses are found as one expression would find them', () => {
    const WORD = '[\\p{L}\\p{N}_]';
    const edge = `(?:(?<=${WORD})(?!${WORD})|(?<!${WORD})(?=${WORD}))`;
    const expression = new RegExp(`${edge}[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+\\.[a-zA-Z0-9.\\-]+${edge}`, 'gu');
    const text = fc.string({ unit: fc.constantFrom(...'ab1@@@..-+_é ,😀'), maxLength: 30 });
    fc.assert(
      fc.property(text, (given) => {
        expect(sanitize(given)).toBe(given.replace(expression, '[REDACTED_EMAIL]'));
      }),
      { numRuns: 3_000 },
    );
  });

  // The third key of this bundle ended beyond the cut, and its first lines went to the model.
  test('a secret that the cut leaves without its end is removed', () => {
    const key = (body: string) =>
      `-----BEGIN RSA PRIVATE KEY-----\n${body.repeat(4_000)}\n-----END RSA PRIVATE KEY-----\n`;
    const bundle = key('a') + key('b') + key('c');
    expect(sanitizedStart(bundle)).toBe(`${'[REDACTED_PRIVATE_KEY]\n'.repeat(2)}[REDACTED_PRIVATE_KEY]`);
    expect(sanitizedStart(`${key('a')}${key('b')}token eyJ${'c'.repeat(3_000)}.eyJ.d`)).toMatch(
      /\ntoken \[REDACTED_JWT]$/,
    );
    const open = '-----BEGIN RSA PRIVATE KEY-----\nd';
    expect([sanitizedStart(open), sanitizedStart('x y '.repeat(10))]).toEqual([open, 'x y '.repeat(10)]);
  });

  // Of a connection string that went on beyond the cut the password was left, and went to the model.
  test.each([
    ' postgres://app:hunter2-hunter2-hunter2@db/x',
    ' postgresql://app:hun ter2@db/x',
    ' redis://:hunter2-hunter2@db',
    ' ghp_hunter2hunter2hunter2hunter2hunter2hunter2',
    ' sk-hunter2hunter2hunter2hunter2',
    " api_key = 'hunter2hunter2hunter2hunter2'",
    ' 4111 1111 1111 1111 hunter2',
  ])('nothing is left of %j wherever it is cut', (secret) => {
    for (let kept = 1; kept < secret.length; kept += 1) {
      const start = `it failed ${'.'.repeat(9_990 - kept)}`;
      const left = sanitizedStart(`${start}${secret} and more`).slice(start.length);
      expect(left).not.toMatch(/hun|4111/);
    }
  });

  test('of a long word that is cut most is left', () => {
    expect(sanitizedStart('x'.repeat(20_000))).toBe('x'.repeat(9_800));
  });
});

describe('confidence', () => {
  const now = Date.parse('2026-01-31T12:00:00Z');
  const at = (createdAt: string | null) => ({ createdAt });

  test('weights', () => {
    expect([0, 30, 60, -30].map(timeWeight)).toEqual([1, 0.5, 0.25, 2]);
  });

  test('four decimals, what lies between to the even one', () => {
    const basic = (matches: number, occurrences: number) =>
      computeConfidence(Array(matches).fill(at(null)), occurrences, false, now).explain['score_basic'];
    expect([basic(1, 32), basic(3, 32), basic(5, 32), basic(7, 32)]).toEqual([0.0312, 0.0938, 0.1562, 0.2188]);
    expect([basic(1, 3), basic(2, 3)]).toEqual([0.3333, 0.6667]);
  });

  test('less than no occurrences: the weighted score is the basic one', () => {
    const { confidence, explain } = computeConfidence([at('2026-01-31T12:00:00Z')], -4, false, now);
    expect(confidence).toBe(0);
    expect(explain).toMatchObject({ occurrences: -4, score_basic: -0.25, score_weighted: -0.25, confidence: 0 });
  });

  test('times with an offset of any kind, none without', () => {
    const of = (createdAt: string) => computeConfidence([at(createdAt)], 10, false, now).confidence;
    expect(of('2026-01-24T12:00:00Z')).toBe(of('2026-01-24T14:30:00.000000+02:30'));
    for (const same of ['2026-01-24 12:00Z', '2026-01-24T14+02', '2026-01-24T17:30:15,000+05:30:15']) {
      expect(of(same)).toBe(of('2026-01-24T12:00:00Z'));
    }
    for (const none of [
      '2026-01-24T12:00:00',
      'yesterday Z',
      '',
      '2026-02-30T00:00:00Z',
      '2026-01-24T24:00:00Z',
      'infinity',
    ]) {
      expect(() => of(none)).toThrow(UnreadableTime);
    }
    // Python's exponential has no infinity.
    expect(() => of('2150-01-01T00:00:00Z')).toThrow(UnreadableTime);
    // Each can be weighed, and what all of them weigh together was infinite.
    const far = at(new Date(now + 30_690 * 86_400_000).toISOString());
    const alone = computeConfidence([far], 1_000_000, false, now).explain['score_weighted'];
    expect(alone).toBeGreaterThan(1e300);
    expect(() => computeConfidence([far, far, far], 1, false, now)).toThrow(UnreadableTime);
  });
});

test('default suggestions go by the beginning of the code, in any letter case', () => {
  expect(generateSuggestion('timeout_read', [])).toMatch(/^Increase timeout/);
  expect(generateSuggestion('TIMEOUT', ['', 'x'])).toBe('');
  expect(generateSuggestion('HTTP_503', [])).toBe("Review error 'HTTP_503' and implement appropriate error handling");
});

describe('advice', () => {
  test('what is asked', () => {
    const prompt = advicePrompt('E sk-aaaaaaaaaaaaaaaaaaaaaaaa', 'boom');
    expect(prompt).toContain('Error code: E [REDACTED_API_KEY]');
    expect(prompt).toContain('Error message: boom');
    expect(advicePrompt('z'.repeat(501), '')).toContain(`Error code: ${'z'.repeat(500)}\n`);
  });

  test.each([
    '',
    'no idea',
    '{',
    '{"a": }',
    '{"confidence": "0.7"}',
    '{"confidence": null}',
    '{"confidence": [1]}',
    '{"confidence": 1e999}',
    '{"confidence": NaN}',
    '{"reasoning": [1e999]}',
  ])('%j is none', (text) => {
    expect(parseAdvice(text)).toBe(undefined);
  });

  test('the first pair of braces without braces inside', () => {
    const none = { suggestedAction: undefined, confidence: undefined, reasoning: undefined, requiresHuman: undefined };
    expect(parseAdvice('{}')).toEqual(none);
    expect(parseAdvice('{"a": {"suggested_action": "inner", "confidence": 0.4}, "confidence": 0.9}')).toEqual({
      ...none,
      suggestedAction: 'inner',
      confidence: 0.4,
    });
    expect(parseAdvice('{"confidence": true, "suggested_action": null}')).toEqual({
      ...none,
      suggestedAction: null,
      confidence: 1,
    });
    expect(parseAdvice('{"suggested_action": 7}')).toBe(undefined);
  });

  // What is deeper cannot be decoded by every client, and a hundred thousand levels exhaust the stack.
  test('of thirty levels at most', () => {
    const of = (levels: number) => parseAdvice(`{"reasoning": ${'['.repeat(levels)}${']'.repeat(levels)}}`);
    expect([of(29) === undefined, of(31), of(100_000)]).toEqual([false, undefined, undefined]);
  });
});
