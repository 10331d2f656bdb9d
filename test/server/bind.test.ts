import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { bind } from '../../src/server/bind.ts';
import { ConfigError } from '../../src/setting-forms.ts';
import { useFolder } from '../support/use.ts';

const folder = useFolder(beforeEach, afterEach);

const open = (listen: string, socketMode = 0o660) =>
  bind({ listen, socketMode, keepAliveMs: 1_000 }, (socket) => socket.on('error', () => {}).end('here'));

const problem = async (listen: string): Promise<string> => {
  const error = await open(listen).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(ConfigError);
  const { message } = error as Error;
  expect(message).not.toContain('\n');
  return message;
};

describe('a socket file', () => {
  test.each([0o660, 0o600, 0o666])('has the mode %o', async (mode) => {
    const path = join(folder, 'a.sock');
    const bound = await open(`unix:${path}`, mode);
    expect(statSync(path).mode & 0o777).toBe(mode);
    await bound.close();
    expect(existsSync(path)).toBe(false);
  });

  /** A process that is killed leaves its socket behind. */
  const leave = (path: string): void => {
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 9))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(statSync(path).isSocket()).toBe(true);
  };

  // It blocked every later start.
  test('that a killed process left behind is replaced', async () => {
    const path = join(folder, 'b.sock');
    leave(path);
    const bound = await open(`unix:${path}`);
    const [said] = (await once(connect(path), 'data')) as [Buffer];
    expect(said.toString()).toBe('here');
    await bound.close();
  });

  test('that somebody serves is refused and goes on being served', async () => {
    const path = join(folder, 'c.sock');
    const first = await open(`unix:${path}`);
    expect(await problem(`unix:${path}`)).toMatch(/in use by another process/);
    const [said] = (await once(connect(path), 'data')) as [Buffer];
    expect(said.toString()).toBe('here');
    await first.close();
  });

  // Story: of two starts the slower one took the other's socket for the one that it had judged, since a file system may give
  // the number of a file that is gone to the next, and nobody reached the faster one any more.
  test('that another start has just put in the place of one left behind is refused and goes on being served', async () => {
    const path = join(folder, 'e.sock');
    for (let round = 0; round < 10; round += 1) {
      leave(path);
      const slower = problem(`unix:${path}`);
      unlinkSync(path);
      const faster = createServer((socket) => socket.end('there')).listen(path);
      expect(await slower).toMatch(/in use by another process/);
      const [said] = (await once(connect(path), 'data')) as [Buffer];
      expect(said.toString()).toBe('there');
      faster.close();
      await once(faster, 'close');
    }
  });

  test('that is no socket is refused and stays', async () => {
    const path = join(folder, 'd.sock');
    writeFileSync(path, 'precious');
    expect(await problem(`unix:${path}`)).toMatch(/no socket/);
    expect(existsSync(path)).toBe(true);
  });
});

describe('an address that cannot be had is told in one line', () => {
  test('in use', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    expect(await problem(`127.0.0.1:${port}`)).toBe(
      `cannot listen on 127.0.0.1:${port}: it is in use by another process`,
    );
    taken.close();
  });

  test.each([
    ['no.such.host.invalid:1', /cannot be resolved/],
    ['192.0.2.1:1', /does not have that address/],
    [`unix:/no/such/folder/x.sock`, /no such folder/],
    [`unix:/tmp/${'x'.repeat(200)}`, /too long/],
  ])('%s', async (listen, line) => {
    expect(await problem(listen)).toMatch(line);
  });
});
