import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { MessageInitShape } from '@bufbuild/protobuf';
import pg from 'pg';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import type { OperationSchema } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyProposalWriteService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { startNetwork } from '../support/network.ts';
import { createDatabase } from '../support/postgres.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useFolder, useSidecar } from '../support/use.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const { fetchRiskCeilings, resetRiskCeiling } = PolicyEngineService.method;
const { begin, commit, rollback, savepoint, rollbackToSavepoint, releaseSavepoint, execute } =
  TransactionService.method;

type Line = Readonly<Record<string, unknown>>;

const folder = useFolder();
const file = join(folder, 'audit.jsonl');
const sidecar = useSidecar({ audit: { file } });
let ceilingId: string;
beforeAll(async () => {
  ceilingId = (await sidecar.grpc.unary(fetchRiskCeilings, {})).riskCeilings[0]!.id;
});

const linesOf = (path: string): Line[] =>
  readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

/** What work adds to the audit; settles when so many lines are there. */
const added = async (count: number, work: () => Promise<unknown>): Promise<Line[]> => {
  const before = linesOf(file).length;
  await work();
  await vi.waitFor(() => expect(linesOf(file)).toHaveLength(before + count));
  return linesOf(file).slice(before);
};

describe.each(['grpc', 'connect'] as const)('the audit of writes over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('a single-use write is one line: who, what, which, how many, and what became of it', async () => {
    const key = randomUUID();
    const init = { transaction: 'single-use', headers: { 'idempotency-key': key } };
    const write = () => caller().unary(resetRiskCeiling, { ceilingId }, init);
    const common = {
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
      audit: 'write',
      caller: 'local',
      method: 'PolicyEngineService/ResetRiskCeiling',
      transaction: 'single-use',
      idempotency_key: key,
      keys: { ceiling_id: ceilingId },
    };
    expect(await added(1, write)).toEqual([{ ...common, rows: 1, outcome: 'committed' }]);
    expect(await added(1, write)).toEqual([{ ...common, outcome: 'repeated' }]);
  });

  test('a write that is refused is a line with its reason', async () => {
    const [bad, lone] = await added(2, async () => {
      await refusal(caller().unary(resetRiskCeiling, { ceilingId: 'x' }, { transaction: 'single-use' }));
      await refusal(caller().unary(resetRiskCeiling, { ceilingId }));
    });
    expect(bad).toMatchObject({ outcome: 'failed', code: 'INVALID_ARGUMENT', reason: 'INVALID_REQUEST' });
    expect(lone).toMatchObject({ outcome: 'failed', reason: 'TRANSACTION_REQUIRED', keys: { ceiling_id: ceilingId } });
  });

  test('a reader can tell what became of each write of a transaction', async () => {
    const lines = await added(7, async () => {
      const { transaction } = await caller().unary(begin, { label: 'audited' });
      const init = { transaction: transaction!.id! };
      const reset = () => caller().unary(resetRiskCeiling, { ceilingId }, init);
      await reset();
      await caller().unary(savepoint, { name: 'a' }, init);
      await reset();
      await caller().unary(rollbackToSavepoint, { name: 'a' }, init);
      await caller().unary(releaseSavepoint, { name: 'a' }, init);
      await reset();
      await caller().unary(commit, {}, init);
    });
    expect(new Set(lines.map(({ transaction }) => transaction)).size).toBe(1);
    expect(String(lines[0]!['transaction'])).toHaveLength(10);
    expect(lines.map(({ audit, outcome, savepoint: name }) => [audit, outcome, name])).toEqual([
      ['write', 'pending', undefined],
      ['savepoint', 'set', 'a'],
      ['write', 'pending', undefined],
      ['savepoint', 'rolled back to', 'a'],
      ['savepoint', 'released', 'a'],
      ['write', 'pending', undefined],
      ['transaction', 'committed', undefined],
    ]);
    expect(lines.at(-1)).toMatchObject({ caller: 'local', label: 'audited', calls: 3 });
  });

  test.each([
    ['rolled back by its caller', {}, 'rolled back'],
    ['left until its lease ends', { idleLease: { seconds: 1n, nanos: 0 } }, 'expired'],
  ])('a transaction that is %s says so', async (_what, options, outcome) => {
    const [write, end] = await added(2, async () => {
      const { transaction } = await caller().unary(begin, options);
      const init = { transaction: transaction!.id! };
      await caller().unary(resetRiskCeiling, { ceilingId }, init);
      if (outcome === 'rolled back') await caller().unary(rollback, {}, init);
    });
    expect(write).toMatchObject({ audit: 'write', outcome: 'pending', rows: 1 });
    expect(end).toMatchObject({ audit: 'transaction', outcome, transaction: write!['transaction'] });
  });

  test('each write of Execute is a line, a read is none, and all share the outcome; inside a transaction it is pending', async () => {
    const operations: MessageInitShape<typeof OperationSchema>[] = [
      { request: { case: 'fetchRiskCeilings', value: {} } },
      { request: { case: 'resetRiskCeiling', value: { ceilingId } } },
      { request: { case: 'resetRiskCeiling', value: { ceilingId: randomUUID() } } },
    ];
    const done = await added(2, () => caller().unary(execute, { operations }));
    expect(done.map(({ operation, rows, outcome }) => [operation, rows, outcome])).toEqual([
      [1, 1, 'committed'],
      [2, 0, 'committed'],
    ]);
    const expecting = operations.with(2, { ...operations[2]!, expectedRows: 1n });
    const undone = await added(2, () => refusal(caller().unary(execute, { operations: expecting })));
    expect(undone).toMatchObject([
      {
        operation: 1,
        method: 'PolicyEngineService/ResetRiskCeiling',
        outcome: 'failed',
        reason: 'UNEXPECTED_ROW_COUNT',
      },
      { operation: 2, outcome: 'failed' },
    ]);
    for (const line of undone) expect(line).not.toHaveProperty('rows');
    const [write, end] = await added(2, async () => {
      const { transaction } = await caller().unary(begin, {});
      const init = { transaction: transaction!.id! };
      await caller().unary(execute, { operations: operations.slice(0, 2) }, init);
      await caller().unary(rollback, {}, init);
    });
    expect(write).toMatchObject({ operation: 1, outcome: 'pending', transaction: end!['transaction'] });
  });
});

