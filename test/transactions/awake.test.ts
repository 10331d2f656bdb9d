import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { useSidecar } from '../support/use.ts';

const CALLS = 50;
/** Now and then the process has something of its own to do, which counts as well. */
const ROUNDS = 9;
const { method: rpc } = PolicyEngineService;
const { method: tx } = TransactionService;

/** So many open transactions are more than half of the processors. */
const MANY = Math.floor(availableParallelism() / 2) + 1;

const sidecar = useSidecar({ transactionsMax: MANY, transactionFirstUseMs: 300_000, transactionIdleLeaseMs: 300_000 });

const begin = async (): Promise<string> => (await sidecar.grpc.unary(tx.begin, {})).transaction!.id!;
const read = (init = {}) => sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, init);

/** How often this process looks for something to do while some calls are made one after the other; most of the time. */
const turnsOf = async (call: () => Promise<unknown>): Promise<number> => {
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { loopCount } = performance.nodeTiming.uvMetricsInfo;
    for (let count = 0; count < CALLS; count += 1) await call();
    rounds.push(performance.nodeTiming.uvMetricsInfo.loopCount - loopCount);
  }
  return rounds.sort((a, b) => a - b)[Math.floor(ROUNDS / 2)]!;
};

// Story: a transaction of seven calls took three times as long as without the sidecar, and half of that was waking up.
test('a server stays awake for what comes next in a transaction, not for long, and not where many are open', async ({
  skip,
}) => {
  if (availableParallelism() === 1) {
    console.log('there is one processor, which nobody is to be kept from: staying awake is skipped');
    skip();
  }
  const ids = [await begin()];
  const inside = () => read({ transaction: ids[0]! });
  // Who is kept from its processor looks less often.
  await vi.waitFor(async () => expect(await turnsOf(inside)).toBeGreaterThan(4 * (await turnsOf(read))));
  const before = performance.eventLoopUtilization();
  await sleep(100);
  expect(performance.eventLoopUtilization(before).idle).toBeGreaterThan(20);
  while (ids.length < MANY) ids.push(await begin());
  await vi.waitFor(async () => expect(await turnsOf(inside)).toBeLessThan(2 * (await turnsOf(read))));
  for (const transactionId of ids) await sidecar.grpc.unary(tx.rollback, { transactionId });
});
