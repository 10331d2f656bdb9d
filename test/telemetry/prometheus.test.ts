import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { REASONS } from '../../src/contract/reasons.ts';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { END_CAUSES, type TransactionState } from '../../src/transactions/ended.ts';
import { type Caller, grpcCaller, refusal } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { freePort } from '../support/port.ts';
import { createDatabase, openPool } from '../support/postgres.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useDatabase } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;
const ROOT = join(import.meta.dirname, '..', '..');

/** Tells of every file that is loaded with something of OpenTelemetry in it. */
const TELLTALE = `--import=data:text/javascript,${encodeURIComponent(
  `import { registerHooks } from 'node:module';
   registerHooks({ load(url, context, next) {
     const found = next(url, context);
     if (String(found.source).includes('node_modules/@opentelemetry')) process.stderr.write('LOADED ' + url + '\\n');
     return found;
   } });`,
)}`;

/** What a label may be: nothing that grows with tenants, ids and callers. */
const LABELS = [
  ['le', 'rpc_system_name', 'rpc_method', 'rpc_response_status_code', 'error_type'],
  ['db_system_name', 'db_operation_name', 'db_query_summary', 'cpu_mode', 'queue', 'cause', 'reason'],
  ['db_client_connection_pool_name', 'db_client_connection_state', 'version', 'node', 'service_name'],
  ['service_version', 'telemetry_sdk_language', 'telemetry_sdk_name', 'telemetry_sdk_version'],
].flat();

afterAll(endAll);

