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

/** Requests that were answered, by RPC. */
const answered = new Map<string, number>();

describe.each(methods)('%s', (name, method, kind) => {
  test(`answers any request, or names the fields that are wrong (SEED=${SEED})`, async () => {
    answered.set(name, 0);
    await fc.assert(
      fc.asyncProperty(request(method.input), fc.constantFrom(...sidecar.callers), async (given, caller) => {
        const init = kind === 'write' ? { transaction: 'single-use' } : {};
        try {
          await caller.unary(method, create(method.input, given as never), init);
          answered.set(name, answered.get(name)! + 1);
        } catch (error) {
          if (!(error instanceof CallError)) throw error;
          if (STATES.test(error.reason ?? '')) return;
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

test(`every one of them has answered some (SEED=${SEED})`, () => {
  expect(answered.size).toBe(methods.length);
  expect([...answered].filter(([, count]) => count === 0)).toEqual([]);
});
