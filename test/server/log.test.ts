import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, constants, existsSync, openSync, readSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { createLog, Lines } from '../../src/log.ts';
import { refusal } from '../support/client.ts';
import { useFolder, useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };
const PAYLOAD = 'what nobody but the caller may read';

const sidecar = useSidecar();

const insert = (violationId: string, init = {}) =>
  sidecar.grpc.unary(
    rpc.insertViolation,
    {
      violationId,
      violationType: 'x',
      severity: 0.5,
      description: PAYLOAD,
      evidence: jsonToValue({ [PAYLOAD]: PAYLOAD }),
      routedToGovernor: false,
      detectedAt: { seconds: 1n, nanos: 0 },
    },
    { ...single, ...init },
  );

/** Lines about a method, waited for: a line may be written after its answer. */
const linesOf = (method: string, count: number) =>
  vi.waitFor(() => {
    const lines = sidecar.log().filter((line) => line['method'] === method);
    expect(lines).toHaveLength(count);
    return lines;
  });

/** The one line written since; it may come after its answer. */
const lineAfter = (before: number) =>
  vi.waitFor(() => {
    const lines = sidecar.log().slice(before);
    expect(lines).toHaveLength(1);
    return lines[0]!;
  });

const LINE = { level: 'info', peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/), caller: 'local', msg: 'call' };

test('a call is one line that says what, who, how long and how it ended, and nothing of what was said', async () => {
  const id = randomUUID();
  await insert(id);
  await refusal(insert(id));
  const lines = await linesOf('PolicyEngineService/InsertViolation', 2);
  expect(lines).toMatchObject([
    { ...LINE, code: 'OK', ms: expect.any(Number), transaction: 'single-use' },
    {
      ...LINE,
      code: 'ALREADY_EXISTS',
      reason: 'UNIQUE_VIOLATION',
      sqlstate: '23505',
      constraint: 'violations_pkey',
      database: { sqlstate: '23505', schema: 'policy', table: 'violations' },
    },
  ]);
  const all = JSON.stringify(sidecar.log());
  for (const secret of [PAYLOAD, id, 'insert into']) expect(all).not.toContain(secret);
});

// The reason alone left whoever read the log to guess which of a dozen fields it was.
test.each(['grpc', 'connect'] as const)('a refusal over %s names the fields, not their values', async (listener) => {
  const before = sidecar.log().length;
  await refusal(sidecar[listener].unary(rpc.fetchViolations, { agentId: `${PAYLOAD}\0`, limit: -7 }));
  const line = await lineAfter(before);
  expect(line).toMatchObject({ ...LINE, code: 'INVALID_ARGUMENT', reason: 'INVALID_REQUEST' });
  expect(line['fields']).toEqual(['agent_id', 'limit']);
  expect(JSON.stringify(line)).not.toMatch(/nobody|-7/);
});

// The HTTP library refused it by itself, and nothing was written.
test('a request that cannot be read is a line too, without what it held', async () => {
  const before = sidecar.log().length;
  await fetch(`http://${sidecar.server.httpAddress}/${PolicyEngineService.typeName}/FetchViolations`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"secret": 1}',
  });
  const line = await lineAfter(before);
  expect(line).toMatchObject({ method: 'PolicyEngineService/FetchViolations', reason: 'MALFORMED_REQUEST' });
  expect(JSON.stringify(line)).not.toContain('secret');
});

// The caller's own clock ends the call a moment sooner, and the line said that the caller had cancelled it.
test.each(['grpc', 'connect'] as const)('a deadline that passes over %s is called that', async (listener) => {
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
  await sidecar.grpc.unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, { transaction: transaction!.id! });
  const before = sidecar.log().length;
  const late = { transaction: 'single-use', timeoutMs: 300 };
  await refusal(sidecar[listener].unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, late));
  expect(await lineAfter(before)).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: 'DEADLINE_EXCEEDED' });
  await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
});

// What a browser or an engine sends is read when there is time: its own clock had been running by then, and ended the call
// as if its caller had cancelled it.
test.each(['grpc', 'connect'] as const)(
  'a deadline over %s that began long before its request was read',
  async (listener) => {
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    await sidecar.grpc.unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, { transaction: transaction!.id! });
    const before = sidecar.log().length;
    const late = { transaction: 'single-use', timeoutMs: 300 };
    const calling = refusal(sidecar[listener].unary(rpc.activateVersionExclusively, { versionId: '1.0.0' }, late));
    // A quarter of what is allowed for: a machine under load adds the rest by itself.
    for (const began = performance.now(); performance.now() - began < 25; );
    await calling;
    expect(await lineAfter(before)).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: 'DEADLINE_EXCEEDED' });
    await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
  },
);

// Begin and Commit were lines of no transaction, and those between them of one that nothing had begun or ended.
test('what begins, uses and ends a transaction is told apart by it', async () => {
  const before = sidecar.log().length;
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
  await sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction: transaction!.id! });
  await sidecar.grpc.unary(TransactionService.method.commit, { transactionId: transaction!.id! });
  const told = sidecar.log().slice(before);
  expect(told.map((line) => line['transaction'])).toEqual(Array(3).fill(transaction!.id!.slice(0, 10)));
});

test('a transaction that its lease ends is told with who began it; its id cannot be used from the log', async () => {
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {
    label: 'nightly import',
    idleLease: durationFromMs(1),
  });
  const ended = await vi.waitFor(() => {
    const line = sidecar.log().find(({ msg }) => msg === 'transaction ended by the sidecar');
    expect(line).toBeDefined();
    return line!;
  });
  expect(ended).toMatchObject({ level: 'warn', caller: 'local', label: 'nightly import', how: 'idle for 1 ms' });
  expect(transaction!.id!.startsWith(ended['transaction'] as string)).toBe(true);
  expect(JSON.stringify(sidecar.log())).not.toContain(transaction!.id);
});

