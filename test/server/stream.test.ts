import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { type Caller, collect, grpcCaller } from '../support/client.ts';
import { useClient, useDatabase } from '../support/use.ts';

const ROWS = 300_000;
/** Heap of the server, megabytes: the bytes of the rows alone would need twice as much. */
const HEAP = 96;
const LENGTH = 600;

const database = useDatabase();
const client = useClient(() => database.url);
let child: ChildProcess;
let caller: Caller;
beforeAll(async () => {
  await client.query(`insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
    select 'a', 'b', 'x', rpad(n::text, ${LENGTH}) from generate_series(1, ${ROWS}) n`);
  child = spawn(
    process.execPath,
    [inject('program'), 'serve', '--grpc-listen', '127.0.0.1:0', '--http-listen', 'off'],
    {
      env: {
        PATH: process.env['PATH'],
        DATABASE_URL: database.url,
        SIDECAR_LOG_LEVEL: 'silent',
        NODE_OPTIONS: `--max-old-space-size=${HEAP}`,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  for await (const line of createInterface({ input: child.stdout! })) {
    const address = /^gRPC +(\S+)$/.exec(line)?.[1];
    if (!address) continue;
    caller = grpcCaller(address);
    break;
  }
}, 120_000);
afterAll(async () => {
  caller?.close();
  if (child?.exitCode === null) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
});

const streams = async (): Promise<number> => {
  const { rows } = await client.query(
    `select from pg_stat_activity where datname = current_database() and application_name = 'policy-sidecar transaction'
     and state <> 'idle'`,
  );
  return rows.length;
};

test('more rows are streamed than the process could hold', async () => {
  let count = 0;
  for await (const _ of caller.stream(PolicyEngineService.method.streamConflicts, {})) count += 1;
  expect(count).toBe(ROWS);
  expect(child.exitCode).toBeNull();
}, 120_000);

/** Most memory that the server has had, bytes. */
const peak = async (): Promise<number> =>
  1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(await readFile(`/proc/${child.pid}/status`, 'utf8'))![1]);

// All rows of a section were in memory at once, however wide they were: lists that are too large are told to be streamed.
test.runIf(process.platform === 'linux')('wide rows are streamed in little memory', async () => {
  const [ROWS, WIDTH] = [300, 1_000_000];
  await client.query(
    `insert into policy.violations (id, violation_type, severity, description, evidence, agent_id, routed_to_governor, detected_at)
     select gen_random_uuid(), 'x', 0.5, repeat('x', $2), '{}', 'wide', false, now() from generate_series(1, $1) n`,
    [ROWS, WIDTH],
  );
  const before = await peak();
  const violations = await collect(caller.stream(PolicyEngineService.method.streamViolations, { agentId: 'wide' }));
  expect(violations).toHaveLength(ROWS);
  expect((await peak()) - before).toBeLessThan((ROWS * WIDTH) / 2);
});

test('a reader that stops reading holds the stream back, and leaving frees its connection', async () => {
  const iterator = caller.stream(PolicyEngineService.method.streamConflicts, {})[Symbol.asyncIterator]();
  await iterator.next();
  await vi.waitFor(async () => expect(await streams()).toBe(1));
  const { rows: before } = await client.query(`select xact_start, query_start from pg_stat_activity
    where datname = current_database() and application_name = 'policy-sidecar transaction' and state <> 'idle'`);
  // Nothing more is fetched while nobody reads: the last statement stays the last.
  await vi.waitFor(async () => {
    const { rows } = await client.query(`select now() - query_start > interval '300 milliseconds' as quiet
      from pg_stat_activity where datname = current_database()
      and application_name = 'policy-sidecar transaction' and state <> 'idle'`);
    expect(rows).toEqual([{ quiet: true }]);
  });
  expect(before).toHaveLength(1);
  await iterator.return!();
  await vi.waitFor(async () => expect(await streams()).toBe(0));
});
