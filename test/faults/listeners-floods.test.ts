import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { gzipSync } from 'node:zlib';
import { create, toBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { useClient, useDatabase } from '../support/use.ts';
import { answerOf, envelope, framed, openCall, openH2, openTcp, pathOf, rawCall } from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const WRITE = PolicyEngineService.method.resetRiskCeiling;
const INSERT = PolicyEngineService.method.insertViolation;
const TOKEN = 'secret';
const MIB = 1024 * 1024;

const database = useDatabase();
const client = useClient(() => database.url);
let child: ChildProcess;
const address: Record<'grpc' | 'http', string> = { grpc: '', http: '' };

// A process of its own, so that its memory can be told.
beforeAll(async () => {
  const tokens = join(import.meta.dirname, '..', 'support', 'tokens');
  child = spawn(
    process.execPath,
    [
      inject('program'),
      'serve',
      '--grpc-listen',
      '127.0.0.1:0',
      '--http-listen',
      '127.0.0.1:0',
      '--tokens-file',
      tokens,
    ],
    {
      env: { PATH: process.env['PATH'], DATABASE_URL: database.url, SIDECAR_LOG_LEVEL: 'silent' },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  for await (const line of createInterface({ input: child.stdout! })) {
    const [, name, at] = /^(gRPC|HTTP) +(\S+)/.exec(line) ?? [];
    if (name) address[name.toLowerCase() as 'grpc' | 'http'] = at!;
    if (address.http) break;
  }
  child.stdout!.resume();
}, 120_000);
afterAll(async () => {
  if (child?.exitCode === null) {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
});

const bearer = { authorization: `Bearer ${TOKEN}` };

/** Resident memory of the server, bytes. */
const resident = (): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) * 1024;

/** The most resident memory that was seen while work ran, beyond what there was before. */
const growth = async (work: () => Promise<unknown>): Promise<number> => {
  const before = resident();
  let most = before;
  const watch = setInterval(() => {
    most = Math.max(most, resident());
  }, 20);
  await work().finally(() => clearInterval(watch));
  return Math.max(most, resident()) - before;
};

const frame = (type: number, flags: number, stream: number, payload: Buffer): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
};

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** Frames that come in, as they come in. */
const framesFrom = (socket: Socket): { type: number; payload: Buffer }[] => {
  const frames: { type: number; payload: Buffer }[] = [];
  let rest = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    for (;;) {
      const end = rest.length < 9 ? Number.POSITIVE_INFINITY : 9 + rest.readUIntBE(0, 3);
      if (rest.length < end) return;
      frames.push({ type: rest[3]!, payload: rest.subarray(9, end) });
      rest = rest.subarray(end);
    }
  });
  return frames;
};

/** Header fields without Huffman coding and without a table to keep. */
const headerBlock = (more: Readonly<Record<string, string>> = {}): Buffer =>
  Buffer.concat(
    Object.entries({
      ':method': 'POST',
      ':scheme': 'http',
      ':path': pathOf(READ),
      ':authority': 'localhost',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...more,
    }).map(([name, value]) =>
      Buffer.concat([
        Buffer.from([0, name.length]),
        Buffer.from(name),
        Buffer.from([value.length]),
        Buffer.from(value),
      ]),
    ),
  );

describe.each(['grpc', 'http'] as const)('resets on the %s port', (port) => {
  // nghttp2 by itself closes a connection that sends 1,000 resets at once, or 33 a second.
  test('ordinary deadlines during a slow query leave the connection alone', async () => {
    const { rows } = await client.query('select id from policy.risk_ceilings limit 1');
    await client.query('begin');
    await client.query('select from policy.risk_ceilings for update');
    const session = openH2(address[port]);
    let resets = 0;
    const one = async (): Promise<void> => {
      const stream = openCall(session, pathOf(WRITE), { ...bearer, transaction: 'single-use' });
      stream.end(framed(WRITE, { ceilingId: rows[0].id }));
      setTimeout(() => stream.close(8), 60);
      await new Promise((resolve) => stream.once('close', resolve));
      resets += 1;
    };
    for (let round = 0; round < 4; round += 1) await Promise.all(Array.from({ length: 400 }, one));
    expect(resets).toBe(1_600);
    await client.query('rollback');
    expect(session.closed || session.destroyed).toBe(false);
    // What those calls left in the queue for the database is gone soon.
    await vi.waitFor(async () => expect(await rawCall(session, READ, {}, bearer)).toMatchObject({ status: 0 }), 20_000);
    session.close();
  }, 60_000);

  test('an attack by rapid resets ends its connection, and others do not notice', async () => {
    const other = openH2(address[port]);
    const socket = openTcp(address[port]);
    await once(socket, 'connect');
    socket.resume();
    socket.write(Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(0))]));
    const headers = headerBlock();
    for (let id = 1; id < 600_000 && !socket.destroyed; id += 2_000) {
      const frames = Array.from({ length: 1_000 }, (_, index) => {
        const stream = id + 2 * index;
        return Buffer.concat([frame(1, 4, stream, headers), frame(3, 0, stream, Buffer.from([0, 0, 0, 8]))]);
      });
      socket.write(Buffer.concat(frames));
      await new Promise(setImmediate);
    }
    await vi.waitFor(() => expect(socket.closed).toBe(true), { timeout: 50_000 });
    expect(await rawCall(other, READ, {}, bearer)).toMatchObject({ status: 0 });
    other.close();
  }, 90_000);
});

