import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const ENGINE = pathToFileURL(join(import.meta.dirname, '..', 'src', 'engine.ts')).href;

/** Prints what a tick takes, in ns, in a process whose heap was cleared at a moment without one. */
const TICKS = `
  import { setTimeout as sleep } from 'node:timers/promises';
  if (process.argv[1] === 'prepared') (await import(${JSON.stringify(ENGINE)})).prepareEngine();
  for (let tick = 0; tick < 20; tick += 1) process.nextTick(() => {});
  await sleep(10);
  gc();
  const measure = () => new Promise((resolve) => {
    const began = performance.now();
    let left = 200_000;
    const next = () => (left-- > 0 ? process.nextTick(next) : resolve((performance.now() - began) * 5));
    next();
  });
  const found = [];
  for (let round = 0; round < 5; round += 1) found.push(await measure());
  console.log(Math.min(...found));
`;

const run = async (flag: string, program: string, ...args: readonly string[]): Promise<string> => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    flag,
    '--input-type=module',
    '--eval',
    program,
    ...args,
  ]);
  return stdout;
};

const tickNs = async (...args: readonly string[]): Promise<number> => Number(await run('--expose-gc', TICKS, ...args));

// Story: of servers that were alike some took a third more for each call than others, from some moment on and for ever. Which
// ones was a matter of where a clearing of the heap had met them.
test('ticks stay fast where the heap is cleared between two of them', async () => {
  const prepared = await tickNs('prepared');
  // Where it is fast without that, there is nothing left to prepare.
  expect((await tickNs()) / prepared).toBeGreaterThan(2);
}, 60_000);

/** Prints how many bytes the young generation has after a start that keeps what it makes. */
const YOUNG = `
  import { getHeapSpaceStatistics } from 'node:v8';
  if (process.argv[1] === 'prepared') (await import(${JSON.stringify(ENGINE)})).prepareEngine();
  const kept = Array.from({ length: 400_000 }, (_, at) => ({ at }));
  const young = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space');
  console.log(young.space_used_size + young.space_available_size, kept.length);
`;

const youngBytes = async (...args: readonly string[]): Promise<number> =>
  Number.parseInt(await run('--no-warnings', YOUNG, ...args), 10);

// Story: every sidecar kept 15 MB in which nothing lay, since its start had filled them once.
test('the young generation stays small while a process starts', async () => {
  expect((await youngBytes()) / (await youngBytes('prepared'))).toBeGreaterThan(4);
}, 60_000);
