import type { DescMethodServerStreaming, DescMethodUnary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { quoted, table, tableName } from '../../src/database/table.ts';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { entities } from '../../src/entities/all.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { CallError, collect } from '../support/client.ts';
import { KEYS, request, WORDS } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const ROWS = 100;

/** What columns of a type may hold at the edge, as text of PostgreSQL. */
const EXTREMES: Readonly<Record<string, readonly string[]>> = {
  'timestamp with time zone': [
    'infinity',
    '-infinity',
    '4713-11-24 00:00:00+00 BC',
    '294276-12-31 23:59:59.999999+00',
    '2025-01-01 00:00:00+00',
    'now',
  ],
  'double precision': ['1.7e308', '1.7e308', '-1.7e308', 'NaN', 'Infinity', '-Infinity', '5e-324', '1e-200', '0.5'],
  'double precision[]': ['{1e308,1e308}', '{5e-324,1e-200}', '{NaN,1}', '{{1,2}}', '{NULL,1}', '{}', '{1,1}'],
  integer: ['2147483647', '-2147483648', '0', '7'],
  bigint: ['9223372036854775807', '-9223372036854775808', '0'],
  boolean: ['t', 'f', 't', 't'],
  jsonb: [
    'null',
    '[]',
    '{}',
    '0',
    '1e400',
    '"not JSON"',
    '"{\\"a\\": [1]}"',
    '{"a": [null, 12345678901234567890]}',
    `${'['.repeat(3000)}1e400${']'.repeat(3000)}`,
  ],
  'text[]': ['{a,NULL}', '{{a,b},{NULL,d}}', '[3:4]={a,b}', '{}', '{a}'],
  'varchar[]': ['{a,NULL}', '{{a,b},{NULL,d}}', '[3:4]={a,b}', '{}', '{a}'],
  uuid: KEYS,
};

const TEXTS = [...WORDS, ...KEYS, 'ACTIVE', 'draft', 'pending', '[1', '["a1"]', '{"a1": 1}', '\u0001', '', '\u{1f600}'];

/** What a column may hold at the edge, for one row after the other; what requests look for, where they look for it. */
const extremesOf = (name: string, type: string): readonly string[] => {
  if (name === 'status') return ['draft', 'ACTIVE', 'pending'];
  if (name.endsWith('_id') && type !== 'integer') return KEYS;
  const numeric = /^numeric\((\d+),(\d+)\)$/.exec(type);
  if (numeric) {
    const [, precision, scale] = numeric.map(Number) as [number, number, number];
    const most = `${'9'.repeat(precision - scale)}.${'9'.repeat(scale)}`;
    return ['NaN', most, `-${most}`, '0'];
  }
  const length = Number(/^character varying\((\d+)\)$/.exec(type)?.[1] ?? Number.POSITIVE_INFINITY);
  return EXTREMES[type] ?? TEXTS.filter((each) => each.length <= length);
};

interface Property {
  readonly columnType: string;
  readonly primary?: boolean;
}

const keyOf = ({ columnType }: Property, row: number): string => {
  if (columnType === 'integer') return String(row + 1);
  return row < KEYS.length ? KEYS[row]! : `5b0c2b1e-0000-4000-8000-${String(row + 1).padStart(12, '0')}`;
};

let state = 1;
/** A number of a sequence that is the same in every run. */
const below = (limit: number): number => {
  state = (state * 48_271) % (2 ** 31 - 1);
  return state % limit;
};

let sidecar: TestSidecar;
beforeAll(async () => {
  sidecar = await startTestSidecar();
  // What guards this program's own writes has not always guarded what is stored.
  const constraints = await sidecar.sql<{ command: string }>(
    `select format('alter table %s drop constraint %I cascade', conrelid::regclass, conname) as command
     from pg_constraint where contype in ('c', 'f', 'u') and conrelid >= 16384`,
  );
  const indexes = await sidecar.sql<{ command: string }>(
    `select format('drop index if exists %s', indexrelid::regclass) as command from pg_index
     where indisunique and not indisprimary and indrelid >= 16384`,
  );
  for (const { command } of constraints) await sidecar.sql(command);
  for (const { command } of indexes) await sidecar.sql(command);
  for (const entity of entities.filter((each) => !tableName(each).startsWith('policy_sidecar.'))) {
    const properties = Object.entries(entity.meta.properties as unknown as Record<string, Property>);
    const names = properties.map(([name]) => quoted(name));
    const values = properties.map(([, { columnType }], at) => `$${at + 1}::${columnType}`);
    const insert = `insert into ${table(entity)} (${names.join(', ')}) values (${values.join(', ')})`;
    await sidecar.sql(`alter table ${table(entity)} disable trigger all`);
    await sidecar.sql(`truncate ${table(entity)} cascade`);
    for (let row = 0; row < ROWS; row += 1) {
      const cells = properties.map(([name, property]) => {
        if (property.primary) return keyOf(property, row);
        const extremes = extremesOf(name, property.columnType);
        return extremes[below(extremes.length)];
      });
      await sidecar.sql(insert, cells);
    }
  }
}, 60_000);
afterAll(() => sidecar?.stop());

const reads = driversFor(noServices).flatMap(({ service, rpcs }) =>
  service.methods
    .filter(({ localName }) => rpcs[localName]!.kind === 'read')
    .map((method) => [`${service.name}/${method.name}`, method] as const),
);

/** Refusals that a request brings on itself, and those about rows that a computation cannot do without. */
const EXPECTED = ['INVALID_REQUEST', 'UNKNOWN_CONFLICT_STRATEGY', 'SCOPE_UNREADABLE'];

test.each(reads)('%s fails for no stored value', async (_name, method) => {
  for (const [at, given] of fc.sample(request(method.input), { numRuns: 40, seed: 7 }).entries()) {
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
  let metrics: TestSidecar;
  beforeAll(async () => {
    metrics = await startTestSidecar();
  });
  afterAll(() => metrics?.stop());

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
