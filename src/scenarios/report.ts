import type { Result } from './runner.ts';

/** What came of one way to a sidecar. */
export interface Suite {
  readonly name: string;
  readonly results: readonly Result[];
}

const WORDS = { passed: 'ok  ', failed: 'FAIL', skipped: 'skip' } as const;

/** A line for a result, or two. */
export const resultText = ({ scenario, outcome, why, ms }: Result): string => {
  const line = `${WORDS[outcome]}  ${scenario.name}`;
  if (outcome === 'passed') return `${line} (${ms} ms)`;
  return outcome === 'skipped' ? `${line}: ${why}` : `${line}: ${scenario.about}\n      ${why}`;
};

const count = (suites: readonly Suite[], outcome: Result['outcome']): number =>
  suites.flatMap(({ results }) => results).filter((result) => result.outcome === outcome).length;

/** How many of each. */
export const summaryText = (suites: readonly Suite[]): string =>
  `${count(suites, 'passed')} passed, ${count(suites, 'failed')} failed, ${count(suites, 'skipped')} skipped`;

/** Whether none failed. */
export const allHold = (suites: readonly Suite[]): boolean => count(suites, 'failed') === 0;

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

const xml = (text: string): string =>
  // XML has no way to write the others.
  text.replace(/[^\t\n\x20-\ud7ff\ue000-\ufffd]/g, '\ufffd').replace(/[&<>"]/g, (character) => ENTITIES[character]!);

const testcase = (suite: string, { scenario, outcome, why = '', ms }: Result): string => {
  const open = `    <testcase classname="${xml(suite)}" name="${xml(scenario.name)}" time="${ms / 1_000}"`;
  if (outcome === 'passed') return `${open}/>`;
  const inside =
    outcome === 'skipped'
      ? `<skipped message="${xml(why)}"/>`
      : `<failure message="${xml(why)}">${xml(scenario.about)}</failure>`;
  return `${open}>${inside}</testcase>`;
};

/** The same as JUnit's XML. */
export const junitXml = (suites: readonly Suite[]): string => {
  const numbers = (of: readonly Suite[]): string =>
    `tests="${of.flatMap(({ results }) => results).length}" failures="${count(of, 'failed')}" skipped="${count(of, 'skipped')}"`;
  const lines = suites.flatMap((suite) => [
    `  <testsuite name="${xml(suite.name)}" ${numbers([suite])}>`,
    ...suite.results.map((result) => testcase(suite.name, result)),
    '  </testsuite>',
  ]);
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ${numbers(suites)}>\n${lines.join('\n')}\n</testsuites>\n`;
};
