import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError, refusal } from '../support/client.ts';
import { startNetwork } from '../support/network.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useDatabase, useSidecar, useStarted } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const database = useDatabase();
const network = useStarted(
  () => startNetwork(database.url),
  ({ close }) => close(),
);
const sidecar = useSidecar(() => startTestSidecar({ poolWaitMs: 1_000, callTimeoutMs: 5_000 }, network.url));

/** Until when a connection is made, authenticated and set up. */
const START_BYTES = 700;

/** What a server sends that is told to shut down. */
const FATAL = (() => {
  const fields = ['SFATAL', 'VFATAL', 'C57P01', 'Mterminating connection due to administrator command'];
  const body = Buffer.from(`${fields.join('\0')}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
})();

/** The n-th byte of a connection from the server is the last one before the FATAL and the end. */
const fatalAfter =
  (last: number) => (chunk: Buffer, at: number, client: { end(): void; write(b: Buffer): boolean }) => {
    if (at + chunk.length < last) return chunk;
    if (at > last) return Buffer.alloc(0);
    client.write(Buffer.concat([chunk.subarray(0, last - at), FATAL]));
    client.end();
    return Buffer.alloc(0);
  };

/** Anything but OK and what says that the database is at fault would be a lie or a crash. */
const attempt = async (call: () => Promise<unknown>): Promise<string> => {
  try {
    await call();
    return 'OK';
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return error.code;
  }
};

// Story: a FATAL in the same segment as a new connection's first ReadyForQuery met a client without a listener for errors
// and ended the process: ending all backends every 50 ms, as a failover does, crashed it within half a second.
test('a FATAL within any message of a connection’s life costs the calls that use it, and nothing else', async () => {
  // How much a connection brings that serves a read, a write and a transaction.
  let length = 0;
  network.meddle((chunk, at) => {
    length = Math.max(length, at + chunk.length);
    return chunk;
  });
  const work = async (): Promise<string[]> => {
    const read = () => sidecar.grpc.unary(rpc.fetchPolicyVersions, {}, { timeoutMs: 5_000 });
    const transaction = async () => {
      const { transaction: begun } = await sidecar.grpc.unary(tx.begin, {}, { timeoutMs: 5_000 });
      await sidecar.grpc.unary(tx.commit, { transactionId: begun!.id! }, { timeoutMs: 5_000 });
    };
    return Promise.all([attempt(read), attempt(transaction)]);
  };
  network.cut();
  await vi.waitFor(async () => expect(await work()).toEqual(['OK', 'OK']));
  expect(length).toBeGreaterThan(500);
  const told = new Set<string>();
  // No message is shorter than five bytes; past the start of a connection they repeat themselves.
  for (let last = 1; last <= length; last += last < START_BYTES ? 2 : 11) {
    network.meddle(fatalAfter(last));
    network.cut();
    for (const code of await work()) told.add(code);
  }
  network.meddle(undefined);
  network.cut();
  expect(
    [...told].filter((code) => !['OK', 'UNAVAILABLE', 'FAILED_PRECONDITION', 'DEADLINE_EXCEEDED'].includes(code)),
  ).toEqual([]);
  expect(told).toContain('UNAVAILABLE');
  await vi.waitFor(async () => expect(await work()).toEqual(['OK', 'OK']));
  expect(sidecar.log().filter(({ code }) => code === 'INTERNAL')).toEqual([]);
}, 180_000);

test('every backend ended again and again while calls come in', async () => {
  const pids = `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
    and application_name like 'policy-sidecar%'`;
  const direct = await startTestSidecar({ poolWaitMs: 1_000 }, database.url);
  let ending = true;
  let ended = 0;
  const ender = (async () => {
    while (ending) ended += (await direct.sql(pids).catch(() => [])).length;
  })();
  const codes = new Map<string, number>();
  const call = async (): Promise<void> => {
    for (let turn = 0; turn < 40; turn += 1) {
      const code = await attempt(() => sidecar.grpc.unary(rpc.fetchPolicyVersions, {}, { timeoutMs: 5_000 }));
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  await Promise.all(Array.from({ length: 8 }, call));
  ending = false;
  await ender;
  await direct.stop();
  expect(ended).toBeGreaterThan(0);
  expect(codes.get('OK')).toBeGreaterThan(0);
  expect([...codes.keys()].filter((code) => !['OK', 'UNAVAILABLE'].includes(code))).toEqual([]);
  await vi.waitFor(async () => {
    expect(await attempt(() => sidecar.grpc.unary(rpc.fetchPolicyVersions, {}))).toBe('OK');
  });
}, 60_000);

// A savepoint is let go without waiting: an error of that which nobody takes would end the process.
test('a backend that dies while a savepoint is let go is the news of whoever goes on', async () => {
  network.meddle((chunk, _at, client) => {
    if (!chunk.includes('RELEASE\0')) return chunk;
    client.destroy();
    return Buffer.alloc(0);
  });
  try {
    const { transaction } = await sidecar.grpc.unary(tx.begin, {});
    const id = transaction!.id!;
    const operations = [{ request: { case: 'fetchPolicyVersions' as const, value: {} } }];
    const { results } = await sidecar.grpc.unary(tx.execute, { operations }, { transaction: id });
    expect(results).toHaveLength(1);
    await vi.waitFor(async () => expect((await sidecar.grpc.unary(tx.list, {})).transactions).toEqual([]));
    expect(await refusal(sidecar.grpc.unary(tx.commit, { transactionId: id }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'TRANSACTION_LOST',
    });
  } finally {
    network.meddle(undefined);
  }
});
