/**
 * What a transaction over RPC costs beside the same SQL from `pg`, in one run on one machine.
 *
 * Prints medians of interleaved rounds and their ratio. Reads DATABASE_URL, else starts an embedded PostgreSQL.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { loadConfig } from '../src/config.ts';
import { migrateUp } from '../src/database/migrate/migrate.ts';
import { jsonToValue } from '../src/database/values.ts';
import { startEmbedded } from '../src/embedded/embedded.ts';
import { PolicyEngineService } from '../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { createLog } from '../src/log.ts';
import { startServer } from '../src/server/sidecar.ts';
import { grpcCaller } from '../test/support/client.ts';

const ROUNDS = 9;
const REPEATS = 40;

const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-bench-'));
const given = process.env['DATABASE_URL'];
const embedded = given ? undefined : await startEmbedded({ dataDir: folder });
const url = given ?? embedded!.url;
await migrateUp(url);
const config = { ...loadConfig([], {}), grpcListen: '127.0.0.1:0', httpListen: undefined };
const server = await startServer(config, { url, log: createLog('silent', { write: () => {} }) });
const caller = grpcCaller(server.grpcAddress);
const client = new pg.Client({ connectionString: url });
await client.connect();

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const violation = () => ({
  violationId: randomUUID(),
  violationType: 'bench',
  severity: 0.5,
  description: 'd',
  evidence: jsonToValue({ a: 1 }),
  routedToGovernor: false,
  detectedAt: { seconds: 1n, nanos: 0 },
});

const INSERT = {
  name: 'bench',
  text: `insert into policy.violations (id, violation_type, severity, description, evidence, routed_to_governor, detected_at)
    values ($1, $2, $3, $4, $5, $6, $7) returning id`,
};
const values = () => [randomUUID(), 'bench', 0.5, 'd', '{"a": 1}', false, '1970-01-01T00:00:01Z'];
const ten = <T>(work: () => T): T[] => Array.from({ length: 10 }, work);

/** Name -> our side and the reference, each run REPEATS times a round. */
const pairs: Record<string, readonly [ours: () => Promise<unknown>, reference: () => Promise<unknown>]> = {};

const begun = async () => (await caller.unary(tx.begin, {})).transaction!.id!;
const transaction = await begun();
await client.query('begin');
pairs['one insert in an open transaction'] = [
  () => caller.unary(rpc.insertViolation, violation(), { transaction }),
  () => client.query({ ...INSERT, values: values() }),
];
const plain = new pg.Client({ connectionString: url });
await plain.connect();
pairs['Execute of 10 inserts'] = [
  () =>
    caller.unary(tx.execute, {
      operations: ten(() => ({ request: { case: 'insertViolation' as const, value: violation() } })),
    }),
  async () => {
    await plain.query('begin');
    for (let index = 0; index < 10; index += 1) await plain.query({ ...INSERT, values: values() });
    await plain.query('commit');
  },
];
pairs['10 single-use inserts, one after the other'] = [
  async () => {
    for (let index = 0; index < 10; index += 1) {
      await caller.unary(rpc.insertViolation, violation(), { transaction: 'single-use' });
    }
  },
  async () => {
    for (let index = 0; index < 10; index += 1) await plain.query({ ...INSERT, values: values() });
  },
];

const timed = async (work: () => Promise<unknown>): Promise<number> => {
  const started = performance.now();
  for (let repeat = 0; repeat < REPEATS; repeat += 1) await work();
  return (performance.now() - started) / REPEATS;
};
const median = (times: number[]): number => times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;

for (const [name, [ours, reference]] of Object.entries(pairs)) {
  await timed(ours);
  await timed(reference);
  const times: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    times[0].push(await timed(ours));
    times[1].push(await timed(reference));
  }
  const [mine, theirs] = [median(times[0]), median(times[1])];
  console.log(`${name}: ${mine.toFixed(2)} ms, pg ${theirs.toFixed(2)} ms, ratio ${(mine / theirs).toFixed(2)}`);
}

await caller.unary(tx.rollback, { transactionId: transaction });
await client.query('rollback');
await client.end();
await plain.end();
caller.close();
await server.stop();
await embedded?.stop();
await rm(folder, { recursive: true, force: true });
