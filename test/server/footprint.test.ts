import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, expect, inject, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, startCommand } from '../support/command.ts';
import { useDatabase } from '../support/use.ts';
import { openH2, rawCall } from '../support/wire.ts';

/** Tells at the end what of Node itself the process has loaded. */
const TELLTALE = `--import=data:text/javascript,${encodeURIComponent(
  `process.on('exit', () => process.stderr.write('LOADED ' + process.moduleLoadList.join(',') + '\\n'));`,
)}`;

const READ = PolicyEngineService.method.fetchRiskCeilings;

const database = useDatabase();
afterAll(endAll);

/** What a server with those options of Node's has told on its standard error when it ends after a call. */
const afterACall = async (options: string): Promise<string> => {
  const sidecar = startCommand(['serve'], { DATABASE_URL: database.url, NODE_OPTIONS: options });
  const caller = grpcCaller((await sidecar.serving()).grpc);
  await caller.unary(READ, {});
  caller.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  return sidecar.err();
};

// Story: an import of Node's HTTP asks it for all that it exports. One of that was a WebSocket, with a whole client of HTTP
// behind it: 15 MB and a sixth of the start, of which nothing was ever used.
test('a server of gRPC loads of Node what it uses, and no client of HTTP', async () => {
  const loaded = /^LOADED (.*)$/m.exec(await afterACall(TELLTALE))![1]!.split(',');
  expect(loaded).toContain('NativeModule http2');
  expect(loaded.filter((name) => /undici/.test(name))).toEqual([]);
});

/** Tells of every file that is loaded. */
const FILES = `--import=data:text/javascript,${encodeURIComponent(
  `import { registerHooks } from 'node:module';
   registerHooks({ load: (url, context, next) => (process.stderr.write('FILE ' + url + '\\n'), next(url, context)) });`,
)}`;

// Story: a command that looks at a server's files was imported beside the one that serves. Every server loaded what checks such
// a file, a sixth of a megabyte of it, though it had none.
test('a server loads nothing of other commands, and nothing that it has not been given a setting for', async () => {
  const files = [...(await afterACall(FILES)).matchAll(/^FILE .*\/([^/]+)$/gm)].map(([, name]) => name!);
  expect(files).toContain('sidecar.js');
  expect(files.filter((name) => /ajv|^authorization|doctor|contract-check|opentelemetry|sdk/.test(name))).toEqual([]);
});

/** Tells how many MB the young heap has room for, over and over; more for the moment in which it is full and being cleared. */
const YOUNG = `--import=data:text/javascript,${encodeURIComponent(
  `import { getHeapSpaceStatistics } from 'node:v8';
   setInterval(() => {
     const young = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space');
     const bytes = young.space_used_size + young.space_available_size;
     process.stderr.write('YOUNG ' + Math.ceil(bytes / 2 ** 20) + '\\n');
   }, 20).unref();`,
)}`;

// Story: 256 callers together got three quarters of what 64 got, since what they were waiting for was looked through over and
// over by clearings of a young heap that had no room for it; and with room for so many, 64 kept 10 MB in which nothing lay.
test('a server keeps a small young heap after its start, and lets it grow as far as its calls need', async () => {
  const sidecar = startCommand(['serve'], { DATABASE_URL: database.url, NODE_OPTIONS: YOUNG });
  const sessions = await sidecar.serving().then(({ grpc }) => Array.from({ length: 4 }, () => openH2(grpc)));
  const sizes = (): number[] => [...sidecar.err().matchAll(/^YOUNG (\d+)$/gm)].map(([, size]) => Number(size));
  /** The size that is told more often than all others together, of as many as come now. */
  const usual = async (count: number): Promise<number | undefined> => {
    const { length: before } = sizes();
    const coming = (): number[] => sizes().slice(before);
    await vi.waitFor(() => expect(coming().length).toBeGreaterThanOrEqual(count), { timeout: 60_000 });
    const told = coming();
    return told.find((size) => told.filter((other) => other === size).length > told.length / 2);
  };
  /** With so many calls under way it grows to that size, and stays there. */
  const under = async (calls: number, size: number): Promise<void> => {
    let isOver = false;
    const caller = async (_: unknown, index: number): Promise<void> => {
      while (!isOver) await rawCall(sessions[index % sessions.length]!, READ, {});
    };
    const callers = Array.from({ length: calls }, caller);
    await vi.waitFor(async () => expect(await usual(10)).toBe(size), { timeout: 60_000 });
    expect(await usual(100)).toBe(size);
    isOver = true;
    await Promise.all(callers);
  };
  expect(await usual(3)).toBeLessThan(4);
  await under(64, 8);
  await under(400, 16);
  for (const session of sessions) session.close();
}, 180_000);

