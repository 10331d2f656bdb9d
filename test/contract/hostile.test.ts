import { create, type DescMethodUnary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { CallError } from '../support/client.ts';
import { request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { useSidecar } from '../support/use.ts';

const sidecar = useSidecar();

const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

const methods = driversFor(noServices).flatMap(({ service, rpcs }) =>
  service.methods
    .filter((method): method is DescMethodUnary => method.methodKind === 'unary')
    .map((method) => [`${service.name}.${method.name}`, method, rpcs[method.localName]!.kind] as const),
);

/** Refusals that stand for a state of the data, not for a value that no check has stopped. */
const STATES = /^(UNIQUE_VIOLATION|FOREIGN_KEY_VIOLATION|CANDIDATE_NOT_FOUND|TABLE_UNKNOWN)$/;

/** RPCs that some request got past the checks of its fields, and those that have answered one. */
const reached = new Set<string>();
const answered = new Set<string>();

describe.each(methods)('%s', (name, method, kind) => {
  test(`answers any request, or names the fields that are wrong (SEED=${SEED})`, async () => {
    await fc.assert(
      fc.asyncProperty(request(method.input), fc.constantFrom(...sidecar.callers), async (given, caller) => {
        const init = kind === 'write' ? { transaction: 'single-use' } : {};
        try {
          await caller.unary(method, create(method.input, given as never), init);
          reached.add(name);
          answered.add(name);
        } catch (error) {
          if (!(error instanceof CallError)) throw error;
          if (STATES.test(error.reason ?? '')) {
            reached.add(name);
            return;
          }
          expect(`${error.code} ${error.reason} ${error.message}`).toMatch(
            /^INVALID_ARGUMENT (INVALID_REQUEST|PAGE_TOKEN_INVALID) /,
          );
          expect(error.fields).not.toEqual([]);
        }
      }),
      { numRuns: Number(process.env['RUNS'] ?? 40), seed: SEED },
    );
  });
});

// Chance decides which: a request of many fields is seldom right in all of them, and one that names a row seldom finds it.
test(`nearly all of them are reached, and most have answered (SEED=${SEED})`, () => {
  const unreached = methods.map(([name]) => name).filter((name) => !reached.has(name));
  expect(unreached.length, unreached.join()).toBeLessThan(methods.length / 10);
  expect(answered.size).toBeGreaterThan(methods.length * 0.7);
});
