import type { DescMethodServerStreaming, DescMethodUnary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { CallError, collect } from '../support/client.ts';
import { extreme, fillTables } from '../support/extremes.ts';
import { KEYS, request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { useSidecar } from '../support/use.ts';

const sidecar = useSidecar();
beforeAll(async () => {
  await fillTables(sidecar, extreme);
}, 60_000);

const reads = driversFor(noServices).flatMap(({ service, rpcs }) =>
  service.methods
    .filter(({ localName }) => rpcs[localName]!.kind === 'read')
    .map((method) => [`${service.name}/${method.name}`, method] as const),
);

/** Refusals that a request brings on itself, and those about rows that a computation cannot do without. */
const EXPECTED = ['INVALID_REQUEST', 'PAGE_TOKEN_INVALID', 'UNKNOWN_CONFLICT_STRATEGY', 'SCOPE_UNREADABLE'];

test.each(reads)('%s fails for no stored value', async (_name, method) => {
  for (const [at, given] of fc.sample(request(method.input), { numRuns: 25, seed: 7 }).entries()) {
    // Every other request leaves out what it may, so that most rows are read.
    const sent = Object.fromEntries(Object.entries(given).filter(([name]) => at % 2 === 0 || /Id$|^table$/.test(name)));
    const call =
      method.methodKind === 'unary'
        ? sidecar.grpc.unary(method as DescMethodUnary, sent)
        : collect(sidecar.grpc.stream(method as DescMethodServerStreaming, sent));
    const error = await call.then(
      () => undefined,
      (thrown: unknown) => thrown as CallError,
    );
    if (error) expect(EXPECTED, `${error}`).toContain(error instanceof CallError ? error.reason : error);
  }
});

test('an infinite instant is pending for as many days as can be told', async () => {
  for (const createdAt of ['infinity', '-infinity']) {
    await sidecar.sql(
      `insert into public.policy_proposals (tenant_id, proposal_name, proposal_type, rationale, proposed_rule, created_at)
       values ('infinite', 'n', 't', 'r', '{}', $1)`,
      [createdAt],
    );
  }
  let inexact: string | undefined;
  const { items } = await sidecar.grpc.unary(
    ProposalsReadService.method.fetchProposals,
    { tenantId: 'infinite' },
    {
      onTrailer: (trailer) => {
        inexact = trailer('inexact-values');
      },
    },
  );
  expect(items.map(({ daysPending }) => daysPending)).toEqual([-(2n ** 63n), 2n ** 63n - 1n]);
  const [future, past] = items.map(({ id }) => id);
  expect(inexact?.split(', ')).toEqual([
    `public.policy_proposals.created_at[${future}]=latest`,
    `public.policy_proposals.days_pending[${future}]=nearest`,
    `public.policy_proposals.created_at[${past}]=earliest`,
    `public.policy_proposals.days_pending[${past}]=nearest`,
  ]);
});

describe('sums of doubles', () => {
  const metrics = useSidecar();

  test.each([
    [[1.7e308, 1.7e308], Number.POSITIVE_INFINITY],
    [[-1.7e308, -1.7e308], Number.NEGATIVE_INFINITY],
    [[1.7e308, -1.7e308, 1.7e308], 1.7e308],
    [[Number.MAX_VALUE], Number.MAX_VALUE],
    [[Number.MAX_VALUE, 1e200], Number.MAX_VALUE],
    [[1e300, 3e300], 4e300],
    [[5e-324, 5e-324], 1e-323],
    [[0.1, 0.2], 0.1 + 0.2],
    [[1, Number.POSITIVE_INFINITY], Number.POSITIVE_INFINITY],
    [[Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY], Number.NaN],
    [[1, Number.NaN], Number.NaN],
    [[], 0],
  ])('the sum of %j is %d', async (values, expected) => {
    await metrics.sql('truncate policy.temporal_metric_events, policy.temporal_metric_windows');
    for (const value of values) {
      await metrics.sql(`insert into policy.temporal_metric_events (policy_id, metric, value) values ($1, 'm', $2)`, [
        KEYS[0],
        value,
      ]);
    }
    const given = { policyId: KEYS[0]!, windowSeconds: 3600n };
    const rpc = PolicyEngineService.method;
    expect((await metrics.grpc.unary(rpc.fetchTemporalMetricSum, given)).total).toBe(expected);
    const total = await metrics.grpc.unary(rpc.fetchTemporalMetricTotal, given);
    expect(total).toMatchObject({ total: expected, eventSum: expected, windowSum: 0, partialWindowSum: 0 });
    // Compacted twice, so that a window is added to another.
    const half = Math.ceil(values.length / 2);
    for (const some of [values.slice(0, half), values.slice(half)]) {
      await metrics.sql('truncate policy.temporal_metric_events');
      for (const value of some) {
        await metrics.sql(
          `insert into policy.temporal_metric_events (policy_id, metric, value, occurred_at)
         values ($1, 'm', $2, date_trunc('hour', now()) - interval '3 hours')`,
          [KEYS[0], value],
        );
      }
      await metrics.grpc.unary(
        rpc.compactTemporalEvents,
        { compactHours: 1n, retentionHours: 24n },
        { transaction: 'single-use' },
      );
    }
    const compacted = await metrics.grpc.unary(rpc.fetchTemporalMetricTotal, { ...given, windowSeconds: 86_400n });
    expect(compacted.total).toBe(expected);
  });
});