/** Tells of every time the heap is cleared, and of what grew old then; clears it as a whole when asked to. */
const COLLECTIONS = `--import=data:text/javascript,${encodeURIComponent(
  `import { setFlagsFromString } from 'node:v8';
   import { runInNewContext } from 'node:vm';
   for (const flag of ['--trace-gc', '--trace-gc-nvp', '--expose-gc']) setFlagsFromString(flag);
   const clear = runInNewContext('gc');
   process.on('SIGUSR2', () => {
     clear();
     process.stderr.write('CLEARED\\n');
   });`,
)}`;

/** Bytes of a call that grew old, in each of several rounds of so many calls in one process. */
const grownOldOf = async (rounds: readonly number[]): Promise<number[]> => {
  const sidecar = startCommand(['serve'], { DATABASE_URL: database.url, NODE_OPTIONS: COLLECTIONS });
  const session = openH2((await sidecar.serving()).grpc);
  const calls = async (count: number): Promise<void> => {
    let left = count;
    const caller = async (): Promise<void> => {
      for (; left > 0; left -= 1) expect(await rawCall(session, Health.method.check, {})).toMatchObject({ status: 0 });
    };
    await Promise.all(Array.from({ length: 16 }, caller));
  };
  /** Clears the heap as a whole: what there is then has grown old. */
  const clear = async (): Promise<void> => {
    const before = sidecar.err().length;
    sidecar.child.kill('SIGUSR2');
    await vi.waitFor(() => expect(sidecar.err().slice(before)).toContain('CLEARED'));
  };
  for (const count of rounds) {
    await calls(count);
    await clear();
  }
  session.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  const collections = [...sidecar.out().matchAll(/GC: (\{.*\})$/gm)].map(([, text]) => JSON.parse(text!));
  const grownOld: number[] = [];
  let young: number[] = [];
  for (const { gc, reason, promoted } of collections) {
    if (gc === 's') young.push(promoted);
    // One that was under way already when the heap was to be cleared is told by itself.
    if (reason !== 'testing' || young.length === 0) continue;
    expect(young.length).toBeGreaterThan(3);
    grownOld.push(young.reduce((bytes, each) => bytes + each, 0) / rounds[grownOld.length]!);
    young = [];
  }
  expect(grownOld).toHaveLength(rounds.length);
  return grownOld;
};

// Story: Node keeps a stream that has closed until the heap is cleared as a whole, where it has not run often enough yet to be
// fast. Whatever the stream led to grew old with it, the request, the answer and all that was made for them.
// Story: what Node keeps its open streams in led from each table that was full to the next. One that had grown old held all that
// came after it: half of what each call left behind grew old, and every second, clearing that took 50 ms from the calls.
test('what a call leaves in memory is gone by the next time the young heap is cleared', async () => {
  // Of processes that begin on a busy machine one in a few has calls grow old for as long as it lives; the next decides anew.
  await vi.waitFor(async () => {
    const [, young, , old] = await grownOldOf([2_000, 8_000, 40_000, 8_000]);
    expect(young).toBeLessThan(1_500);
    expect(old).toBeLessThan(300);
  });
}, 180_000);

test('the compiled program is ASCII, of which a character takes one byte', async () => {
  const folder = dirname(inject('program'));
  const files = (await readdir(folder)).filter((file) => file.endsWith('.js'));
  expect(files).toContain('sidecar.js');
  expect(files.filter((file) => readFileSync(join(folder, file)).some((byte) => byte > 127))).toEqual([]);
});