describe('with nothing but the port of the probes', () => {
  const database = useDatabase();
  let pool: pg.Pool;
  let sidecar: Command;
  let caller: Caller;
  let probes: string;
  beforeAll(async () => {
    pool = openPool(database.url, 4);
    probes = `127.0.0.1:${await freePort()}`;
    sidecar = startCommand(['serve', '--probe-listen', probes, '--pool-max', '1'], {
      DATABASE_URL: database.url,
      SIDECAR_POOL_WAIT: '200ms',
      // One that is left out, since it is no standby, has its numbers, too.
      SIDECAR_REPLICA_URLS: database.url,
      NODE_OPTIONS: TELLTALE,
    });
    caller = grpcCaller((await sidecar.serving()).grpc);
  });
  afterAll(async () => {
    caller?.close();
    sidecar?.child.kill('SIGTERM');
    await sidecar?.ended;
    await pool?.end();
  });

  const metrics = async () => (await fetch(`http://${probes}/metrics`)).text();
  const seen = (line: RegExp) => vi.waitFor(async () => expect(await metrics()).toMatch(line));
  const begin = async (request: object = {}) => (await caller.unary(tx.begin, request)).transaction?.id ?? '';

  test('Prometheus is answered in its own format', async () => {
    await caller.unary(rpc.fetchRiskCeilings, {});
    const response = await fetch(`http://${probes}/metrics`);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(await response.text()).toMatch(/^rpc_server_call_duration_count\{.*FetchRiskCeilings".*"OK"\} 1$/m);
    expect(sidecar.err()).toContain('LOADED ');
  });

  test('a wait for a connection that is given up counts', async () => {
    const locker = await pool.connect();
    await locker.query('begin; lock table policy.violations in access exclusive mode');
    const blocked = caller.unary(rpc.fetchViolations, {});
    await seen(/^db_client_connection_count\{[^}]*"call"[^}]*"used"\} 1$/m);
    const error = await refusal(caller.unary(rpc.fetchRiskCeilings, {}));
    expect(error.reason).toBe('CONNECTION_WAIT_TIMEOUT');
    await locker.query('rollback');
    locker.release();
    await blocked;
    await seen(/^db_client_connection_timeouts_total\{[^}]*"call"\} 1$/m);
  });

  test('a statement that is run again, since its plan was of an older schema, counts', async () => {
    await caller.unary(rpc.fetchRiskCeilings, {});
    const table = 'policy.risk_ceilings';
    await pool.query(`alter table ${table} alter column name type varchar(300)`);
    await caller.unary(rpc.fetchRiskCeilings, {});
    await seen(/^policy_sidecar_database_retries_total\{reason="stale_plan"\} [1-9]/m);
  });

  test('open transactions are counted, and their ends by cause', async () => {
    const short = { seconds: 0n, nanos: 50_000_000 };
    const ids = [await begin(), await begin(), await begin({ idleLease: short })];
    await seen(/^policy_sidecar_transaction_ends_total\{cause="idle_lease"\} 1$/m);
    await begin({ totalLease: short });
    await seen(/^policy_sidecar_transaction_ends_total\{cause="total_lease"\} 1$/m);
    for await (const _ of caller.stream(tx.hold, {})) break;
    await seen(/^policy_sidecar_transaction_ends_total\{cause="stream_ended"\} 1$/m);
    await seen(/^policy_sidecar_transaction_open 2$/m);
    await caller.unary(tx.commit, { transactionId: ids[0]! });
    await caller.unary(tx.rollback, { transactionId: ids[1]! });
    await seen(/^policy_sidecar_transaction_ends_total\{cause="committed"\} 1$/m);
    await seen(/^policy_sidecar_transaction_ends_total\{cause="rolled_back"\} 1$/m);
    await seen(/^policy_sidecar_transaction_open 0$/m);
  });

  test('calls that wait inside a transaction are counted', async () => {
    const transaction = await begin();
    const locker = await pool.connect();
    await locker.query('begin; lock table policy.violations in access exclusive mode');
    const reads = [1, 2, 3].map(() => caller.unary(rpc.fetchViolations, {}, { transaction }));
    await seen(/^policy_sidecar_queue_depth\{queue="transaction"\} 2$/m);
    await locker.query('rollback');
    locker.release();
    await Promise.all(reads);
    await caller.unary(tx.rollback, { transactionId: transaction });
    await seen(/^policy_sidecar_queue_depth\{queue="transaction"\} 0$/m);
  });

  test('no label grows with tenants, ids or callers', async () => {
    const text = await metrics();
    const labels = new Set([...text.matchAll(/[{,](\w+)="/g)].map(([, label]) => label));
    expect([...labels].filter((label) => !LABELS.includes(label!))).toEqual([]);
    expect(labels.size).toBeGreaterThan(10);
  });

  test('every number of the dashboard and of the alerts is there, and every label that they sort by', async () => {
    const told = new Set((await metrics()).split('\n').map((line) => /^\w+/.exec(line)?.[0]));
    // Prometheus' own, of whether it was answered.
    told.add('up');
    for (const queries of [dashboardQueries(), alerts().map(({ expr }) => expr)]) {
      const used = new Set(queries.flatMap((query) => [...query.matchAll(/(\w+)\{job=/g)].map(([, name]) => name!)));
      expect([...used].filter((name) => !told.has(name))).toEqual([]);
      expect(used.size).toBeGreaterThanOrEqual(8);
      for (const query of queries) expect(query).toContain('{job=');
      const by = queries.flatMap((query) =>
        [...query.matchAll(/by \(([^)]*)\)/g)].flatMap(([, list]) => list!.split(', ')),
      );
      expect(by.filter((label) => !['pod', 'namespace', ...LABELS].includes(label))).toEqual([]);
    }
  });
});

/** What the dashboard asks. */
const dashboardQueries = (): string[] =>
  JSON.parse(readFileSync(join(ROOT, 'deploy', 'grafana', 'policy-sidecar.json'), 'utf8')).panels.flatMap(
    ({ targets }: { targets: { expr: string }[] }) => targets.map(({ expr }) => expr),
  );

interface Alert {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: { readonly summary: string; readonly runbook: string };
}

const alerts = (): Alert[] =>
  parse(readFileSync(join(ROOT, 'deploy', 'prometheus', 'alerts.yaml'), 'utf8')).groups.flatMap(
    ({ rules }: { rules: Alert[] }) => rules,
  );

const page = (name: string): string => readFileSync(join(ROOT, 'docs', name), 'utf8');

/** The names of the table of numbers, as OpenTelemetry has them. */
const documented = (): string[] =>
  [...page('telemetry.md').matchAll(/^\| (`[a-z][\w.]*\.[\w.]+`.*?) \|/gm)].flatMap(([, cell]) => {
    let first = '';
    return [...cell!.matchAll(/`([\w.]+)`/g)].map(([, name]) => {
      if (!name!.startsWith('.')) first = name!;
      // `.max` beside a name takes the place of its last part.
      return name!.startsWith('.') ? first.replace(/\.[^.]+$/, name!) : name!;
    });
  });

test('the dashboard shows every number that docs/telemetry.md has', () => {
  const names = documented();
  expect(names).toContain('db.client.connection.timeouts');
  expect(names.length).toBeGreaterThan(18);
  const asked = dashboardQueries().join('\n');
  const shown = (name: string) => new RegExp(`\\b${name.replaceAll('.', '_')}(_bucket|_count|_total)?\\{`).test(asked);
  expect(names.filter((name) => !shown(name))).toEqual([]);
});

/** Where a transaction may be once it has ended, and nothing else says why. */
const STATES: Readonly<Record<Exclude<TransactionState, 'open' | 'committing' | 'expired'>, true>> = {
  committed: true,
  prepared: true,
  'rolled back': true,
  lost: true,
  unknown: true,
};

test('docs/telemetry.md has the causes that the program counts', () => {
  const [, cell] = /\| `policy_sidecar\.transaction\.ends` \|[^|]*\| `cause`: ([^|]*) \|/.exec(page('telemetry.md'))!;
  const told = [...cell!.matchAll(/`(\w+)`/g)].map(([, cause]) => cause);
  expect(told.sort()).toEqual([...CAUSES_COUNTED].sort());
});

/** Every cause that a transaction's end is counted by. */
const CAUSES_COUNTED = new Set([...END_CAUSES, ...Object.keys(STATES).map((state) => state.replaceAll(' ', '_'))]);

describe('the alerts', () => {
  test.each(alerts().map((each) => [each.alert, each] as const))(
    '%s says what is up, and where it says what to do',
    (_, rule) => {
      const { summary, runbook } = rule.annotations;
      expect(summary).not.toBe('');
      const [file, section] = runbook.split('#');
      const headings = [...page(file!.replace(/^docs\//, '')).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        heading!
          .toLowerCase()
          .replace(/[^\w -]/g, '')
          .replaceAll(' ', '-'),
      );
      expect(headings).toContain(section);
      const known: readonly string[] = [...Object.keys(REASONS), ...CAUSES_COUNTED];
      const asked = [...rule.expr.matchAll(/(?:reason|cause)=~"([^"]*)"/g)].flatMap(([, list]) => list!.split('|'));
      expect(asked.filter((name) => !known.includes(name))).toEqual([]);
      // A counter that was not there before has not grown: whoever waits for its first event must ask for that, too.
      const counters = [...rule.expr.matchAll(/increase\((\w+\{[^}]*\})\[(\w+)\]\) > 0/g)];
      expect(counters.length > 0).toBe(rule.expr.includes('_total{'));
      const plain = rule.expr.replace(/\s+/g, ' ');
      for (const [, counter, time] of counters)
        expect(plain).toContain(`( ${counter} unless ${counter} offset ${time} )`);
    },
  );

  test('that of memory stands just below what the manifests allow', () => {
    const [, most] = /process_memory_usage\{[^}]*\} > (\S+)/.exec(
      alerts()
        .map(({ expr }) => expr)
        .join('\n'),
    )!;
    const base = readFileSync(join(ROOT, 'deploy', 'kubernetes', 'base', 'deployment.yaml'), 'utf8');
    const [, mebibytes] = /limits:\n\s+memory: (\d+)Mi$/m.exec(base)!;
    const share = Number(most) / (Number(mebibytes) * 2 ** 20);
    expect(share).toBeGreaterThan(0.8);
    expect(share).toBeLessThan(1);
  });
});

test('without a variable and without that port nothing of it is loaded', async () => {
  const database = await createDatabase();
  const sidecar = startCommand(['serve'], {
    DATABASE_URL: database.url,
    NODE_OPTIONS: TELLTALE,
  });
  const caller = grpcCaller((await sidecar.serving()).grpc);
  await caller.unary(rpc.fetchRiskCeilings, {});
  caller.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  expect(sidecar.err()).toContain('"msg":"stopped"');
  expect(sidecar.err()).not.toContain('LOADED');
  await database.drop();
});

test.each([
  ['OTEL_TRACES_SAMPLER', 'sometimes'],
  ['OTEL_TRACES_SAMPLER_ARG', '2'],
  ['OTEL_TRACES_EXPORTER', 'zipkin'],
  ['OTEL_METRICS_EXPORTER', 'console'],
  ['OTEL_EXPORTER_OTLP_PROTOCOL', 'grpc'],
  ['OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'grpc'],
])('%s=%s is refused in one line', async (variable, value) => {
  const sidecar = startCommand(['serve'], {
    DATABASE_URL: 'postgresql://nobody@127.0.0.1:1/none',
    OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:1',
    [variable]: value,
  });
  expect(await sidecar.ended).toBe(2);
  expect(sidecar.err().trimEnd().split('\n')).toEqual([expect.stringMatching(new RegExp(`${variable}.*"${value}"`))]);
});

test('of calls without an error only a share is logged, of the others every one', async () => {
  const sidecar = await startTestSidecar({ logSample: 0 });
  const write = {
    violationId: randomUUID(),
    violationType: 'x',
    severity: 0.5,
    description: 'x',
    evidence: jsonToValue({}),
    routedToGovernor: false,
    detectedAt: { seconds: 1n, nanos: 0 },
  };
  for (const caller of sidecar.callers) {
    await caller.unary(rpc.fetchRiskCeilings, {});
    await refusal(caller.unary(rpc.insertViolation, write));
  }
  const lines = await vi.waitFor(() => {
    const found = sidecar.log().filter(({ msg }) => msg === 'call');
    expect(found).toHaveLength(2);
    return found;
  });
  expect(lines.map(({ code }) => code)).toEqual(['FAILED_PRECONDITION', 'FAILED_PRECONDITION']);
  await sidecar.stop();
});
