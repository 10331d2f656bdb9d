import { create, toBinary } from '@bufbuild/protobuf';
import { Code, createClient } from '@connectrpc/connect';
import { createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { describe, expect, test, vi } from 'vitest';
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../src/gen/grpc/health/v1/health_pb.ts';
import {
  ExtensionRequestSchema,
  ServerReflection,
  type ServerReflectionRequest,
} from '../../src/gen/grpc/reflection/v1/reflection_pb.ts';
import { ServerReflection as Alpha } from '../../src/gen/grpc/reflection/v1alpha/reflection_pb.ts';
import { access } from '../../src/gen/hoc/cus/policies/v1/access_pb.ts';
import {
  FetchViolationsRequestSchema,
  PolicyEngineService,
} from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';
import { envelope, exchange, http1Request, pathOf } from '../support/wire.ts';

const SERVICE = PolicyEngineService.typeName;
const RECORD = PolicyEngineService.method.recordTemporalMetricEvents;
const KEY = '5b0c2b1e-0000-4000-8000-000000000001';

const sidecar = useSidecar({ maxMessageBytes: 16 * 1024 * 1024 });

const MALFORMED = { type: 'google.rpc.ErrorInfo', debug: { reason: 'MALFORMED_REQUEST', domain: 'policies.hoc' } };

const post = (path: string, body: string | Buffer<ArrayBuffer>, headers: Record<string, string> = {}) =>
  fetch(`http://${sidecar.server.httpAddress}/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  });

const raw = (bytes: Buffer, method = 'FetchViolations', transaction?: string): Promise<ServiceError | null> => {
  const client = new Client(sidecar.server.grpcAddress, credentials.createInsecure());
  const metadata = new Metadata();
  if (transaction) metadata.set('transaction', transaction);
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      `/${SERVICE}/${method}`,
      (value: Buffer) => value,
      (value: Buffer) => value,
      bytes,
      metadata,
      (error) => {
        client.close();
        resolve(error);
      },
    );
  });
};

// Story: what was left of a body that nobody read any more stood before the next request of the connection, which hung.
test.each(['application/grpc-web+proto', 'application/connect+proto'])(
  'a message of %s that is too large leaves its HTTP/1.1 connection to the next request',
  async (type) => {
    const small = await startTestSidecar({ maxMessageBytes: 4_096 });
    const stream = pathOf(PolicyEngineService.method.streamRiskCeilings);
    const large = http1Request(stream, [`content-type: ${type}`], envelope(Buffer.alloc(1 << 20)), true);
    const next = http1Request(pathOf(Health.method.check), ['content-type: application/json'], Buffer.from('{}'));
    const said = await exchange(small.server.httpAddress!, Buffer.concat([large, next]));
    expect(said).toContain('{"status":"SERVING"}');
    await small.stop();
  },
);

describe('JSON over HTTP', () => {
  test('a read', async () => {
    const response = await post(`${SERVICE}/FetchRiskCeilings`, '{}');
    expect(response.status).toBe(200);
    const { riskCeilings } = (await response.json()) as { riskCeilings: { name: string }[] };
    expect(riskCeilings.map(({ name }) => name)).toContain('hourly_cost_ceiling');
  });

  test('a refusal carries code, text and details', async () => {
    const response = await post(`${SERVICE}/FetchViolations`, '{"limit": -1, "severityMin": "NaN"}');
    expect(response.status).toBe(400);
    const body = (await response.json()) as { code: string; details: { type: string }[] };
    expect(body.code).toBe('invalid_argument');
    expect(body.details.map(({ type }) => type)).toEqual(['google.rpc.ErrorInfo', 'google.rpc.BadRequest']);
  });

  test.each([
    ['no JSON', '{'],
    ['a wrong type', '{"agentId": 5}'],
    ['a list', '[]'],
    ['a field of another kind', '{"severityMin": {}}'],
    ['an unknown field', '{"sevreityMin": 0.5}'],
    ['nothing', ''],
  ])('%s is a bad request', async (_what, body) => {
    const response = await post(`${SERVICE}/FetchViolations`, body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'invalid_argument', details: [MALFORMED] });
  });

  // It was answered with what U+FFFD in place of the broken bytes selects; a write would have stored that.
  test('text that is no UTF-8 is a bad request', async () => {
    const response = await post(`${SERVICE}/FetchViolations`, Buffer.from('{"agentId": "\xff"}', 'latin1'));
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'invalid_argument', details: [MALFORMED] });
  });

  // It was INTERNAL, without details: the library refused it before the pipeline saw it.
  test('a binary body that is no message is a bad request', async () => {
    const headers = { 'content-type': 'application/proto' };
    const response = await post(`${SERVICE}/FetchViolations`, Buffer.from([0xff, 0xff, 0xff]), headers);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ code: 'invalid_argument', details: [MALFORMED] });
  });

  test.each([
    ['no JSON', '{', 'invalid_argument', 'MALFORMED_REQUEST'],
    ['too much of it', `"${'x'.repeat(17 * 1024 * 1024)}"`, 'resource_exhausted', 'REQUEST_TOO_LARGE'],
  ])('%s ends a stream with a refusal', async (_what, json, code, reason) => {
    const message = Buffer.from(json);
    const envelope = Buffer.alloc(5);
    envelope.writeUInt32BE(message.length, 1);
    const headers = { 'content-type': 'application/connect+json' };
    const response = await post(`${SERVICE}/StreamViolations`, Buffer.concat([envelope, message]), headers);
    const end = JSON.parse(
      Buffer.from(await response.arrayBuffer())
        .subarray(5)
        .toString(),
    ) as object;
    expect(end).toMatchObject({ error: { code, details: [{ debug: { reason, domain: 'policies.hoc' } }] } });
  });

  test('the transaction header works here too', async () => {
    const body = '{"ceilingId": "00000000-0000-0000-0000-000000000001"}';
    expect((await post(`${SERVICE}/ResetRiskCeiling`, body)).status).toBe(400);
    const response = await post(`${SERVICE}/ResetRiskCeiling`, body, { transaction: 'single-use' });
    expect(response.status).toBe(200);
  });

  test('an unknown method is no method', async () => {
    expect((await post(`${SERVICE}/DropEverything`, '{}')).status).toBe(404);
  });
});

describe('gRPC', () => {
  test('a body that is no message is INVALID_ARGUMENT', async () => {
    expect(await raw(Buffer.from([0xff, 0xff, 0xff]))).toMatchObject({ code: 3 });
    expect(await raw(Buffer.from([0x0a, 0x05, 0x61]))).toMatchObject({ code: 3 });
  });

  test('text that is no UTF-8 is INVALID_ARGUMENT', async () => {
    expect(await raw(Buffer.from([0x0a, 0x02, 0xc3, 0x28]))).toMatchObject({ code: 3 });
  });

  // Clients refuse trailers beyond 8 KiB: the answer to ten wrong operations of Execute was RESOURCE_EXHAUSTED to them.
  test.each([
    ['many wrong fields', { events: Array.from({ length: 10_000 }, () => ({ policyId: 'x' })) }, 30_000],
    ['a text that is quoted', { events: [{ policyId: KEY, metric: 'm', value: 1, agentId: '\0'.repeat(9_000) }] }, 1],
  ])('a refusal of %s fits the trailers of any client', async (_what, request, wrong) => {
    const refused = await refusal(sidecar.grpc.unary(RECORD, request, { transaction: 'single-use' }));
    expect(refused).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_REQUEST' });
    expect(refused.fields.length + Number(refused.metadata['more_fields'] ?? 0)).toBe(wrong);
    const bytes = toBinary(RECORD.input, create(RECORD.input, request));
    const error = await raw(Buffer.from(bytes), RECORD.name, 'single-use');
    const [details] = error!.metadata.get('grpc-status-details-bin') as Buffer[];
    const text = encodeURIComponent(error!.details);
    expect(details!.toString('base64').length + text.length).toBeLessThan(7_500);
  });

  test('the unknown paths of a mask are quoted only as far as they fit', async () => {
    const request = { ceilingId: KEY, updateMask: { paths: ['ü'.repeat(20_000)] } };
    const method = PolicyEngineService.method.updateRiskCeiling;
    const refused = await refusal(sidecar.grpc.unary(method, request, { transaction: 'single-use' }));
    expect(refused.violations).toMatchObject([{ field: 'update_mask', description: expect.stringMatching(/ü…$/) }]);
    expect(encodeURIComponent(refused.message).length).toBeLessThan(2_000);
  });

  test('unknown fields are ignored', async () => {
    const known = toBinary(FetchViolationsRequestSchema, {
      $typeName: FetchViolationsRequestSchema.typeName,
      limit: 0,
    } as never);
    expect(await raw(Buffer.concat([known, Buffer.from([0xf8, 0x07, 0x01])]))).toBeNull();
  });

  test('an unknown method is UNIMPLEMENTED', async () => {
    expect(await raw(Buffer.alloc(0), 'DropEverything')).toMatchObject({ code: 12 });
  });

  test('a request over the limit is RESOURCE_EXHAUSTED, one of 10 MB is served', async () => {
    const description = (length: number) => ({ agentId: 'x'.repeat(length) });
    const fetch = (length: number) =>
      sidecar.grpc.unary(PolicyEngineService.method.fetchViolations, description(length));
    expect((await fetch(10_000_000)).violations).toEqual([]);
    expect(await refusal(fetch(17 * 1024 * 1024))).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
  });
});

describe('other protocols on the HTTP port', () => {
  test.each([
    ['gRPC', () => createGrpcTransport({ baseUrl: `http://${sidecar.server.httpAddress}` })],
    ['gRPC-Web', () => createGrpcWebTransport({ baseUrl: `http://${sidecar.server.httpAddress}`, httpVersion: '1.1' })],
    [
      'gRPC-Web over HTTP/2',
      () => createGrpcWebTransport({ baseUrl: `http://${sidecar.server.httpAddress}`, httpVersion: '2' }),
    ],
  ])('%s', async (_name, transport) => {
    const client = createClient(PolicyEngineService, transport());
    expect((await client.fetchRiskCeilings({})).riskCeilings).not.toHaveLength(0);
    const streamed = [];
    for await (const { riskCeiling } of client.streamRiskCeilings({})) streamed.push(riskCeiling);
    expect(streamed).not.toHaveLength(0);
  });
});

