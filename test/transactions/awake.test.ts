import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { Awake } from '../../src/transactions/awake.ts';

/** For how many milliseconds this thread sleeps while that long passes. */
const asleep = async (ms: number): Promise<number> => {
  const before = performance.eventLoopUtilization();
  await sleep(ms);
  return performance.eventLoopUtilization(before).idle;
};

// Story: a transaction of seven calls took three times as long as without the sidecar, and half of that was waking up.
test('a server stays awake for what comes next in a transaction, not for long, and not where many are open', async ({
  skip,
}) => {
  if (availableParallelism() === 1) {
    console.log('there is one processor, which nobody is to be kept from: staying awake is skipped');
    skip();
  }
  const awake = new Awake(500);
  awake.stay(availableParallelism());
  expect(await asleep(50)).toBeGreaterThan(10);
  awake.stay(1);
  expect(await asleep(50)).toBeLessThan(5);
  await sleep(500);
  expect(await asleep(50)).toBeGreaterThan(10);
});
