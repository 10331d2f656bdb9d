import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import { TimestampSchema } from '@bufbuild/protobuf/wkt';
import { beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { openDatabase } from '../../src/database/pool.ts';
import { readTarget } from '../../src/database/target.ts';
import { jsonToValue } from '../../src/database/values.ts';
import { entities } from '../../src/entities/all.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const PAGE = readFileSync(join(import.meta.dirname, '../../docs/scale.md'), 'utf8');
const single = { transaction: 'single-use' };
const rpc = PolicyEngineService.method;

/** Rows of the list of growing tables: name, column, and what is added. */
const GROWING = [...PAGE.matchAll(/^\| `(\w+\.\w+)` \| `(\w+)` \| (?:`(.+)`)? ?\|$/gm)].map(
  ([, table, column, besides]) => ({ table: table!, column: column!, besides }),
);

const [BEFOREHAND, SWITCH] = [...PAGE.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql!) as [string, string];

const DAY = 86_400_000;
const tomorrow = new Date(Date.now() + DAY).toISOString().slice(0, 10);
/** 2026, in seconds. */
const NEW_YEAR = 1_767_225_600n;
const later = BigInt(Math.floor((Date.now() + 3 * DAY) / 1000));

/** The SQL of the page, for another table and a bound that rows of today are before and those of `later` are not. */
const sqlFor = (sql: string, { table, column, besides }: (typeof GROWING)[number]): string[] => {
  const [schema, name] = table.split('.') as [string, string];
  return sql
    .replace(
      "from ('2100-01-01Z') to ('2100-02-01Z')",
      `from ('${tomorrow}Z') to ('${tomorrow}Z'::timestamptz + interval '7 days')`,
    )
    .replaceAll('2100-01-01Z', `${tomorrow}Z`)
    .replaceAll('policy.evaluations', `${schema}.evaluations`)
    .replaceAll('evaluations', name)
    .replaceAll('evaluated_at', column)
    .replace(/(?=alter table \S+ attach)/, besides === undefined ? '' : `alter table ${table} add ${besides};\n`)
    .split(';\n')
    .filter((statement) => statement !== '');
};

const plain = useSidecar();
const parted = useSidecar();
beforeAll(async () => {
  for (const { sql } of [plain, parted]) {
    await sql(`insert into public.policy_rules (id, tenant_id, name) values ('r', 't', 'n')`);
    await sql(`insert into public.policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root)
      values ('i', 'r', 'VERIFIED', 1, 'h')`);
    await sql(`insert into public.policy_enforcements (id, tenant_id, rule_id, action_taken, triggered_at)
      values ('e', 't', 'r', 'BLOCKED', '2026-01-01Z'), ('f', 't', 'r', 'BLOCKED', now() - interval '1 hour')`);
    await sql(`insert into public.recovery_candidates (id, failure_match_id, suggestion, confidence)
      values (1, gen_random_uuid(), 's', 0.5)`);
  }
});

const uuid = (number: number): string => `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;

/** Calls of every driver's RPC that is about such a table, with rows on both sides of the bound; what they answered. */
const story = async ({ grpc }: TestSidecar, round: number, times: readonly bigint[]): Promise<unknown[]> => {
  const answers: unknown[] = [];
  const told = async (answer: Promise<object>): Promise<void> => {
    answers.push(await answer.catch((error: { reason: string }) => error.reason));
  };
  const policyId = uuid(1);
  const at = (seconds: bigint) => create(TimestampSchema, { seconds });
  for (const [index, seconds] of times.entries()) {
    const id = uuid(round * 10 + index);
    const who = { agentId: 'a', tenantId: 't' };
    const evaluation = {
      ...who,
      evaluationId: id,
      actionType: 'x',
      requestContext: jsonToValue({}),
      decision: 'allow',
      evaluationMs: 1,
      policiesChecked: 1,
      evaluatedAt: at(seconds),
    };
    const violation = {
      ...who,
      violationId: id,
      violationType: 'x',
      severity: 0.5,
      description: 'd',
      evidence: jsonToValue({}),
      routedToGovernor: false,
      detectedAt: at(seconds),
    };
    for (let time = 0; time < 2; time += 1) {
      await told(grpc.unary(rpc.insertEvaluation, evaluation, single));
      await told(grpc.unary(rpc.insertViolation, violation, single));
    }
    await told(grpc.unary(rpc.updateViolationAcknowledged, { violationId: id, notes: 'seen' }, single));
    await told(grpc.unary(rpc.fetchEvaluationById, { evaluationId: id }));
    const { violation: found } = await grpc.unary(rpc.fetchViolationById, { violationId: id });
    answers.push([found?.id, found?.detectedAt]);
    await grpc.unary(
      rpc.recordTemporalMetricEvents,
      {
        events: [
          { policyId, metric: 'm', value: 2, occurredAt: at(seconds) },
          { policyId, metric: 'm', value: 3 },
        ],
      },
      single,
    );
  }
  await told(grpc.unary(rpc.fetchEvaluations, { tenantId: 't' }));
  const listed = await grpc.unary(rpc.fetchViolations, { agentId: 'a', since: at(times[1]! - 1n) });
  answers.push(listed.violations.map(({ id }) => id));
  const streamed: (string | undefined)[] = [];
  for await (const { violation } of grpc.stream(rpc.streamViolations, {})) streamed.push(violation?.id);
  answers.push(streamed);
  const provenance = {
    policyId,
    policyType: 'p',
    action: 'a',
    changedBy: 'b',
    policyVersion: `v${round}`,
    reason: 'r',
  };
  await grpc.unary(rpc.insertProvenance, provenance, single);
  const kept = await grpc.unary(rpc.fetchProvenance, { policyVersion: `v${round}` });
  answers.push(kept.provenance.map(({ reason }) => reason));
  await told(grpc.unary(rpc.fetchTemporalMetricSum, { policyId, windowSeconds: 3_600n }));
  await told(grpc.unary(rpc.capTemporalEvents, { maxPerPolicy: 3n }, single));
  await told(grpc.unary(rpc.compactTemporalEvents, { compactHours: 24n, retentionHours: 1_000_000n }, single));
  const { eventCount, windowCount } = await grpc.unary(rpc.fetchTemporalStats, {});
  answers.push([eventCount, windowCount]);
  await told(grpc.unary(rpc.deleteOldTemporalEvents, { retentionHours: -24n }, single));
  await told(grpc.unary(rpc.deleteOldTemporalEvents, { retentionHours: -240n }, single));
  const { items } = await grpc.unary(PolicyRulesReadService.method.fetchPolicyRules, { tenantId: 't' });
  answers.push(items.map(({ triggerCount30d }) => triggerCount30d));
  const { candidate } = await grpc.unary(
    RecoveryMatcherService.method.approveCandidate,
    { candidateId: 1, approvedBy: 'b' },
    single,
  );
  answers.push(candidate?.decision);
  return answers;
};

test('the page says of every table that it puts in parts which it is', () => {
  expect(GROWING).toHaveLength(6);
  const known = entities.flatMap(({ meta }) => Object.keys(meta.properties).map((column) => `${meta.name}.${column}`));
  expect(GROWING.filter(({ table, column }) => !known.includes(`${table}.${column}`))).toEqual([]);
});

test('tables in parts by time, as docs/scale.md makes them in use, answer as whole ones do', async () => {
  const before = [NEW_YEAR, NEW_YEAR + 1n];
  expect(await story(parted, 1, before)).toEqual(await story(plain, 1, before));
  for (const each of GROWING) {
    for (const statement of sqlFor(BEFOREHAND, each)) await parted.sql(statement);
    await parted.sql(sqlFor(SWITCH, each).join(';\n'));
  }
  const both = [NEW_YEAR, later];
  expect(await story(parted, 2, both)).toEqual(await story(plain, 2, both));
  // So does a sidecar that finds them so.
  expect(await migrateUp(parted.url)).toEqual([]);
  const started = await startTestSidecar({}, parted.url);
  expect(await story(started, 3, both)).toEqual(await story(plain, 3, both));
  await started.stop();
  const rows = await parted.sql<{ part: string; count: string }>(
    `select tableoid::regclass::text as part, count(*) from policy.violations group by 1 order by 1`,
  );
  expect(rows).toEqual([
    { part: 'policy.violations_2100_01', count: '2' },
    { part: 'policy.violations_until_2100', count: '4' },
  ]);
  const plan = await parted.sql<{ 'QUERY PLAN': string }>(
    `explain select from policy.violations where detected_at >= '${tomorrow}Z'::timestamptz + interval '1 day'`,
  );
  expect(JSON.stringify(plan)).not.toContain('violations_until_2100');
});

test('a row of a time that has no part of its own goes to the rest', async () => {
  const evaluation = {
    evaluationId: uuid(90),
    actionType: 'x',
    requestContext: jsonToValue({}),
    decision: 'allow',
    evaluationMs: 1,
    policiesChecked: 1,
    evaluatedAt: { seconds: 32_503_680_000n, nanos: 0 },
  };
  await parted.grpc.unary(rpc.insertEvaluation, evaluation, single);
  expect(await parted.sql('select count(*) from policy.evaluations_rest')).toEqual([{ count: '1' }]);
  // The same id with the same time is still the same row.
  expect(await refusal(parted.grpc.unary(rpc.insertEvaluation, evaluation, single))).toMatchObject({
    reason: 'UNIQUE_VIOLATION',
  });
});

test('a sidecar has as many connections as the page reckons with', async () => {
  const { poolMax, transactionsMax } = loadConfig([], {});
  const lane = { queue: 1, waitMs: 1 };
  const database = openDatabase(readTarget(plain.url), {
    calls: { max: poolMax, ...lane },
    transactions: { max: transactionsMax, ...lane },
    statementMs: 1,
    lockMs: 1,
    pooler: 'auto',
  });
  const [calls, transactions, reserve] = [database.calls, database.transactions, database.reserve].map(
    ({ max }) => max,
  );
  await database.end(0);
  const sum = calls! + transactions! + reserve!;
  expect(PAGE).toContain(`${calls} + ${transactions} + ${reserve} = ${sum} by default`);
  expect(PAGE).toContain(`pods x ${sum} + others`);
  const [, pods, clients] = /; (\d+) pods x \d+\nmax_client_conn = (\d+)/.exec(PAGE) ?? [];
  expect(Number(clients)).toBeGreaterThanOrEqual(Number(pods) * sum);
});