describe('health', () => {
  test.each(['grpc', 'connect'] as const)('as a whole and by service over %s', async (listener) => {
    const check = (service: string) => sidecar[listener].unary(Health.method.check, { service });
    expect((await check('')).status).toBe(Status.SERVING);
    expect((await check(SERVICE)).status).toBe(Status.SERVING);
    expect(await refusal(check('no.Such'))).toMatchObject({ code: 'NOT_FOUND' });
  });

  test('a watch of an unknown service says so and stays open', async () => {
    const abort = new AbortController();
    const seen: Status[] = [];
    const watching = (async () => {
      const stream = sidecar.grpc.stream(Health.method.watch, { service: 'no.Such' }, { signal: abort.signal });
      for await (const { status } of stream) seen.push(status);
    })();
    await vi.waitFor(() => expect(seen).toEqual([Status.SERVICE_UNKNOWN]));
    abort.abort();
    await expect(watching).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

describe('health of a database that goes away', () => {
  test('NOT_SERVING after a while, SERVING when it is back, and calls are UNAVAILABLE meanwhile', async () => {
    const own = await startTestSidecar();
    try {
      const statuses: Status[] = [];
      const abort = new AbortController();
      const watching = (async () => {
        for await (const { status } of own.grpc.stream(Health.method.watch, {}, { signal: abort.signal })) {
          statuses.push(status);
        }
      })().catch(() => {});
      await vi.waitFor(() => expect(statuses).toEqual([Status.SERVING]));
      const name = new URL(own.url).pathname.slice(1);
      const lock = (allowed: boolean) =>
        sidecar.sql(`update pg_database set datallowconn = ${allowed} where datname = '${name}'`);
      await lock(false);
      await sidecar.sql(`select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`);
      const error = await refusal(own.grpc.unary(PolicyEngineService.method.fetchRiskCeilings, {}));
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
      await vi.waitFor(() => expect(statuses).toEqual([Status.SERVING, Status.NOT_SERVING]), { timeout: 15_000 });
      await lock(true);
      await vi.waitFor(() => expect(statuses.at(-1)).toBe(Status.SERVING), { timeout: 15_000 });
      const { riskCeilings } = await own.grpc.unary(PolicyEngineService.method.fetchRiskCeilings, {});
      expect(riskCeilings).not.toHaveLength(0);
      abort.abort();
      await watching;
    } finally {
      await own.stop();
    }
  });
});

describe('reflection', () => {
  const ask = async (
    service: typeof ServerReflection | typeof Alpha,
    question: ServerReflectionRequest['messageRequest'],
    at = sidecar.server,
  ) => {
    const client = createClient(
      service as typeof ServerReflection,
      createGrpcTransport({ baseUrl: `http://${at.grpcAddress}` }),
    );
    const answers = [];
    const questions = (async function* () {
      yield { host: 'h', messageRequest: question };
    })();
    for await (const answer of client.serverReflectionInfo(questions)) answers.push(answer);
    return answers;
  };

  test.each([
    ['v1', ServerReflection],
    ['v1alpha', Alpha],
  ] as const)('%s lists all services and ends when it has been asked everything', async (_name, service) => {
    const [answer, ...rest] = await ask(service, { case: 'listServices', value: '' });
    expect(rest).toEqual([]);
    const { value } = answer!.messageResponse as { value: { service: { name: string }[] } };
    const names = value.service.map(({ name }) => name);
    expect(names).toContain(SERVICE);
    expect(names).toContain('grpc.health.v1.Health');
    expect(names).toContain('grpc.reflection.v1alpha.ServerReflection');
  });

  test('SIDECAR_REFLECTION=off: there is none, and everything else is served', async () => {
    const own = await startTestSidecar({ reflection: false });
    for (const service of [ServerReflection, Alpha]) {
      await expect(ask(service, { case: 'listServices', value: '' }, own.server)).rejects.toMatchObject({
        code: Code.Unimplemented,
      });
    }
    expect((await own.grpc.unary(Health.method.check, {})).status).toBe(Status.SERVING);
    await own.stop();
  });

  test.each([
    `${SERVICE}.FetchViolations`,
    'grpc.health.v1.HealthCheckRequest',
    'google.rpc.ErrorInfo',
    'hoc.cus.policies.v1.ErrorReason',
    'hoc.cus.policies.v1.PolicyViolation.severity',
  ])('%s is found with its imports', async (symbol) => {
    const [answer] = await ask(ServerReflection, { case: 'fileContainingSymbol', value: symbol });
    expect(answer?.messageResponse.case).toBe('fileDescriptorResponse');
  });

  test('the option that says how an RPC treats transactions is found', async () => {
    const options = 'google.protobuf.MethodOptions';
    const [numbers] = await ask(ServerReflection, { case: 'allExtensionNumbersOfType', value: options });
    expect(numbers?.messageResponse).toMatchObject({ value: { extensionNumber: [access.number] } });
    const [file] = await ask(ServerReflection, {
      case: 'fileContainingExtension',
      value: create(ExtensionRequestSchema, { containingType: options, extensionNumber: access.number }),
    });
    expect(file?.messageResponse.case).toBe('fileDescriptorResponse');
  });

  test('what does not exist is NOT_FOUND, in place', async () => {
    const [answer] = await ask(ServerReflection, { case: 'fileByFilename', value: 'no.proto' });
    expect(answer?.messageResponse).toMatchObject({ case: 'errorResponse', value: { errorCode: 5 } });
  });
});
