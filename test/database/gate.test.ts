import { expect, test } from 'vitest';
import { Gate } from '../../src/database/gate.ts';
import { Ending } from '../../src/database/signal.ts';

const WAIT_MS = 100;

// One clock serves all who wait: whoever comes while it runs has a time of his own.
test('whoever waits is let go when his own time is up, and a place that comes free goes to who is left', async () => {
  const gate = new Gate('test', { slots: 1, queue: 3, waitMs: WAIT_MS });
  const leave = await gate.enter(undefined);
  const waits = async (): Promise<number> => {
    const began = performance.now();
    await expect(gate.enter(undefined)).rejects.toMatchObject({ reason: 'CONNECTION_WAIT_TIMEOUT' });
    return performance.now() - began;
  };
  const first = waits();
  await new Promise((resolve) => setTimeout(resolve, WAIT_MS / 2));
  const second = waits();
  expect(gate.pending).toBe(2);
  for (const waited of await Promise.all([first, second])) expect(waited).toBeGreaterThanOrEqual(WAIT_MS - 1);
  expect(gate.pending).toBe(0);
  const third = gate.enter(undefined);
  leave();
  (await third)();
  expect(gate.tryEnter()).toBeDefined();
});

test('seats go to those who take one, in their order; the others keep their turn, and who has left gets nothing', async () => {
  const gate = new Gate<string>('test', { slots: 1, queue: 10, waitMs: 10_000 });
  const leave = await gate.enter(undefined);
  const leaving = new Ending();
  const standing = gate.enter(undefined);
  const left = gate.enterOrSit(leaving);
  const [first, second, third] = [1, 2, 3].map(() => gate.enterOrSit(undefined));
  leaving.abort(new Error('left'));
  await expect(left).rejects.toThrow('left');
  const seats = ['a', 'b'];
  gate.offer(() => seats.shift());
  expect(await Promise.all([first, second])).toEqual(['a', 'b']);
  expect(gate.pending).toBe(2);
  leave();
  (await standing)();
  expect(await third).toBeInstanceOf(Function);
  expect(gate.pending).toBe(0);
  gate.offer(() => 'nobody takes it');
  expect(gate.tryEnter()).toBeUndefined();
});
