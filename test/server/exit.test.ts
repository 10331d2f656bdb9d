import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { watchLag } from '../support/lag.ts';
import { useFolder } from '../support/use.ts';

const folder = useFolder(beforeEach, afterEach);

/** Holds the end of a process: a read that never ends keeps one of libuv's threads, as the look-up of a name can. */
const HELD = `import fs from 'node:fs';
fs.read(fs.openSync(process.argv[1], 'r+'), Buffer.alloc(1), 0, 1, null, () => {});`;

/** Runs a program that has 300 ms to drain; ends it with a signal as soon as it is up. */
const terminated = async (program: string, signal: NodeJS.Signals) => {
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const text = `import { Exit } from './src/exit.ts';
const exit = new Exit(() => console.log('cut off'));
exit.onSignal(300);
setInterval(() => {}, 1000);
${program}
console.log('up');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', text, pipe], {
    cwd: join(import.meta.dirname, '..', '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  await expect.poll(() => out, { timeout: 60_000 }).toContain('up');
  const lagMs = watchLag();
  const began = performance.now();
  child.kill(signal);
  const killer = setTimeout(() => child.kill('SIGKILL'), 30_000);
  const [code, by] = await once(child, 'close');
  clearTimeout(killer);
  return { ended: code ?? by, out, ms: performance.now() - began, lagMs: 2 * lagMs() };
};

test('what does not end is cut off within the drain time and a second', async () => {
  const { ended, out, ms, lagMs } = await terminated('', 'SIGTERM');
  expect(ended).toBe(1);
  expect(out).toContain('cut off');
  expect(ms).toBeGreaterThan(300);
  expect(ms).toBeLessThan(1_300 + lagMs);
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('so is what even an exit would wait for, by %s', async (signal) => {
  const { ended, ms, lagMs } = await terminated(HELD, signal);
  expect(ended).toBe(signal);
  expect(ms).toBeLessThan(1_300 + lagMs);
});

test('so is an exit that is under way, when a name is still looked up', async () => {
  const { ended, ms, lagMs } = await terminated(`${HELD}\nvoid exit.requested.then(() => exit.leave(0));`, 'SIGTERM');
  expect(ended).toBe('SIGTERM');
  expect(ms).toBeLessThan(1_300 + lagMs);
});

test('what ends by itself ends with its own code', async () => {
  const { ended, ms, lagMs } = await terminated('void exit.requested.then(() => exit.leave(7));', 'SIGTERM');
  expect(ended).toBe(7);
  expect(ms).toBeLessThan(1_000 + lagMs);
});
