import type { DescMethodServerStreaming, DescMethodUnary, MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type Caller, collect, connectCaller, refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const engine = PolicyEngineService.method;
const graph = PolicyGraphService.method;

/** Rows of a stream from one token to the next. */
const BETWEEN = 500;

const sidecar = useSidecar();
/** Rows as bytes and rows as messages. */
let callers: readonly Caller[];
beforeAll(async () => {
  callers = [sidecar.grpc, connectCaller(sidecar.server.httpAddress!, false)];
});
afterAll(() => callers?.[1]?.close());

interface Row {
  /** Place of its first column among the values that it may have, in the order of the list. */
  readonly rank: number;
  readonly id: string;
}

interface Sorted {
  readonly table: string;
  readonly stream: DescMethodServerStreaming;
  readonly filter: object;
  readonly field: string;
  /** What the first column may hold, as SQL, in the order of the list. */
  readonly ranked: readonly string[];
  readonly first: string;
  readonly descending: boolean;
  /** The other columns of a row. */
  readonly rest: Readonly<Record<string, string>>;
  readonly ids: fc.Arbitrary<string>;
}

const hostile = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }).map((any) => any.toWellFormed().replaceAll('\0', '')),
  fc.constantFrom(
    '',
    ' ',
    '"',
    '\\',
    "'",
    '{',
    '\u{1f600}',
    'ß',
    '\ufeff',
    '\ufffd',
    'é',
    'e\u0301',
    '%',
    '\n',
    '\x7f',
  ),
);

const INSTANTS = [
  '-infinity',
  '4713-01-01 00:00:00.000001+00 BC',
  '0001-12-31 23:59:59.999999+00 BC',
  '0001-01-01 00:00:00+00',
  '1582-10-15 00:00:00.1+00',
  '1999-12-31 23:59:59.999999+00',
  '2000-02-29 12:00:00+00',
  '2026-01-01 00:00:00+00',
  '2026-01-01 00:00:00.000001+00',
  '2026-01-01 00:00:00.000002+00',
  '9999-12-31 23:59:59.999999+00',
  '294276-12-31 23:59:59.999999+00',
  'infinity',
].map((text) => `'${text}'`);

const ORDERS: Readonly<Record<string, Sorted>> = {
  'instants, then texts, greatest first': {
    table: 'public.policy_rules',
    stream: graph.streamAllPolicies,
    filter: { tenantId: 't' },
    field: 'policy',
    ranked: [...INSTANTS].reverse(),
    first: 'created_at',
    descending: true,
    rest: { tenant_id: `'t'`, name: `'n'` },
    ids: hostile,
  },
  'numbers with NULL at the end, then texts': {
    table: 'public.default_guardrails',
    stream: PolicyReadService.method.streamAllGuardrails,
    filter: {},
    field: 'guardrail',
    ranked: ['-2147483648', '-1', '0', '100', '2147483647', 'null'],
    first: 'priority',
    descending: false,
    rest: { category: `'c'`, rule_type: `'t'`, rule_config_json: `'{}'`, action: `'block'` },
    ids: hostile,
  },
  'instants, then UUIDs, greatest first': {
    table: 'policy.evaluations',
    stream: engine.streamEvaluations,
    filter: {},
    field: 'evaluation',
    ranked: [...INSTANTS].reverse(),
    first: 'evaluated_at',
    descending: true,
    rest: { action_type: `'x'`, decision: `'allow'` },
    ids: fc.uuid(),
  },
};

const before =
  ({ descending }: Sorted) =>
  (a: Row, b: Row): number =>
    a.rank - b.rank || Buffer.compare(Buffer.from(a.id), Buffer.from(b.id)) * (descending ? -1 : 1);

