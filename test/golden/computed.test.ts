import { beforeAll, describe, expect, test } from 'vitest';
import { CallError } from '../support/client.ts';
import { useSidecar, useStarted } from '../support/use.ts';
import { mismatches } from './compare.ts';
import { arbitration } from './computed/arbitration.ts';
import { conflicts } from './computed/conflicts.ts';
import { COMPUTED_DIFFERENCES } from './computed/differences.ts';
import { recovery } from './computed/recovery.ts';
import { scopes } from './computed/scopes.ts';
import { sequenceMismatches } from './computed/sequence.ts';
import type { Computation, Data, Outcome, Subject } from './computed/subject.ts';
import { symbols } from './computed/symbols.ts';
import { isServed, texts } from './computed/texts.ts';
import { type ComputedCase, resolverCases } from './format.ts';
import { refusalMismatches } from './refusals.ts';
import { Tables } from './tables.ts';
import { type Golden, Instant, Reader } from './values.ts';

const cases = resolverCases().filter(isServed);

const SEQUENCE = 'database sequence';
const COMPUTATIONS: Readonly<Record<string, Computation>> = {
  ...arbitration,
  ...scopes,
  ...conflicts,
  ...symbols,
  ...texts,
  ...recovery,
};

/** Rules that keep out what some cases have stored: ours must read it as the original does. */
const CHECKS = { policy_precedence: 'ck_policy_precedence_strategy', policy_scopes: 'ck_policy_scopes_scope_type' };

const sidecar = useSidecar();
const tables = useStarted(
  () => Tables.open(sidecar.url),
  (opened) => opened.close(),
);
let subject: Subject;
beforeAll(async () => {
  subject = { sidecar, tables, storedTexts: tables.storedTexts, reader: new Reader(await tables.now()) };
  for (const [table, check] of Object.entries(CHECKS)) {
    await sidecar.sql(`alter table ${table} drop constraint ${check}`);
  }
});

const ANY_TIME = { from: new Instant(0n), to: new Instant(0n) };

const outcomeOf = (golden: ComputedCase): Outcome | Promise<Outcome> => {
  const computation = COMPUTATIONS[golden.operation];
  if (!computation) throw new Error(`there is no operation ${golden.operation}`);
  return computation(golden.input, subject, golden);
};

const problemsOf = (expected: Data, outcome: Outcome): string[] => {
  if (!(outcome instanceof CallError)) return mismatches(expected as Golden, outcome, ANY_TIME);
  return expected?.error
    ? refusalMismatches({ exception: expected.error.type }, outcome, 'read')
    : [`refused with ${outcome.code}: ${outcome.message}`];
};

const computedMismatches = async (golden: ComputedCase): Promise<string[]> => {
  const ours = await COMPUTED_DIFFERENCES.find(({ applies }) => applies(golden))?.ours(golden, subject);
  const outcome = await outcomeOf(golden);
  if (ours && 'code' in ours) {
    const code = outcome instanceof CallError ? outcome.code : 'an answer';
    return code === ours.code ? [] : [`${code} where ${ours.code} was expected`];
  }
  const accepted = ours ? [ours.output] : [golden.output, ...(golden.output_any_of ?? [])];
  const problems = accepted.map((each) => problemsOf(each, outcome));
  return problems.some((each) => each.length === 0) ? [] : problems[0]!;
};

describe.each([...new Set(cases.map(({ operation }) => operation))])('%s', (operation) => {
  const own = cases.filter((each) => each.operation === operation);
  test.each(own.map((golden) => [golden.name, golden] as const))('%s', async (_name, golden) => {
    const problems =
      operation === SEQUENCE ? await sequenceMismatches(golden, subject) : await computedMismatches(golden);
    if (problems.length > 0) expect.fail(problems.join('\n'));
  });
});
