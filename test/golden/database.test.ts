import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { useSidecar, useStarted } from '../support/use.ts';
import { COMPUTED_DIFFERENCES } from './computed/differences.ts';
import { SEQUENCE_DIFFERENCES } from './computed/sequence.ts';
import { DIFFERENCES } from './differences.ts';
import { databaseFile, stepsOf } from './format.ts';
import { CaseRun } from './run.ts';
import { Tables } from './tables.ts';
import { Reader } from './values.ts';

const { fixture, cases } = databaseFile();

const sidecar = useSidecar();
const tables = useStarted(
  () => Tables.open(sidecar.url),
  (opened) => opened.close(),
);
beforeAll(async () => {
  await tables.restore(fixture, new Reader(await tables.now()));
  await tables.advanceKeys();
});

test('every deliberate difference has its line in DIFFERENCES.md', () => {
  const lines = readFileSync(new URL('../../DIFFERENCES.md', import.meta.url), 'utf8').split('\n');
  const marked = lines.filter((line) => /^\| [^|]*◆ \|/.test(line)).map((line) => line.split(' ◆ |')[0]!.slice(2));
  const recognised = [...DIFFERENCES, ...COMPUTED_DIFFERENCES, ...SEQUENCE_DIFFERENCES].map(({ line }) => line);
  expect(new Set(recognised)).toEqual(new Set(marked));
});

describe.each([...new Set(cases.map((each) => each.service_driver))])('%s', (driver) => {
  const own = cases.filter((each) => each.service_driver === driver);
  test.each(own.map((golden) => [golden.id, golden] as const))('%s', async (_id, golden) => {
    const now = await tables.now();
    await tables.restore(fixture, new Reader(now));
    const run = new CaseRun({ sidecar, storedTexts: tables.storedTexts }, tables, driver, now);
    for (const [index, step] of stepsOf(golden).entries()) {
      const problems = await run.step(step);
      if (problems.length > 0) expect.fail(`step ${index}: ${problems.join('\n')}`);
    }
  });
});
