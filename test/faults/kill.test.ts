import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import pg from 'pg';
import { expect, inject, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError, grpcCaller } from '../support/client.ts';
import { useDatabase } from '../support/use.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const ROUNDS = 3;
const WRITERS = 8;

const database = useDatabase();

interface Running {
  readonly child: ChildProcess;
  readonly address: string;
}

/** The real command on the test's database. */
const start = async (): Promise<Running> => {
  const child = spawn(
    process.execPath,
    [inject('program'), 'serve', '--grpc-listen', '127.0.0.1:0', '--http-listen', 'off'],
    {
      env: { PATH: process.env['PATH'], DATABASE_URL: database.url, SIDECAR_LOG_LEVEL: 'silent' },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  for await (const line of createInterface({ input: child.stdout! })) {
    const address = /^gRPC +(\S+)$/.exec(line)?.[1];
    if (address) return { child, address };
  }
  throw new Error('the sidecar did not start');
};

test('kill -9 during writes: what was acknowledged is there, and nothing that nobody sent', async () => {
  const acknowledged: string[] = [];
  const sent: string[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { child, address } = await start();
    const caller = grpcCaller(address);
    const target = acknowledged.length + 40;
    const write = async (): Promise<void> => {
      for (;;) {
        const id = randomUUID();
        sent.push(id);
        await caller.unary(rpc.insertViolation, violation(id), { transaction: 'single-use' });
        acknowledged.push(id);
        if (acknowledged.length >= target) child.kill('SIGKILL');
      }
    };
    const ends = await Promise.allSettled(Array.from({ length: WRITERS }, write));
    for (const end of ends) {
      expect(end.status).toBe('rejected');
      expect((end as PromiseRejectedResult).reason).toBeInstanceOf(CallError);
      expect(((end as PromiseRejectedResult).reason as CallError).code).toBe('UNAVAILABLE');
    }
    caller.close();
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const { rows } = await client.query<{ id: string }>('select id from policy.violations');
  await client.end();
  const stored = new Set(rows.map(({ id }) => id));
  expect(acknowledged.length).toBeGreaterThanOrEqual(ROUNDS * 40);
  expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
  expect([...stored].filter((id) => !sent.includes(id))).toEqual([]);
});

test('kill -9 during commits: every outcome a restarted sidecar tells is the one of the rows', async () => {
  const first = await start();
  const caller = grpcCaller(first.address);
  const begun: { id: string; row: string }[] = [];
  const acknowledged = new Set<string>();
  const work = async (): Promise<void> => {
    for (;;) {
      const { transaction } = await caller.unary(tx.begin, {});
      const entry = { id: transaction!.id!, row: randomUUID() };
      begun.push(entry);
      await caller.unary(rpc.insertViolation, violation(entry.row), { transaction: entry.id });
      if (begun.length > 60) first.child.kill('SIGKILL');
      await caller.unary(tx.commit, { transactionId: entry.id });
      acknowledged.add(entry.id);
    }
  };
  await Promise.allSettled(Array.from({ length: WRITERS }, work));
  caller.close();
  if (first.child.exitCode === null && first.child.signalCode === null) await once(first.child, 'exit');
  const second = await start();
  const asker = grpcCaller(second.address);
  const told = new Map<string, Outcome>();
  for (const { id } of begun) {
    let outcome: Outcome = Outcome.IN_PROGRESS;
    while (outcome === Outcome.IN_PROGRESS) {
      ({ outcome } = await asker.unary(tx.getOutcome, { subject: { case: 'transactionId', value: id } }));
    }
    told.set(id, outcome);
  }
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  const { rows } = await client.query<{ id: string }>('select id from policy.violations');
  await client.end();
  const stored = new Set(rows.map(({ id }) => id));
  for (const { id, row } of begun) {
    expect([row, told.get(id)]).toEqual([row, stored.has(row) ? Outcome.COMMITTED : Outcome.ABORTED]);
    if (acknowledged.has(id)) expect(told.get(id)).toBe(Outcome.COMMITTED);
  }
  expect(acknowledged.size).toBeGreaterThan(20);
  asker.close();
  second.child.kill('SIGTERM');
  await once(second.child, 'exit');
});
