/**
 * What the sidecar costs beside what it stands on: ratios of medians of interleaved rounds, in one run on one machine.
 *
 * The server is a process of its own, as in production, on an embedded PostgreSQL; the references are a call that needs no
 * database, `pg`, and `pgbench` where the machine has one (PATH or Debian's folder).
 */
import { execFile, spawn } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { create, type DescMethodUnary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import pg from 'pg';
import { migrateUp } from '../src/database/migrate/migrate.ts';
import { startEmbedded } from '../src/embedded/embedded.ts';
import { Health } from '../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../test/support/client.ts';

const run = promisify(execFile);
const ROUNDS = 5;
const ROUND_MS = 2_000;
const CONCURRENCY = 16;
const STREAMED = 1_000_000;
const rpc = PolicyEngineService.method;

const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-budget-'));
await chmod(folder, 0o755);
const embedded = await startEmbedded({ dataDir: folder });
const { url } = embedded;
await migrateUp(url);
const client = new pg.Client({ connectionString: url });
await client.connect();
await client.query(`insert into policy.violations
  (id, violation_type, severity, description, evidence, agent_id, tenant_id, routed_to_governor, detected_at, policy_name)
  select gen_random_uuid(), 'cost', 0.5, 'a violation of some length, as they are', '{"metric": "cost", "value": 12.5}',
    'agent-' || n % 100, 'tenant-' || n % 50, true, now() - n * interval '1 second', 'a policy'
  from generate_series(1, 20000) n`);
await client.query('vacuum analyze');
const { rows: some } = await client.query<{ id: string }>('select id::text from policy.violations limit 1');
const id = some[0]!.id;

interface Served {
  readonly address: string;
  readonly startMs: number;
  readonly rss: () => number;
  readonly stop: () => Promise<void>;
}

const serve = async (): Promise<Served> => {
  const started = performance.now();
  const main = join(import.meta.dirname, '..', 'src', 'main.ts');
  const child = spawn(
    process.execPath,
    [main, 'serve', '--grpc-listen', '127.0.0.1:0', '--http-listen', '127.0.0.1:0'],
    {
      env: { PATH: process.env['PATH'], DATABASE_URL: url },
      stdio: ['ignore', 'pipe', 'ignore'],
    },
  );
  const exited = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  for await (const line of createInterface({ input: child.stdout! })) {
    const address = /^gRPC +(\S+)$/.exec(line)?.[1];
    if (!address) continue;
    const caller = grpcCaller(address);
    await caller.unary(Health.method.check, {});
    caller.close();
    return {
      address,
      startMs: performance.now() - started,
      rss: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024,
      stop: async () => {
        child.kill('SIGTERM');
        await exited;
      },
    };
  }
  throw new Error('the server did not start');
};

const median = (values: number[]): number => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;

await (await serve()).stop(); // The first start compiles.
const starts: number[] = [];
for (let round = 0; round < ROUNDS; round += 1) {
  const served = await serve();
  starts.push(served.startMs);
  await served.stop();
}
const server = await serve();
const idle = server.rss();

interface Measured {
  readonly rps: number;
  readonly p50: number;
}

const load =
  <M extends DescMethodUnary>(
    method: M,
    request: MessageInitShape<M['input']>,
    headers = {},
    concurrency = CONCURRENCY,
  ) =>
  async (): Promise<Measured> => {
    const bytes = Buffer.from(toBinary(method.input, create(method.input, request))).toString('base64');
    const path = `/${method.parent.typeName}/${method.name}`;
    const script = join(import.meta.dirname, 'load.ts');
    const args = [script, server.address, path, bytes, JSON.stringify(headers), String(concurrency), String(ROUND_MS)];
    return JSON.parse((await run(process.execPath, args)).stdout) as Measured;
  };

const pgbench = [...(process.env['PATH'] ?? '').split(':'), ...globSync('/usr/lib/postgresql/*/bin')]
  .map((place) => join(place, 'pgbench'))
  .find((file) => globSync(file).length > 0);

const bench = (name: string, sql: string) => async (): Promise<Measured> => {
  const script = join(folder, `${name}.sql`);
  await writeFile(script, sql);
  const args = [
    '-n',
    '-M',
    'prepared',
    '-c',
    String(CONCURRENCY),
    '-j',
    '1',
    '-T',
    String(ROUND_MS / 1_000),
    '-f',
    script,
    url,
  ];
  const { stdout } = await run(pgbench!, args);
  return { rps: Number(/tps = ([\d.]+)/.exec(stdout)![1]), p50: Number.NaN };
};

const prepared = (name: string, text: string, values: unknown[]) => async (): Promise<Measured> => {
  const times: number[] = [];
  const ends = performance.now() + ROUND_MS;
  while (performance.now() < ends) {
    const started = performance.now();
    await client.query({ name, text, values });
    times.push(performance.now() - started);
  }
  return { rps: times.length / (ROUND_MS / 1_000), p50: median(times) };
};

const COLUMNS = `id, policy_name, violation_type, severity, description, evidence, agent_id, tenant_id, action_attempted,
  routed_to_governor, governor_action, detected_at`;
const oneLine = (sql: string): string => `${sql.replace(/\s+/g, ' ')};\n`;
const POINT = `select ${COLUMNS} from policy.violations where id = `;
const LIST = `select ${COLUMNS} from policy.violations order by detected_at desc, id desc limit 100`;
const INSERT = `insert into policy.policy_provenance (policy_id, policy_type, action, changed_by, policy_version, reason)
  values ('${id}', 'policy', 'update', 'bench', '1.0.0', 'why') returning id`;
const change = {
  policyId: id,
  policyType: 'policy',
  action: 'update',
  changedBy: 'bench',
  policyVersion: '1.0.0',
  reason: 'why',
};

/** Runs both in turn; medians of each. */
const beside = async (...sides: (() => Promise<Measured>)[]): Promise<Measured[]> => {
  const found: Measured[][] = sides.map(() => []);
  for (const side of sides) await side();
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, side] of sides.entries()) found[index]!.push(await side());
  }
  return found.map((all) => ({ rps: median(all.map(({ rps }) => rps)), p50: median(all.map(({ p50 }) => p50)) }));
};

