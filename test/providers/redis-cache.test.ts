import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { toJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { RecoveryMatcherService } from '../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { redisCache } from '../../src/providers/redis-cache.ts';
import { freePort } from '../support/port.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useFolder } from '../support/use.ts';

const isInstalled = (): boolean => {
  try {
    execFileSync('redis-server', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
};

const installed = isInstalled();
if (!installed) console.log('redis-server is not installed: the suite of the Redis cache is skipped');

const PASSWORD = 'password-that-nobody-may-see';

/** A Redis of this test, with a password. */
const startRedis = async (port: number, folder: string, ...more: string[]): Promise<ChildProcess> => {
  const args = [
    '--port',
    String(port),
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--requirepass',
    PASSWORD,
    '--dir',
    folder,
    ...more,
  ];
  const child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.once('exit', () => reject(new Error('redis-server does not start')));
    child.stdout!.on('data', (text: Buffer) => {
      if (String(text).includes('eady to accept connections')) resolve();
    });
  });
  return child;
};

const stopRedis = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
  });

const eventually = async (what: () => Promise<boolean>): Promise<void> => {
  for (let tries = 0; tries < 100; tries += 1) {
    if (await what()) return;
    await sleep(100);
  }
  throw new Error('it never came about');
};

describe.skipIf(!installed)('Redis', () => {
  let port: number;
  const folder = useFolder();
  let redis: ChildProcess;
  let url: string;
  beforeAll(async () => {
    port = await freePort();
    redis = await startRedis(port, folder);
    url = `redis://:${PASSWORD}@127.0.0.1:${port}`;
  });
  afterAll(async () => {
    if (redis) await stopRedis(redis);
  });

  test('keeps a value for its time, for every process', async () => {
    const warnings: string[] = [];
    // Room for the library to load on a busy machine.
    const [one, other] = [redisCache(url, (each) => warnings.push(each), 10_000), redisCache(url, () => {}, 10_000)];
    const key = randomUUID();
    expect(await one.get(key)).toBe(undefined);
    await one.set(key, 'wört "1"', 60);
    expect(await other.get(key)).toBe('wört "1"');
    await one.set(key, 'v2', 5);
    expect(await other.get(key)).toBe('v2');
    await eventually(async () => (await other.get(key)) === undefined);
    one.close();
    other.close();
    expect(await one.get(key)).toBe(undefined);
    expect(warnings).toEqual([]);
  });

  test('a wrong password is a miss with one warning that does not show it', async () => {
    const warnings: string[] = [];
    const cache = redisCache(url.replace(PASSWORD, `${PASSWORD}-not`), (each) => warnings.push(each), 300);
    await cache.set('k', 'v', 60);
    expect(await cache.get('k')).toBe(undefined);
    expect(warnings).toEqual(['WRONGPASS']);
    cache.close();
  });

  // Story: one that was full, or had become a replica, kept nothing, and nobody was told.
  test('what it refuses is told, once, in its own word', async () => {
    const full = await freePort();
    const server = await startRedis(full, folder, '--maxmemory', '1');
    const warnings: string[] = [];
    const cache = redisCache(url.replace(`:${port}`, `:${full}`), (each) => warnings.push(each), 10_000);
    try {
      for (let call = 0; call < 3; call += 1) {
        await cache.set('k', 'v', 60);
        expect(await cache.get('k')).toBe(undefined);
      }
      expect(warnings).toEqual(['OOM']);
    } finally {
      cache.close();
      await stopRedis(server);
    }
  });

  test('an outage is a miss, and is got over', async () => {
    const warnings: string[] = [];
    const cache = redisCache(url, (each) => warnings.push(each));
    await cache.set('k', 'v', 60);
    expect(await cache.get('k')).toBe('v');
    await stopRedis(redis);
    await eventually(async () => (await cache.get('k')) === undefined);
    const started = performance.now();
    for (let call = 0; call < 20; call += 1) expect(await cache.get('k')).toBe(undefined);
    expect(performance.now() - started).toBeLessThan(1_000);
    expect(warnings).toHaveLength(1);
    redis = await startRedis(port, folder);
    await eventually(async () => {
      await cache.set('k', 'again', 60);
      return (await cache.get('k')) === 'again';
    });
    cache.close();
  });

  // Each call waited for itself, and what it had asked for stayed in memory: the connection is open, and says nothing.
  test('one that stops answering is an outage too, and is got over', async () => {
    const warnings: string[] = [];
    const cache = redisCache(url, (each) => warnings.push(each), 200);
    await eventually(async () => {
      await cache.set('k', 'v', 60);
      return (await cache.get('k')) === 'v';
    });
    warnings.length = 0;
    redis.kill('SIGSTOP');
    try {
      const started = performance.now();
      for (let call = 0; call < 20; call += 1) expect(await cache.get('k')).toBe(undefined);
      expect(performance.now() - started).toBeLessThan(2_000);
      expect(warnings).toEqual(['ETIMEDOUT']);
    } finally {
      redis.kill('SIGCONT');
    }
    await eventually(async () => (await cache.get('k')) === 'v');
    cache.close();
  });

  test('suggestions are shared through it, whatever else wrote there', async () => {
    const sidecar = await startTestSidecar({ redisUrl: url });
    const cache = redisCache(url, () => {});
    try {
      const ask = async (value: string) => {
        await cache.set('recovery:cache:88d961cd534fcae5', value, 60);
        const request = { failurePayload: { errorType: 'E1', raw: 'boom' } };
        const single = { transaction: 'single-use' };
        return sidecar.grpc.unary(RecoveryMatcherService.method.suggestHybrid, request, single);
      };
      const kept = await ask('{"suggestion": "S", "confidence": 0.6, "matched_entry": {"source": "llm"}}');
      expect([kept.suggestedRecovery, kept.confidence]).toEqual(['S', 0.6]);
      expect(toJson(ValueSchema, kept.explain!)).toEqual({ method: 'cache', cache_hit: true });
      expect(toJson(ValueSchema, kept.matchedEntry!)).toEqual({ source: 'llm' });
      const bare = await ask('{"suggestion": null}');
      expect([bare.suggestedRecovery, bare.confidence, bare.matchedEntry]).toEqual([undefined, 0.8, undefined]);
      for (const value of ['', '{', '{}', 'null', '7', '[1]', '"x"', '{"suggestion": 7}', '{"confidence": "1"}']) {
        expect(toJson(ValueSchema, (await ask(value)).explain!)).toMatchObject({ method: 'no_history' });
      }
    } finally {
      cache.close();
      await sidecar.stop();
    }
  });
});

describe('a Redis that is none', () => {
  test('nobody there: a miss at once, one warning', async () => {
    const warnings: string[] = [];
    const cache = redisCache(`redis://:${PASSWORD}@127.0.0.1:${await freePort()}`, (each) => warnings.push(each), 300);
    const started = performance.now();
    await cache.set('k', 'v', 60);
    for (let call = 0; call < 20; call += 1) expect(await cache.get('k')).toBe(undefined);
    expect(performance.now() - started).toBeLessThan(1_500);
    expect(warnings).toEqual(['ECONNREFUSED']);
    cache.close();
  });

  test('somebody who says nothing: a miss after the wait', async () => {
    const sockets: Socket[] = [];
    const server: Server = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const cache = redisCache(`redis://127.0.0.1:${port}`, () => {}, 200);
    const started = performance.now();
    for (let call = 0; call < 20; call += 1) expect(await cache.get('k')).toBe(undefined);
    expect(performance.now() - started).toBeLessThan(2_000);
    cache.close();
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });

  test('closing what was never used', () => {
    redisCache('redis://127.0.0.1:1', () => {}).close();
  });
});