// Story: the reset of a reader's connection was logged as a database that does not answer.
describe('a reader that leaves in the middle of a stream is logged as cancelled', () => {
  const METHOD = 'PolicyEngineService/StreamConflicts';
  beforeAll(async () => {
    await sidecar.sql(`insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
      select 'a', 'b', 'x', repeat('x', 1000) from generate_series(1, 50000)`);
  });

  test('over gRPC', async () => {
    for await (const _ of sidecar.grpc.stream(rpc.streamConflicts, {})) break;
    const [line] = await linesOf(METHOD, 1);
    expect(line).toMatchObject({ ...LINE, code: 'CANCELLED', reason: 'CANCELLED' });
  });

  test.each([
    ['closes its connection', (response: IncomingMessage) => response.destroy()],
    ['resets its connection', (response: IncomingMessage) => response.socket.resetAndDestroy()],
  ])('over HTTP, when it %s', async (_how, leave) => {
    const before = sidecar.log().filter(({ method }) => method === METHOD).length;
    const sent = request(`http://${sidecar.server.httpAddress}/${PolicyEngineService.typeName}/StreamConflicts`, {
      method: 'POST',
      headers: { 'content-type': 'application/connect+json' },
    });
    sent.on('error', () => {});
    sent.end(Buffer.from([0, 0, 0, 0, 2, 0x7b, 0x7d]));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.on('error', () => {});
    await once(response, 'readable');
    leave(response);
    const lines = await linesOf(METHOD, before + 1);
    expect(lines.at(-1)).toMatchObject({ ...LINE, code: 'CANCELLED', reason: 'CANCELLED' });
  });
});

test('a line has the moment that it was written at, to the millisecond', () => {
  const lines: string[] = [];
  const log = createLog('info', { write: (line) => lines.push(line) });
  vi.useFakeTimers({ toFake: ['Date'] });
  try {
    const moments = [
      '2026-02-28T23:59:59.007Z',
      '2026-02-28T23:59:59.999Z',
      '2026-03-01T00:00:00.000Z',
      '1999-12-31T00:00:00.070Z',
    ];
    for (const moment of moments) {
      vi.setSystemTime(moment);
      log.info('said');
    }
    expect(lines.map((line) => JSON.parse(line).time)).toEqual(moments);
  } finally {
    vi.useRealTimers();
  }
});

describe('lines to a descriptor', () => {
  const folder = useFolder(beforeEach, afterEach);

  const openPipe = (): { read: number; write: number } => {
    const path = join(folder, 'pipe');
    if (!existsSync(path)) execFileSync('mkfifo', [path]);
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    return { read, write: openSync(path, constants.O_WRONLY | constants.O_NONBLOCK) };
  };

  /** What is in the pipe now, as bytes. */
  const taken = (fd: number): string => {
    const buffer = Buffer.alloc(1 << 16);
    try {
      return buffer.toString('latin1', 0, readSync(fd, buffer));
    } catch {
      return '';
    }
  };

  const told = (count: number): string => `(${count})\n`;

  test('a stuck reader costs a bounded number of bytes, and gets every line or its count, in order', async () => {
    const { read, write } = openPipe();
    const lines = new Lines(write, told);
    const line = `${'é'.repeat(999)}\n`;
    const before = process.memoryUsage().rss;
    for (let sent = 0; sent < 200_000; sent += 1) lines.write(line);
    lines.flushSync();
    expect(process.memoryUsage().rss - before).toBeLessThan(50_000_000);
    let text = '';
    await vi.waitFor(() => {
      for (let part = taken(read); part; part = taken(read)) text += part;
      expect(text.endsWith(')\n')).toBe(true);
    }, 10_000);
    text = Buffer.from(text, 'latin1').toString();
    const kept = text.split('\n').filter((each) => each === line.trimEnd()).length;
    expect(kept).toBeGreaterThan(1_000);
    expect(text === `${line.repeat(kept)}${told(200_000 - kept)}`).toBe(true);
    lines.write('after\n');
    lines.flushSync();
    expect(taken(read)).toBe('after\n');
    for (const fd of [read, write]) closeSync(fd);
  });

  // Story: lines went out once a turn of the event loop, before the ends of the answers that they told of; a write for almost
  // every call cost a fifth of it.
  test('lines of several turns go out together, a little later', async () => {
    const { read, write } = openPipe();
    const lines = new Lines(write, told);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      for (const word of ['one\n', 'two\n', 'three\n']) {
        lines.write(word);
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(taken(read)).toBe('');
      vi.advanceTimersByTime(10);
      expect(taken(read)).toBe('one\ntwo\nthree\n');
      lines.write('four\n');
      vi.advanceTimersByTime(10);
      expect(taken(read)).toBe('four\n');
    } finally {
      vi.useRealTimers();
      for (const fd of [read, write]) closeSync(fd);
    }
  });

  test('a reader that has gone and another that comes: it is told what it missed', async () => {
    const { read, write } = openPipe();
    const lines = new Lines(write, told);
    closeSync(read);
    for (const word of ['one\n', 'two\n', 'three\n']) {
      lines.write(word);
      lines.flushSync();
    }
    const next = openPipe();
    closeSync(next.write);
    lines.write('four\n');
    lines.flushSync();
    lines.write('five\n');
    lines.flushSync();
    expect(taken(next.read)).toBe(`${told(4)}five\n`);
    for (const fd of [next.read, write]) closeSync(fd);
  });
});