const say = (what: string, value: string, target: string): void => {
  console.log(`${what.padEnd(58)} ${value.padStart(10)}   target ${target}`);
};
const ratio = ([ours, reference]: Measured[]): string => (ours!.rps / reference!.rps).toFixed(2);

const point = load(rpc.fetchViolationById, { violationId: id });
say('point read, of a call without database', ratio(await beside(point, load(Health.method.check, {}))), '>= 0.5');
if (pgbench) {
  const list = load(rpc.fetchViolations, {});
  say('list of 100, of pgbench', ratio(await beside(list, bench('list', oneLine(LIST)))), '>= 0.35');
  const write = load(rpc.insertProvenance, change, { transaction: 'single-use' });
  say('single-use write, of pgbench', ratio(await beside(write, bench('insert', oneLine(INSERT)))), '>= 0.4');
}
const [one, direct] = await beside(
  load(rpc.fetchViolationById, { violationId: id }, {}, 1),
  prepared('point', `${POINT}$1::uuid`, [id]),
);
say('latency added at 1 client, p50', `${(one!.p50 - direct!.p50).toFixed(2)} ms`, '<= 0.4 ms');
await Promise.all([load(rpc.fetchViolations, {}, {}, 64)()]);
say('memory, idle', `${idle.toFixed(0)} MB`, '<= 90 MB');
say('memory, 64 concurrent lists', `${server.rss().toFixed(0)} MB`, '<= 160 MB');
say('start to SERVING', `${median(starts).toFixed(0)} ms`, '<= 700 ms');
await server.stop();

await client.query(`insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
  select 'a', 'b', 'x', n::text from generate_series(1, ${STREAMED}) n`);
const streaming = await serve();
const before = streaming.rss();
let most = 0;
let count = 0;
const caller = grpcCaller(streaming.address);
for await (const _ of caller.stream(rpc.streamConflicts, {})) {
  count += 1;
  if (count % 10_000 === 0) most = Math.max(most, streaming.rss());
}
say(`memory added by a stream of ${count.toLocaleString('en')} rows`, `${(most - before).toFixed(0)} MB`, '<= 40 MB');
caller.close();
await streaming.stop();
await client.end();
await embedded.stop();
await rm(folder, { recursive: true, force: true });