const store = async (sorted: Sorted, rows: readonly Row[]): Promise<void> => {
  const { table, first, ranked, rest } = sorted;
  const named = table === 'public.default_guardrails' ? { ...rest, name: 'id' } : rest;
  await sidecar.sql(
    `insert into ${table} (id, ${first}, ${Object.keys(named).join(', ')})
    select id${sorted.stream === engine.streamEvaluations ? '::uuid' : ''},
      case rank ${ranked.map((sql, rank) => `when ${rank} then ${sql}`).join(' ')} end${first === 'priority' ? '::integer' : '::timestamptz'},
      ${Object.values(named).join(', ')}
    from jsonb_to_recordset($1) as row(id text, rank integer)`,
    [JSON.stringify(rows)],
  );
};

/** Rows with few first columns and ids that begin alike; a number makes each of them another. */
const rowsOf = (sorted: Sorted, count: number, from: string): fc.Arbitrary<Row[]> =>
  fc
    .tuple(
      fc.array(sorted.ids, { minLength: 8, maxLength: 8 }),
      fc.uniqueArray(fc.nat(sorted.ranked.length - 1), { minLength: 1, maxLength: 4 }),
      fc.infiniteStream(fc.nat(1 << 20)),
    )
    .map(([ids, ranks, numbers]) =>
      Array.from({ length: count }, (_, index): Row => {
        const number = numbers.next().value!;
        const id = ids[number % ids.length]!;
        const unique = `${from}${index.toString(36)}`.padStart(6, '0');
        return {
          rank: ranks[(number >> 4) % ranks.length]!,
          id: sorted.ids === hostile ? `${id}${unique}` : `${id.slice(0, 24)}${Buffer.from(unique).toString('hex')}`,
        };
      }),
    );

interface Told {
  readonly id: string;
  readonly token: string | undefined;
}

const read = async (caller: Caller, { stream, filter, field }: Sorted, resumeToken = ''): Promise<Told[]> => {
  const responses = await collect(caller.stream(stream, { ...filter, resumeToken } as MessageInitShape<never>));
  // biome-ignore lint/suspicious/noExplicitAny: responses of several RPCs
  return responses.map((each: any) => ({ id: each[field].id, token: each.resumeToken }));
};

describe.each(Object.entries(ORDERS))('a stream ordered by %s', (_name, sorted) => {
  test('goes on after any of its tokens, whatever has been written behind or ahead, with nothing missing or twice', async () => {
    await fc.assert(
      fc.asyncProperty(
        rowsOf(sorted, 3 * BETWEEN + 7, 'a'),
        rowsOf(sorted, 200, 'b'),
        fc.array(fc.nat(2), { minLength: 1, maxLength: 2 }),
        async (rows, meanwhile, cuts) => {
          await sidecar.sql(`truncate ${sorted.table} cascade`);
          await store(sorted, rows);
          const order = before(sorted);
          const expected = [...rows].sort(order).map(({ id }) => id);
          const [bytes, messages] = await Promise.all(callers.map((caller) => read(caller, sorted)));
          expect(bytes!.map(({ id }) => id)).toEqual(expected);
          // The same tokens, so both ways of reading take the same cells for the place of a row.
          expect(messages).toEqual(bytes);
          const tokens = bytes!.flatMap(({ token }, index) => (token === undefined ? [] : [index]));
          expect(tokens).toEqual([BETWEEN - 1, 2 * BETWEEN - 1, 3 * BETWEEN - 1]);
          await store(sorted, meanwhile);
          const all = [...rows, ...meanwhile].sort(order);
          for (const cut of cuts) {
            const last = [...rows].sort(order)[tokens[cut]!]!;
            const tail = all.filter((row) => order(row, last) > 0).map(({ id }) => id);
            for (const caller of callers) {
              const rest = await read(caller, sorted, bytes![tokens[cut]!]!.token);
              expect(rest.map(({ id }) => id)).toEqual(tail);
            }
          }
          // The row that a token came with need not be there any more.
          const [cut] = cuts as [number];
          const last = [...rows].sort(order)[tokens[cut]!]!;
          await sidecar.sql(`delete from ${sorted.table} where id::text = $1`, [last.id]);
          const rest = await read(sidecar.grpc, sorted, bytes![tokens[cut]!]!.token);
          expect(rest.map(({ id }) => id)).toEqual(all.filter((row) => order(row, last) > 0).map(({ id }) => id));
        },
      ),
      { numRuns: 3, endOnFailure: true },
    );
  });
});

