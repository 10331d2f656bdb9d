import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { gzipSync } from 'node:zlib';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import type { GenService } from '@bufbuild/protobuf/codegenv2';
import { type EmptySchema, FileDescriptorProtoSchema, file_google_protobuf_empty } from '@bufbuild/protobuf/wkt';
import { describe, expect, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { ServerReflection } from '../../src/gen/grpc/reflection/v1/reflection_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { createLog } from '../../src/log.ts';
import { controlEndpoints } from '../../src/server/endpoint.ts';
import { startServer } from '../../src/server/sidecar.ts';
import { useSidecar } from '../support/use.ts';
import {
  answerOf,
  envelope,
  exchange,
  framed,
  http1Request,
  openCall,
  openH2,
  pathOf,
  rawCall,
} from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const REFLECT = ServerReflection.method.serverReflectionInfo;

const sidecar = useSidecar();

describe.each(['grpcAddress', 'httpAddress'] as const)('%s', (port) => {
  // Over HTTP it was INTERNAL.
  test.each([
    [Buffer.from([0xff, 0xff, 0xff]), 3],
    [Buffer.from([0x0a, 0x02, 0xc3, 0x28]), 3],
  ])('reflection refuses what is no message: %j', async (bytes, status) => {
    const session = openH2(sidecar.server[port]!);
    const stream = openCall(session, pathOf(REFLECT));
    const answer = answerOf(stream);
    stream.end(envelope(bytes));
    expect(await answer).toMatchObject({ status, reason: 'MALFORMED_REQUEST' });
    session.close();
  });

  test.each([
    ['none', []],
    ['several', [{}, {}]],
  ])('a call of one request that has %s is refused', async (_number, requests) => {
    const session = openH2(sidecar.server[port]!);
    const stream = openCall(session, pathOf(READ));
    const answer = answerOf(stream);
    stream.end(Buffer.concat(requests.map((request) => framed(READ, request))));
    expect(await answer).toMatchObject({ status: 12 });
    expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    session.close();
  });

  // A timer beyond 2^31 ms fires at once.
  // Over gRPC it ran, and what was done soon was answered.
  test.each(['0n', '0m', '00000000H'])('a deadline of %s has passed', async (deadline) => {
    const session = openH2(sidecar.server[port]!);
    const before = sidecar.log().length;
    const answer = await rawCall(session, Health.method.check, {}, { 'grpc-timeout': deadline });
    expect(answer).toMatchObject({ status: 4, reason: 'DEADLINE_EXCEEDED' });
    expect(sidecar.log().slice(before)).toMatchObject([{ code: 'DEADLINE_EXCEEDED' }]);
    session.close();
  });

  test.each(['2147483648m', '99999999S', '99999999M', '99999999H'])(
    'a deadline of %s is far away',
    async (deadline) => {
      const session = openH2(sidecar.server[port]!);
      const short = deadline.replace('2147483648m', '2147484S');
      expect(await rawCall(session, READ, {}, { 'grpc-timeout': short })).toMatchObject({ status: 0 });
      session.close();
    },
  );
});

/** Headers and trailers of a call, without those of HTTP itself. */
const headersOf = async (headers: OutgoingHttpHeaders): Promise<Readonly<Record<string, unknown>>[]> => {
  const session = openH2(sidecar.server.grpcAddress);
  const stream = openCall(session, pathOf(READ), headers);
  const found: Readonly<Record<string, unknown>>[] = [];
  const keep = (of: IncomingHttpHeaders) =>
    found.push(Object.fromEntries(Object.entries(of).filter(([name]) => name !== 'date')));
  stream.on('response', keep).on('trailers', keep).resume();
  stream.end(framed(READ, {}));
  await once(stream, 'close');
  session.close();
  return found;
};

test('an answer over gRPC says what it must, and not what is meant where nothing is said', async () => {
  expect(await headersOf({})).toEqual([
    { ':status': 200, 'content-type': 'application/grpc+proto' },
    { 'grpc-status': '0' },
  ]);
});

test('a caller that compresses in a way that nobody here knows is told which are known', async () => {
  expect(await headersOf({ 'grpc-encoding': 'br' })).toMatchObject([
    { 'grpc-status': '12', 'grpc-accept-encoding': 'identity,deflate,gzip' },
  ]);
});

test.each(['2147483647', '2147483648', '9999999999'])('a deadline of %s ms is far away', async (ms) => {
  const request = http1Request(
    pathOf(READ),
    ['content-type: application/json', `connect-timeout-ms: ${ms}`],
    Buffer.from('{}'),
  );
  expect(await exchange(sidecar.server.httpAddress!, request)).toMatch(/^HTTP\/1.1 200/);
});

describe('what arrives in pieces', () => {
  const tight = useSidecar({ maxMessageBytes: 4_096, maxRequestBytes: 8_192 });

  // A stream whose requests go on after it has been turned away is answered once.
  test('requests of a stream that have no room are refused, and the server goes on', async () => {
    const session = openH2(tight.server.grpcAddress);
    const stream = openCall(session, pathOf(REFLECT));
    const answer = answerOf(stream);
    const request = framed(REFLECT, { messageRequest: { case: 'listServices', value: 'x'.repeat(3_000) } });
    stream.end(Buffer.concat([request, request, request]));
    expect(await answer).toMatchObject({ status: 8, reason: 'REQUEST_BYTES_EXHAUSTED' });
    expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    session.close();
  });

  // The library said so by itself: without a reason, as INTERNAL, and the log had nothing, or another reason.
  describe.each([
    ['with one response', READ],
    ['with a stream of them', PolicyEngineService.method.streamRiskCeilings],
    ['with streams both ways', REFLECT],
  ])('a call %s whose request cannot be read is refused by its reason, and logged with it', (_what, method) => {
    const large = envelope(Buffer.alloc(4_097));
    test.each([
      ['is too large', large, undefined, 'REQUEST_TOO_LARGE', 'RESOURCE_EXHAUSTED', 8],
      ['unfolds to too much', envelope(gzipSync(large), 1), 'gzip', 'REQUEST_TOO_LARGE', 'RESOURCE_EXHAUSTED', 8],
      ['is no gzip', envelope(Buffer.from('no gzip'), 1), 'gzip', 'MALFORMED_REQUEST', 'INVALID_ARGUMENT', 3],
      [
        'ends in the middle',
        envelope(Buffer.alloc(100)).subarray(0, 9),
        undefined,
        'MALFORMED_REQUEST',
        'INVALID_ARGUMENT',
        3,
      ],
      [
        'has half of another behind it',
        Buffer.from([0, 0, 0, 0, 0, 0, 0]),
        undefined,
        'MALFORMED_REQUEST',
        'INVALID_ARGUMENT',
        3,
      ],
      [
        'is half of gzip',
        envelope(gzipSync(large).subarray(0, 20), 1),
        'gzip',
        'MALFORMED_REQUEST',
        'INVALID_ARGUMENT',
        3,
      ],
    ])('it %s', async (_how, body, encoding, reason, code, status) => {
      for (const port of ['grpcAddress', 'httpAddress'] as const) {
        const before = tight.log().length;
        const session = openH2(tight.server[port]!);
        const stream = openCall(session, pathOf(method), encoding ? { 'grpc-encoding': encoding } : {});
        const answer = answerOf(stream);
        stream.end(body);
        expect(await answer).toMatchObject({ status, reason });
        expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
        expect(tight.log().slice(before)).toMatchObject([
          { method: expect.stringContaining(method.name), reason, code },
          { method: 'PolicyEngineService/FetchRiskCeilings', code: 'OK' },
        ]);
        session.close();
      }
    });
  });

  test('a deadline that passes before the request is complete is told, and the call has its line in the log', async () => {
    const session = openH2(sidecar.server.grpcAddress);
    const stream = openCall(session, pathOf(READ), { 'grpc-timeout': '150m' });
    const answer = answerOf(stream);
    stream.write(framed(READ, {}).subarray(0, 3));
    expect(await answer).toMatchObject({ status: 4, reason: 'DEADLINE_EXCEEDED' });
    expect(sidecar.log()).toContainEqual(
      expect.objectContaining({ method: 'PolicyEngineService/FetchRiskCeilings', reason: 'DEADLINE_EXCEEDED' }),
    );
    session.close();
  });
});

describe('work that goes on after its deadline', () => {
  const emptyFile = file_google_protobuf_empty.proto;
  const file = create(FileDescriptorProtoSchema, {
    name: 'late.proto',
    package: 'late',
    syntax: 'proto3',
    dependency: [emptyFile.name],
    service: [
      {
        name: 'Worker',
        method: [{ name: 'Work', inputType: '.google.protobuf.Empty', outputType: '.google.protobuf.Empty' }],
      },
    ],
  });
  const worker = createFileRegistry(file, () => emptyFile).getService('late.Worker')! as GenService<{
    work: { methodKind: 'unary'; input: typeof EmptySchema; output: typeof EmptySchema };
  }>;
  const work = worker.methods[0]!;
  const finish: (() => void)[] = [];
  const handle = () => new Promise<Record<string, never>>((resolve) => finish.push(() => resolve({})));

  test('its caller is told at the deadline, and what comes after that is nobody’s', async () => {
    const server = await startServer(
      { ...loadConfig([], {}), grpcListen: '127.0.0.1:0', httpListen: undefined, drainTimeoutMs: 0 },
      {
        url: sidecar.url,
        log: createLog('error', { write: () => {} }),
        services: [{ service: worker, writes: false, endpoints: controlEndpoints(worker, { work: { handle } }) }],
      },
    );
    const session = openH2(server.grpcAddress);
    const call = (headers = {}) => {
      const stream = openCall(session, pathOf(work), headers);
      stream.end(envelope(Buffer.alloc(0)));
      return answerOf(stream);
    };
    expect(await call({ 'grpc-timeout': '100m' })).toMatchObject({ status: 4, reason: 'DEADLINE_EXCEEDED' });
    finish.shift()!();
    const next = call();
    await vi.waitFor(() => expect(finish).toHaveLength(1));
    finish.shift()!();
    expect(await next).toMatchObject({ status: 0 });
    session.close();
    await server.stop();
  });
});

// Story: the end of each answer took a turn of the event loop and a write of its own, on the caller's side a read more.
test('the end of an answer goes out with its message', async () => {
  const seen: number[] = [];
  let all: (() => number) | undefined;
  const onStream = (started: unknown): void => {
    const { stream } = started as { readonly stream: ServerHttp2Stream };
    const { socket } = stream.session!;
    const before = socket.bytesWritten;
    all = () => socket.bytesWritten - before;
    const look = (): unknown => seen.push(all!());
    // Node writes before it turns to what was put off until the next turn.
    stream.once('wantTrailers', () => {
      look();
      setImmediate(look);
    });
  };
  const session = openH2(sidecar.server.grpcAddress);
  expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
  subscribe('http2.server.stream.start', onStream);
  expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
  unsubscribe('http2.server.stream.start', onStream);
  expect(seen).toEqual([0, all!()]);
  session.close();
});
