import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { codeName, meaningOf, REASONS, type Reason } from '../../src/contract/reasons.ts';
import { EXIT } from '../../src/exit.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const FAULTS = read('docs/faults.md');
const PAGES = globSync('docs/*.md', { cwd: ROOT }).map(read).join('\n');

/** Codes of refusals that somebody else than the caller, or the caller's author, can do something about. */
const MENDED = ['UNAVAILABLE', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'INTERNAL', 'DATA_LOSS'];

test('every reason that stands for an outage, a limit or a precondition has its place in a page', () => {
  const reasons = (Object.keys(REASONS) as Reason[]).filter((reason) => {
    const { code, retryAfterMs } = meaningOf(reason);
    const isLimit = codeName(code) === 'RESOURCE_EXHAUSTED';
    // What is too large for ever is the caller's to make smaller.
    return MENDED.includes(codeName(code)) && (!isLimit || retryAfterMs !== undefined);
  });
  expect(reasons.length).toBeGreaterThan(40);
  expect(reasons.filter((reason) => !PAGES.includes(`\`${reason}\``))).toEqual([]);
});

test('the exit codes of a start are all told', () => {
  const [, codes] = /a start that cannot succeed .* of what kind it is: (.*) \|/.exec(FAULTS)!;
  const told = [...codes!.matchAll(/\d/g)].map(([code]) => Number(code));
  const { done, no, ...failing } = EXIT;
  expect(told).toEqual(Object.values(failing));
});

/** The arguments of a call whose opening parenthesis is there, as text. */
const argumentsAt = (source: string, open: number): string[] => {
  const found: string[] = [];
  let [depth, from] = [0, open + 1];
  let quote: string | undefined;
  for (let at = open; ; at += 1) {
    const char = source[at]!;
    if (quote) {
      if (char === '\\') at += 1;
      else if (char === quote) quote = undefined;
    } else if (/['"`]/.test(char)) quote = char;
    else if (/[([{]/.test(char)) depth += 1;
    else if (/[)\]}]/.test(char)) depth -= 1;
    const isEnd = !quote && depth === 0;
    if (isEnd || (!quote && depth === 1 && char === ',')) {
      const argument = source.slice(from, at).trim();
      if (argument) found.push(argument);
      from = at + 1;
    }
    if (isEnd) return found;
  }
};

/** A text, or a template, as what a page may say in its place. */
const pattern = (literal: string): string =>
  `^${literal
    .slice(1, -1)
    .split(/\$\{[^}]*\}/)
    .map((part) => part.replace(/[.*+?^$()|[\]\\{}]/g, '\\$&'))
    .join('.+')}$`;

const LITERAL = /^(?:'[^']*'|`[^`]*`)$/;

/** What is said in the place of an expression: itself, or the texts of what it names in its file. */
const textsOf = (source: string, expression: string): string[] => {
  if (LITERAL.test(expression)) return [expression];
  const [, name] = /^(\w+)(?:\[\w+\])?$/.exec(expression) ?? [];
  const [, value] = new RegExp(`const ${name}\\b[^=]*=\\s*([^;]*);`).exec(source) ?? [];
  return value?.match(/'[^']*'|`[^`]*`/g) ?? [];
};

const sources = globSync('src/**/*.ts', { cwd: ROOT })
  .filter((path) => !path.startsWith('src/gen/'))
  .map((path) => ({ path, source: read(path) }));

/** Where something is said as a warning or an error, or at a level that is looked up. */
const said = sources.flatMap(({ path, source }) =>
  [...source.matchAll(/\blog(?:\.(?:warn|error)|\[[^\n]*?\])\(/g)].map((match) => {
    const last = argumentsAt(source, match.index + match[0].length - 1).at(-1)!;
    return { path, last, texts: textsOf(source, last) };
  }),
);

/** What the embedded PostgreSQL reports is handed to the log from elsewhere. */
const reported = sources
  .filter(({ path }) => path.startsWith('src/embedded/'))
  .flatMap(({ source }) =>
    [...source.matchAll(/\breport\((?=[\s`'])/g)].map(
      (match) => argumentsAt(source, match.index + match[0].length - 1)[0]!,
    ),
  );

/** What tells of its own loss is made without the log. */
const made = sources.flatMap(({ source }) =>
  [...source.matchAll(/"level":"(?:warn|error)".*"msg":("[^"]*")/g)].map(([, text]) => text!),
);

describe('the lines of the log', () => {
  const told = [...FAULTS.matchAll(/`([^`\n]+)`/g)].map(([, text]) => text!);

  test('are found, whatever way they are said', () => {
    expect(said.filter(({ texts }) => texts.length === 0).map(({ path, last }) => `${path} ${last}`)).toEqual([
      'src/commands/serve.ts event',
    ]);
    expect(said.length).toBeGreaterThan(15);
    expect(reported.length).toBeGreaterThan(2);
    expect(made).toHaveLength(1);
  });

  test.each([...new Set([...said.flatMap(({ texts }) => texts), ...reported, ...made])])(
    '%s has its place in docs/faults.md',
    (literal) => {
      expect(told.filter((text) => new RegExp(pattern(literal)).test(text))).not.toEqual([]);
    },
  );
});