const violation = (description: string, number: number) => ({ description, number });

describe('tokens', () => {
  const list = (caller: Caller, more: object = {}, init = {}) =>
    caller.unary(engine.fetchViolations, { limit: 3, agentId: 'a', ...more }, init);

  beforeAll(async () => {
    const rows = Array.from({ length: 10 }, (_, number) => violation(`d${number}`, number));
    await sidecar.sql(
      `insert into policy.violations (violation_type, agent_id, severity, description, detected_at)
      select 'v', 'a', 1, row.description, '2026-01-01Z'::timestamptz - number * interval '1 microsecond'
      from jsonb_to_recordset($1) as row(description text, number integer)`,
      [JSON.stringify(rows)],
    );
  });

  const told = ({ violations }: { violations: readonly { description: string }[] }) =>
    violations.map(({ description }) => description);

  const next = async (more: object = {}): Promise<string> => (await list(sidecar.grpc, more)).nextPageToken!;

  test('of both ports are the same, are texts of an address, and show nothing of what is in them', async () => {
    const [one, other] = await Promise.all(callers.map((caller) => list(caller)));
    expect(one!.nextPageToken).toBe(other!.nextPageToken);
    expect(one!.nextPageToken).toMatch(/^[\w-]{40,200}$/);
    expect(Buffer.from(one!.nextPageToken!, 'base64url').toString('latin1')).not.toMatch(/2025|2026|-4/);
  });

  test('go on with another limit, from another caller, inside a transaction and at another sidecar of the database', async () => {
    const pageToken = await next();
    expect(told(await list(callers[1]!, { pageToken, limit: 2 }))).toEqual(['d3', 'd4']);
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    const inside = { transaction: transaction?.id ?? '' };
    expect(told(await list(sidecar.grpc, { pageToken }, inside))).toEqual(['d3', 'd4', 'd5']);
    const { results } = await sidecar.grpc.unary(
      TransactionService.method.execute,
      { operations: [{ request: { case: 'fetchViolations', value: { limit: 3, agentId: 'a', pageToken } } }] },
      inside,
    );
    expect(results[0]!.response.value).toEqual(await list(sidecar.grpc, { pageToken }));
    await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: inside.transaction });
    const other = await startTestSidecar({}, sidecar.url);
    expect(told(await list(other.grpc, { pageToken }))).toEqual(['d3', 'd4', 'd5']);
    await other.stop();
  });

  test('are not affected by what is written before them, as an offset is', async () => {
    const pageToken = await next();
    await sidecar.sql(`insert into policy.violations (violation_type, agent_id, severity, description, detected_at)
      values ('v', 'a', 1, 'newer', '2026-06-01Z')`);
    expect(told(await list(sidecar.grpc, { pageToken }))).toEqual(['d3', 'd4', 'd5']);
    await sidecar.sql(`delete from policy.violations where description = 'newer'`);
  });

  test('are missing where a page is not full, and where none is asked for', async () => {
    expect(await list(sidecar.grpc, { limit: 11 })).not.toHaveProperty('nextPageToken');
    expect(await list(sidecar.grpc, { limit: 0 })).not.toHaveProperty('nextPageToken');
    const last = await list(sidecar.grpc, { pageToken: await next({ limit: 10 }) });
    expect([last.violations, last.nextPageToken]).toEqual([[], undefined]);
  });

  test.each<[string, (token: string) => object, DescMethodUnary?]>([
    ['of nothing', () => ({ pageToken: 'x' })],
    ['that is none of this alphabet', (token) => ({ pageToken: `${token}=` })],
    ['that has been cut', (token) => ({ pageToken: token.slice(0, -4) })],
    ['that has been changed', (token) => ({ pageToken: `${token[0] === 'A' ? 'B' : 'A'}${token.slice(1)}` })],
    ['of another filter', (pageToken) => ({ pageToken, agentId: 'b' })],
    ['of more filters', (pageToken) => ({ pageToken, severityMin: 0 })],
    ['of another list', (pageToken) => ({ pageToken }), engine.fetchEvaluations],
  ])(
    '%s are refused, and cost an open transaction nothing',
    async (_what, request, method = engine.fetchViolations) => {
      const token = await next();
      const asked = { limit: 3, agentId: 'a', ...request(token) };
      const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
      for (const caller of callers) {
        for (const init of [{}, { transaction: transaction?.id ?? '' }]) {
          expect(await refusal(caller.unary(method, asked as never, init))).toMatchObject({
            code: 'INVALID_ARGUMENT',
            reason: 'PAGE_TOKEN_INVALID',
            fields: ['page_token'],
          });
        }
      }
      await sidecar.grpc.unary(TransactionService.method.commit, { transactionId: transaction?.id ?? '' });
    },
  );

  test('of another database are refused', async () => {
    const database = await startTestSidecar();
    await database.sql(`update policy_sidecar.secrets set value = sha256(value) where name = 'transaction_id_key'`);
    const other = await startTestSidecar({}, database.url);
    expect(await refusal(list(other.grpc, { pageToken: await next() }))).toMatchObject({
      reason: 'PAGE_TOKEN_INVALID',
    });
    await other.stop();
    await database.stop();
  });

  test('that are wrong in a stream or in a list of operations are refused by name', async () => {
    const resumeToken = await next();
    for (const caller of callers) {
      const stream = collect(caller.stream(engine.streamViolations, { agentId: 'a', resumeToken }));
      expect(await refusal(stream)).toMatchObject({ reason: 'PAGE_TOKEN_INVALID', fields: ['resume_token'] });
      const operations = [{ request: { case: 'fetchViolations' as const, value: { pageToken: resumeToken } } }];
      expect(await refusal(caller.unary(TransactionService.method.execute, { operations }))).toMatchObject({
        reason: 'PAGE_TOKEN_INVALID',
        metadata: { operation: '0' },
      });
    }
  });

  test('and an offset cannot both be given', async () => {
    const rules = PolicyRulesReadService.method.fetchPolicyRules;
    for (const caller of callers) {
      expect(await refusal(caller.unary(rules, { offset: 1, pageToken: 'x' }))).toMatchObject({
        reason: 'INVALID_REQUEST',
        fields: ['offset'],
      });
    }
  });

  test('of keys that no token holds count the rows instead, and are no longer than any other', async () => {
    await sidecar.sql(`truncate public.policy_rules cascade`);
    await sidecar.sql(`insert into public.policy_rules (id, tenant_id, name, created_at, status)
      select repeat('k', 40 * n) || n, 't', 'n', '2026-01-01Z', 'ACTIVE' from generate_series(1, 60) n`);
    await sidecar.sql(`insert into public.policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root)
      select 'i' || length(id), id, 'VERIFIED', 1, '' from public.policy_rules`);
    const page = (more: object) =>
      sidecar.grpc.unary(PolicyRulesReadService.method.fetchPolicyRules, { tenantId: 't', ...more });
    const whole = (await page({ limit: 100 })).items.map(({ ruleId }) => ruleId);
    const walked: string[] = [];
    let pageToken = '';
    do {
      const { items, nextPageToken = '' } = await page({ limit: 7, pageToken });
      walked.push(...items.map(({ ruleId }) => ruleId));
      expect(nextPageToken.length).toBeLessThanOrEqual(1_500);
      pageToken = nextPageToken;
    } while (pageToken !== '');
    expect(walked).toEqual(whole);
    expect(new Set(walked).size).toBe(60);
  });
});