test('what a write makes is named, what it holds is not', async () => {
  const [line] = await added(1, () =>
    sidecar.grpc.unary(
      PolicyProposalWriteService.method.createProposal,
      { tenantId: 'acme', proposalName: 'secret-name', proposalType: 'custom', rationale: 'secret-reason' },
      { transaction: 'single-use' },
    ),
  );
  expect(line).toMatchObject({
    method: 'PolicyProposalWriteService/CreateProposal',
    keys: { tenant_id: 'acme' },
    made: { id: expect.stringMatching(/^[\da-f-]{36}$/) },
    rows: 1,
    outcome: 'committed',
  });
  expect(readFileSync(file, 'utf8')).not.toContain('secret');
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

test('a read is not audited', async () => {
  const lines = await added(1, async () => {
    await sidecar.grpc.unary(fetchRiskCeilings, {});
    await sidecar.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' });
  });
  expect(lines[0]).toMatchObject({ method: 'PolicyEngineService/ResetRiskCeiling' });
});

test('a file that cannot be written is told, stops no call, and loses nothing that fits', async () => {
  const place = join(folder, 'place');
  await mkdir(place);
  const path = join(place, 'audit');
  const server = await startTestSidecar({ audit: { file: path } });
  const write = () => server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' });
  await write();
  await vi.waitFor(() => expect(linesOf(path)).toHaveLength(1));
  await rename(place, `${place}-away`);
  await write();
  await vi.waitFor(() =>
    expect(server.log()).toContainEqual(
      expect.objectContaining({
        level: 'error',
        problem: 'ENOENT',
        msg: 'the audit file cannot be written, lines wait',
      }),
    ),
  );
  await write();
  await rename(`${place}-away`, place);
  await vi.waitFor(() => expect(linesOf(path)).toHaveLength(3));
  // As a rotation does.
  await rename(path, `${path}.1`);
  await write();
  await server.stop();
  expect(linesOf(path)).toHaveLength(1);
});

// What waited for the next try, up to a second away, was lost in silence.
test.each(['there again', 'still away'])(
  'a file that is %s at the end is tried once more, and what is lost is told',
  async (how) => {
    const place = join(folder, how);
    await mkdir(place);
    const path = join(place, 'audit');
    const server = await startTestSidecar({ audit: { file: path } });
    await rename(place, `${place}-away`);
    await server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' });
    const problem = expect.objectContaining({ msg: 'the audit file cannot be written, lines wait' });
    await vi.waitFor(() => expect(server.log()).toContainEqual(problem));
    const isBack = how === 'there again';
    if (isBack) await rename(`${place}-away`, place);
    await server.stop();
    expect(linesOf(join(isBack ? place : `${place}-away`, 'audit'))).toHaveLength(isBack ? 1 : 0);
    const lost = server.log().filter(({ msg }) => msg === 'the audit file could not be written, lines are lost');
    expect(lost).toMatchObject(isBack ? [] : [{ level: 'error', lost: 1 }]);
  },
);

/** How large files may become that this process writes, bytes. */
const limitFiles = (bytes: number | 'unlimited') =>
  promisify(execFile)('prlimit', ['--pid', String(process.pid), `--fsize=${bytes}:`]);

// A disk that filled up took a part of what was to be written; then all of it was written again, and again.
test.runIf(process.platform === 'linux')('a file that takes a part of what waits has each line once', async () => {
  const path = join(folder, 'full');
  const server = await startTestSidecar({ audit: { file: path } });
  const write = () => server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' });
  const ignore = (): void => {};
  process.on('SIGXFSZ', ignore);
  try {
    for (const bytes of [700, 1_500]) {
      await limitFiles(bytes);
      await Promise.all(Array.from({ length: 20 }, write));
      await vi.waitFor(() => expect(statSync(path).size).toBe(bytes));
    }
  } finally {
    await limitFiles('unlimited');
    process.off('SIGXFSZ', ignore);
  }
  await vi.waitFor(() => expect(readFileSync(path, 'utf8').match(/^\{.*"audit":"write".*\}$/gm)).toHaveLength(40));
  await server.stop();
  expect(readFileSync(path, 'utf8').match(/^\{.*"audit":"write".*\}$/gm)).toHaveLength(40);
});

test('a file that cannot be written at the start is no start', async () => {
  await expect(startTestSidecar({ audit: { file: join(folder, 'no', 'audit') } })).rejects.toThrow(
    `the audit file ${join(folder, 'no', 'audit')} cannot be written (ENOENT)`,
  );
});

test('the log takes it, too, however quiet it is; requests are in it where that is asked for', async () => {
  const server = await startTestSidecar({ audit: 'log', auditPayloads: true, logLevel: 'error' });
  await server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' });
  expect(server.log()).toMatchObject([
    { audit: 'write', rows: 1, outcome: 'committed', request: { ceilingId }, msg: 'audit' },
  ]);
  await server.stop();
});

test('a write whose commit got no answer is unknown, alone and in a transaction', async () => {
  const database = await createDatabase();
  const network = await startNetwork(database.url);
  const path = join(folder, 'lost.jsonl');
  const server = await startTestSidecar({ audit: { file: path } }, network.url);
  const gate = new pg.Client({ connectionString: database.url });
  await gate.connect();
  await gate.query(`
    create function wait_at_commit() returns trigger language plpgsql as
      $$ begin perform pg_advisory_xact_lock(42); return null; end $$;
    create constraint trigger waits after update on policy.risk_ceilings deferrable initially deferred
      for each row execute function wait_at_commit();
    select pg_advisory_lock(42)`);
  const lose = async (call: Promise<unknown>): Promise<void> => {
    const lost = refusal(call);
    const [pid] = await vi.waitFor(async () => {
      const pids = (await gate.query(WAITING_FOR_LOCK)).rows.map((row) => row.pid);
      expect(pids).toHaveLength(1);
      return pids;
    });
    network.cut();
    expect((await lost).reason).toBe('COMMIT_OUTCOME_UNKNOWN');
    await gate.query('select pg_terminate_backend($1)', [pid]);
  };
  await lose(server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: 'single-use' }));
  let id: string | undefined;
  await vi.waitFor(async () => {
    ({ id } = (await server.grpc.unary(begin, {})).transaction!);
  });
  await server.grpc.unary(resetRiskCeiling, { ceilingId }, { transaction: id! });
  await lose(server.grpc.unary(commit, {}, { transaction: id! }));
  await vi.waitFor(() => expect(linesOf(path)).toHaveLength(3));
  expect(linesOf(path)).toMatchObject([
    { audit: 'write', outcome: 'unknown', reason: 'COMMIT_OUTCOME_UNKNOWN' },
    { audit: 'write', outcome: 'pending' },
    { audit: 'transaction', outcome: 'unknown' },
  ]);
  await gate.end();
  await server.stop();
  await network.close();
  await database.drop();
});