describe.each(['grpc', 'http'] as const)('memory on the %s port', (port) => {
  // They cost 825 MB, which stayed.
  test('bombs of callers without a token are not unpacked', async () => {
    const bomb = gzipSync(Buffer.alloc(200 * MIB));
    const grown = await growth(async () => {
      const session = openH2(address[port]);
      const answers = await Promise.all(
        Array.from({ length: 20 }, () => {
          const stream = openCall(session, pathOf(INSERT), { 'grpc-encoding': 'gzip' });
          const answer = answerOf(stream);
          stream.end(envelope(bomb, 1));
          return answer;
        }),
      );
      session.close();
      for (const { status } of answers) expect(status).toBe(16);
    });
    expect(grown).toBeLessThan(60 * MIB);
  }, 60_000);

  test('bombs of a caller with a token stay within the budget', async () => {
    const bomb = gzipSync(Buffer.alloc(200 * MIB));
    const grown = await growth(async () => {
      const session = openH2(address[port]);
      const answers = await Promise.all(
        Array.from({ length: 100 }, () => {
          const stream = openCall(session, pathOf(INSERT), { ...bearer, 'grpc-encoding': 'gzip' });
          const answer = answerOf(stream);
          stream.end(envelope(bomb, 1));
          return answer;
        }),
      );
      session.close();
      for (const { status } of answers) expect(status).toBe(8);
      expect(answers.map(({ reason }) => reason)).toContain('REQUEST_BYTES_EXHAUSTED');
      expect(await rawCall(openH2(address[port]), READ, {}, bearer)).toMatchObject({ status: 0 });
    });
    expect(grown).toBeLessThan(200 * MIB);
  }, 60_000);

  // They cost 700 MB and 15 s of silence.
  test('10,000 streams that one connection opens, whatever it has been told', async () => {
    const told = openH2(address[port]);
    await once(told, 'remoteSettings');
    expect(told.remoteSettings.maxConcurrentStreams).toBe(1_000);
    told.close();
    const grown = await growth(async () => {
      const socket = openTcp(address[port]);
      await once(socket, 'connect');
      const heard = framesFrom(socket);
      socket.write(Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(0))]));
      const headers = headerBlock(bearer);
      socket.write(Buffer.concat(Array.from({ length: 10_000 }, (_, index) => frame(1, 4, 1 + 2 * index, headers))));
      const other = openH2(address[port]);
      const started = performance.now();
      expect(await rawCall(other, READ, {}, bearer)).toMatchObject({ status: 0 });
      expect(performance.now() - started).toBeLessThan(3_000);
      const refused = () => heard.filter(({ type, payload }) => type === 3 && payload.readUInt32BE() === 7).length;
      // After so many refusals the connection may be given up.
      await vi.waitFor(() => expect(socket.closed || refused() === 9_000).toBe(true), { timeout: 20_000 });
      expect(refused()).toBeGreaterThan(0);
      other.close();
      socket.destroy();
    });
    expect(grown).toBeLessThan(100 * MIB);
  }, 60_000);
});

