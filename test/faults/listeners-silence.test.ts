import { once } from 'node:events';
import { constants } from 'node:http2';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { describe, expect, test, vi } from 'vitest';
import { ServerReflection } from '../../src/gen/grpc/reflection/v1/reflection_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CONNECTION_LIMITS } from '../../src/server/connections.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';
import {
  answerOf,
  exchange,
  framed,
  http1Request,
  openCall,
  openH2,
  openTcp,
  pathOf,
  rawCall,
} from '../support/wire.ts';

const HOLD = TransactionService.method.hold;
const REFLECT = ServerReflection.method.serverReflectionInfo;
const READ = PolicyEngineService.method.fetchRiskCeilings;

/** A hundredth of what is served with. */
const FAST = Object.fromEntries(
  Object.entries(CONNECTION_LIMITS).map(([name, ms]) => [name, ms / 100]),
) as unknown as typeof CONNECTION_LIMITS;

// Beside the limits of connections, the lease that bounds a transaction held over HTTP/1.1.
const sidecar = useSidecar(() => startTestSidecar({ transactionIdleLeaseMaxMs: 400 }, undefined, FAST));

/** Passes bytes on until it is told to swallow them: no end of a connection is told either. */
const blackHole = async (address: string) => {
  const sockets = new Set<Socket>();
  let swallowing = false;
  const server = createServer((client) => {
    const at = address.lastIndexOf(':');
    const upstream = connectTcp(Number(address.slice(at + 1)), address.slice(0, at));
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {});
      from.on('data', (chunk) => {
        if (!swallowing) to.write(chunk);
      });
      from.on('close', () => {
        if (!swallowing) to.destroy();
      });
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as { port: number }).port}`,
    swallow: () => {
      swallowing = true;
    },
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
};

const held = async (): Promise<number> =>
  (await sidecar.grpc.unary(TransactionService.method.list, {})).transactions.length;

describe('a transaction whose holder has vanished without a word is rolled back', () => {
  test('the limits that are served with add up to less than 45 s', () => {
    const { pingMs, pingTimeoutMs } = CONNECTION_LIMITS;
    expect(2 * pingMs + pingTimeoutMs).toBeLessThan(60_000);
    expect(pingMs + pingTimeoutMs).toBeLessThan(45_000);
  });

  test.each([
    ['gRPC', 'grpcAddress', 'application/grpc'],
    ['gRPC on the HTTP port', 'httpAddress', 'application/grpc'],
    ['Connect over HTTP/2', 'httpAddress', 'application/connect+proto'],
  ] as const)('%s', async (_what, port, type) => {
    const proxy = await blackHole(sidecar.server[port]!);
    const session = openH2(proxy.address);
    const stream = openCall(session, pathOf(HOLD), { 'content-type': type });
    stream.end(framed(HOLD, { begin: { label: 'held' } }));
    await once(stream, 'data');
    expect(await held()).toBe(1);
    // Longer than any of the limits: as long as the holder is there, so is the transaction.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(await held()).toBe(1);
    proxy.swallow();
    const vanished = performance.now();
    await vi.waitFor(async () => expect(await held()).toBe(0), { timeout: 5_000, interval: 10 });
    // 450 ms here are 45 s there.
    expect(performance.now() - vanished).toBeLessThan(450 + 200);
    session.destroy();
    proxy.close();
  });

  test('Connect over HTTP/1.1', async () => {
    const proxy = await blackHole(sidecar.server.httpAddress!);
    const socket = openTcp(proxy.address);
    socket.write(http1Request(pathOf(HOLD), ['content-type: application/connect+proto'], framed(HOLD, {})));
    await once(socket, 'data');
    const [begun] = (await sidecar.grpc.unary(TransactionService.method.list, {})).transactions;
    proxy.swallow();
    await vi.waitFor(async () => expect(await held()).toBe(0), { timeout: 5_000, interval: 10 });
    expect(begun?.idleLease).toMatchObject({ seconds: 0n, nanos: 400_000_000 });
    expect(sidecar.log().filter(({ how }) => how === 'idle for 400 ms')).not.toHaveLength(0);
    socket.destroy();
    proxy.close();
  });

  test('over HTTP/1.1 the lease is at most 40 s, and calls renew it', async () => {
    const own = await startTestSidecar({}, sidecar.url);
    const socket = openTcp(own.server.httpAddress!);
    const begin = { idleLease: { seconds: 300n, nanos: 0 } };
    socket.write(http1Request(pathOf(HOLD), ['content-type: application/connect+proto'], framed(HOLD, { begin })));
    await once(socket, 'data');
    const listed = async () => (await own.grpc.unary(TransactionService.method.list, {})).transactions[0]!;
    const begun = await listed();
    expect(begun.idleLease?.seconds).toBe(40n);
    await vi.waitFor(async () => {
      await own.grpc.unary(READ, {}, { transaction: begun.id! });
      expect(timestampMs((await listed()).expiresAt!)).toBeGreaterThan(timestampMs(begun.expiresAt!));
    });
    socket.destroy();
    await vi.waitFor(async () =>
      expect((await own.grpc.unary(TransactionService.method.list, {})).transactions).toEqual([]),
    );
    await own.stop();
  });
});

const closedWithin = async (socket: Socket, ms: number): Promise<void> => {
  const started = performance.now();
  socket.resume();
  await once(socket, 'close');
  expect(performance.now() - started).toBeLessThan(ms);
};

describe('connections that say nothing, or half of something, are closed', () => {
  const body = toBinary(READ.input, create(READ.input, {}));
  const request = http1Request(pathOf(READ), ['content-type: application/proto'], body).toString('latin1');
  const keepAlive = request.replace('connection: close\r\n', '');
  const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

  test.each([
    ['httpAddress', 'nothing', ''],
    ['httpAddress', 'one letter', 'P'],
    ['httpAddress', 'half a line', 'POST /'],
    ['httpAddress', 'half the headers', request.slice(0, 40)],
    ['httpAddress', 'half a body', request.replace(/content-length: \d+/, 'content-length: 100')],
    ['httpAddress', 'half a preface', preface.slice(0, 10)],
    ['httpAddress', 'a preface without settings', preface],
    ['grpcAddress', 'nothing', ''],
    ['grpcAddress', 'half a preface', preface.slice(0, 10)],
    ['grpcAddress', 'a preface without settings', preface],
  ] as const)('%s: %s', async (port, _what, bytes) => {
    const socket = openTcp(sidecar.server[port]!);
    await once(socket, 'connect');
    if (bytes) socket.write(bytes, 'latin1');
    await closedWithin(socket, 3_000);
  });

  test('HTTP/1.1 without a call', async () => {
    const socket = openTcp(sidecar.server.httpAddress!);
    socket.write(keepAlive, 'latin1');
    await once(socket, 'data');
    await closedWithin(socket, FAST.idleMs + 5_000);
  });

  test.each(['grpcAddress', 'httpAddress'] as const)('HTTP/2 without a call: %s', async (port) => {
    const session = openH2(sidecar.server[port]!);
    expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    const started = performance.now();
    await once(session, 'close');
    expect(performance.now() - started).toBeLessThan(FAST.idleMs + 2_000);
  });

  test.each(['grpcAddress', 'httpAddress'] as const)('a call over HTTP/2 whose body does not end: %s', async (port) => {
    const session = openH2(sidecar.server[port]!);
    const stream = openCall(session, pathOf(READ));
    const answer = answerOf(stream);
    stream.write(Buffer.from([0, 0]));
    if (port === 'grpcAddress') expect(await answer).toMatchObject({ status: 4, reason: 'REQUEST_TIMEOUT' });
    // There the library reads the body, and has said nothing yet.
    else await expect(answer).rejects.toThrow(`no status, reset with ${constants.NGHTTP2_CANCEL}`);
    session.destroy();
  });
});

// The first segment may be as short as the network likes.
// The HTTP port ended it like a request that does not end.
test.each(['grpcAddress', 'httpAddress'] as const)('a stream of requests may pause for long: %s', async (port) => {
  const session = openH2(sidecar.server[port]!);
  const request = framed(REFLECT, { messageRequest: { case: 'listServices', value: '' } });
  const stream = openCall(session, pathOf(REFLECT));
  stream.write(request);
  await once(stream, 'data');
  const late = openCall(session, pathOf(READ)).resume();
  await once(late, 'close');
  stream.write(request);
  await once(stream, 'data');
  const answer = answerOf(stream);
  stream.end();
  expect(await answer).toMatchObject({ status: 0 });
  session.close();
});

test.each(['P', 'PO', 'POS'])('a first segment of exactly "%s" is the beginning of a request', async (first) => {
  const body = toBinary(READ.input, create(READ.input, {}));
  const request = http1Request(pathOf(READ), ['content-type: application/proto'], body);
  const socket = openTcp(sidecar.server.httpAddress!);
  socket.setNoDelay(true);
  await once(socket, 'connect');
  socket.write(first);
  await new Promise((resolve) => setTimeout(resolve, 30));
  socket.write(request.subarray(first.length));
  const [data] = (await once(socket, 'data')) as [Buffer];
  expect(data.toString('latin1')).toMatch(/^HTTP\/1.1 200/);
  socket.destroy();
});

test.each([1, 2, 3, 10])('a first segment of %i bytes of HTTP/2 is, too', async (length) => {
  const socket = openTcp(sidecar.server.httpAddress!);
  socket.setNoDelay(true);
  await once(socket, 'connect');
  const bytes = Buffer.concat([
    Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
    Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]),
  ]);
  socket.write(bytes.subarray(0, length));
  await new Promise((resolve) => setTimeout(resolve, 30));
  socket.write(bytes.subarray(length));
  const [data] = (await once(socket, 'data')) as [Buffer];
  // Its own settings come first.
  expect(data[3]).toBe(4);
  socket.destroy();
});

test.each(['[', 'a b', '%', 'x:99999999'])('a request whose host is "%s" is answered', async (host) => {
  const request = `POST ${pathOf(READ)} HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`;
  expect(await exchange(sidecar.server.httpAddress!, Buffer.from(request))).toMatch(/^HTTP\/1.1 4/);
  expect((await sidecar.grpc.unary(READ, {})).riskCeilings).not.toHaveLength(0);
});