describe('what a request costs is known before it is paid', () => {
  /** The longest time in which nobody else was answered, milliseconds. */
  const silence = async (work: () => Promise<unknown>): Promise<number> => {
    const session = openH2(address.grpc);
    let longest = 0;
    let over = false;
    const watching = (async () => {
      while (!over) {
        const started = performance.now();
        await rawCall(session, Health.method.check, {});
        longest = Math.max(longest, performance.now() - started);
      }
    })();
    await work();
    over = true;
    await watching;
    session.close();
    return longest;
  };

  const key = (index: number): string => index.toString(36);

  /** What others may have to wait, milliseconds: more where this machine takes long to read such a document, too. */
  const bearable = (keys: number): number => {
    const body = `{${Array.from({ length: keys }, (_, index) => `"${key(index)}":1`).join()}}`;
    const began = performance.now();
    JSON.parse(body);
    return Math.max(3_000, 3 * (performance.now() - began));
  };

  // It blocked everybody for 6 s, ten times what it takes to parse it.
  test('a document of very many keys in JSON', async () => {
    const keys = Array.from({ length: 380_000 }, (_, index) => `"${key(index)}":1`).join();
    const body = `{"evidence":{${keys}}}`;
    expect(body.length).toBeLessThan(4 * MIB);
    const longest = await silence(async () => {
      const response = await fetch(`http://${address.http}${pathOf(INSERT)}`, {
        method: 'POST',
        headers: { ...bearer, 'content-type': 'application/json', transaction: 'single-use' },
        body,
      });
      expect(response.status).toBe(429);
      expect(await response.json()).toMatchObject({ details: [{ debug: { reason: 'REQUEST_TOO_COMPLEX' } }] });
    });
    expect(longest).toBeLessThan(bearable(380_000));
  });

  test.each(['grpc', 'http'] as const)('a document of very many keys in protobuf: %s', async (port) => {
    const fields = Object.fromEntries(
      Array.from({ length: 230_000 }, (_, index) => [
        key(index),
        { kind: { case: 'boolValue' as const, value: true } },
      ]),
    );
    const message = create(INSERT.input, { evidence: { kind: { case: 'structValue', value: { fields } } } });
    const bytes = envelope(toBinary(INSERT.input, message));
    expect(bytes.length).toBeLessThan(4 * MIB);
    const longest = await silence(async () => {
      const session = openH2(address[port]);
      const stream = openCall(session, pathOf(INSERT), { ...bearer, transaction: 'single-use' });
      const answer = answerOf(stream);
      stream.end(bytes);
      expect(await answer).toMatchObject({ status: 8, reason: 'REQUEST_TOO_COMPLEX' });
      session.close();
    });
    expect(longest).toBeLessThan(bearable(230_000));
  });

  test('what is just within the limit is taken without keeping others waiting', async () => {
    const keys = Array.from({ length: 99_000 }, (_, index) => `"${key(index)}":1`).join();
    const longest = await silence(async () => {
      const response = await fetch(`http://${address.http}${pathOf(INSERT)}`, {
        method: 'POST',
        headers: { ...bearer, 'content-type': 'application/json', transaction: 'single-use' },
        body: `{"violationId":"5b0c2b1e-0000-4000-8000-000000000001","violationType":"x","severity":0.5,"description":"d",
          "routedToGovernor":false,"detectedAt":"2026-01-01T00:00:00Z","evidence":{${keys}}}`,
      });
      expect(await response.json()).toMatchObject({ rowsAffected: '1' });
      expect(response.status).toBe(200);
    });
    console.log(`a document of 99,000 keys keeps others waiting for ${longest.toFixed(0)} ms`);
    expect(longest).toBeLessThan(6_000);
  });

  test('a request of more than 4 MiB is refused', async () => {
    const session = openH2(address.grpc);
    const answer = await rawCall(
      session,
      PolicyEngineService.method.fetchViolations,
      { agentId: 'x'.repeat(5 * MIB) },
      bearer,
    );
    expect(answer.status).toBe(8);
    session.close();
  });
});

test('uploads that are never finished hold no more than the budget, and give it back', async () => {
  const uploads = Array.from({ length: 50 }, () => {
    const socket = openTcp(address.http);
    const upload = { socket, answer: '' };
    socket.on('data', (chunk) => {
      upload.answer += chunk;
    });
    return upload;
  });
  /** Those that do not fit beside the others, if each of those has been taken as far as it goes. */
  const beyond = uploads.length - Math.floor((64 * MIB) / (3 * MIB));
  const grown = await growth(async () => {
    for (const { socket } of uploads) {
      socket.write(
        [
          `POST ${pathOf(INSERT)} HTTP/1.1`,
          'host: localhost',
          `authorization: ${bearer.authorization}`,
          'transaction: single-use',
          'content-type: application/json',
          'content-length: 4000000',
          '',
          '{',
        ].join('\r\n'),
      );
      socket.write(Buffer.alloc(3 * MIB, 0x20));
    }
    const answered = () => uploads.filter(({ answer }) => answer !== '');
    await vi.waitFor(() => expect(answered().length).toBeGreaterThanOrEqual(beyond), { timeout: 20_000 });
    for (const { answer } of answered()) expect(answer).toMatch(/^HTTP\/1.1 429 .*"REQUEST_BYTES_EXHAUSTED"/s);
    expect(answered().length).toBeLessThan(uploads.length);
  });
  expect(grown).toBeLessThan(200 * MIB);
  for (const { socket } of uploads) socket.destroy();
  const whole = Buffer.concat([Buffer.from('{'), Buffer.alloc(3 * MIB, 0x20), Buffer.from('}')]);
  await vi.waitFor(async () => {
    const headers = { ...bearer, 'content-type': 'application/json', transaction: 'single-use' };
    const { status } = await fetch(`http://${address.http}${pathOf(INSERT)}`, { method: 'POST', headers, body: whole });
    // It is read to its end, and lacks every field.
    expect(status).toBe(400);
  });
});
