import { rm } from 'node:fs/promises';
import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const PATH = `/${PolicyEngineService.typeName}/FetchRiskCeilings`;
const CONSOLE = 'https://console.example';

const sidecar = useSidecar({ httpHosts: ['localhost', 'sidecar.agents.svc'], httpOrigins: [CONSOLE] });

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

const ask = (
  headers: Readonly<Record<string, string>>,
  {
    method = 'POST',
    to = {},
    path = PATH,
    body = '{}',
  }: { method?: string; to?: object; path?: string; body?: string } = {},
): Promise<Answer> => {
  const [host = '', port] = sidecar.server.httpAddress!.split(':');
  return new Promise((resolve, reject) => {
    const sent = request(
      { host, port, path, method, headers: { 'content-type': 'application/json', ...headers }, ...to },
      (response) => {
        let received = '';
        response.on('data', (chunk) => {
          received += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: received }));
      },
    );
    sent.on('error', reject);
    sent.end(method === 'POST' ? body : undefined);
  });
};

const reasonOf = ({ body }: Answer): unknown => JSON.parse(body).details[0].debug;

describe('the name in Host', () => {
  // A page of evil.example whose name was made to lead to 127.0.0.1 was answered as if it were the engine.
  test.each([
    'evil.example',
    'evil.example:50052',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'localhost@evil',
  ])('%s is refused, in a way that names the setting', async (host) => {
    const answer = await ask({ host });
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.body)).toMatchObject({
      code: 'permission_denied',
      message: 'this server is not called by that name: set SIDECAR_HTTP_HOSTS',
    });
    expect(reasonOf(answer)).toEqual({ reason: 'HOST_NOT_ALLOWED', domain: 'policies.hoc', metadata: { host } });
  });

  test('a long one is refused in few words', async () => {
    const answer = await ask({ host: `${'x'.repeat(10_000)}.example` });
    expect(reasonOf(answer)).toMatchObject({ reason: 'HOST_NOT_ALLOWED', metadata: { host: 'x'.repeat(128) } });
  });

  test.each([
    'localhost',
    'LOCALHOST:1',
    'localhost.:80',
    '127.0.0.1:50052',
    '[::1]:50052',
    '10.1.2.3',
    'sidecar.agents.svc:8080',
  ])('%s is answered', async (host) => {
    expect((await ask({ host })).status).toBe(200);
  });

  test('a second Host does not hide behind the first', async () => {
    const [host, port] = sidecar.server.httpAddress!.split(':');
    const socket = connectSocket(Number(port), host);
    socket.end(
      `POST ${PATH} HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n` +
        'Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    );
    expect(await text(socket)).toMatch(/^HTTP\/1\.1 403 /);
  });

  test('it is refused over HTTP/2 and in every protocol of the port', async () => {
    const session = connect(`http://${sidecar.server.httpAddress}`);
    const over = (headers: Record<string, string>): Promise<Record<string, unknown>> =>
      new Promise((resolve, reject) => {
        const stream = session.request({ ':method': 'POST', ':path': PATH, ':authority': 'evil.example', ...headers });
        let head: object = {};
        let body = '';
        stream.on('response', (got) => {
          head = got;
        });
        stream.on('data', (chunk) => {
          body += chunk;
        });
        stream.on('end', () => resolve({ ...head, body }));
        stream.on('error', reject);
        stream.end(Buffer.alloc(5));
      });
    expect(await over({ 'content-type': 'application/proto' })).toMatchObject({ ':status': 403 });
    expect(await over({ 'content-type': 'application/grpc-web+proto' })).toMatchObject({
      body: expect.stringContaining('grpc-status: 7'),
    });
    session.close();
    expect(sidecar.log()).toContainEqual(
      expect.objectContaining({ reason: 'HOST_NOT_ALLOWED', host: 'evil.example', code: 'PERMISSION_DENIED' }),
    );
  });

  test('what is no call is refused by it, too', async () => {
    const answer = await ask({ host: 'evil.example' }, { method: 'GET', path: '/' });
    expect(answer.status).toBe(403);
    expect(reasonOf(answer)).toMatchObject({ reason: 'HOST_NOT_ALLOWED' });
    expect((await ask({}, { method: 'GET', path: '/' })).status).toBe(404);
  });

  test('at a socket file it is free', async () => {
    const path = join(tmpdir(), `origins-${process.pid}.sock`);
    const other = await startTestSidecar({ httpListen: `unix:${path}` });
    const answer = await ask({ host: 'whatever.example' }, { to: { socketPath: path } });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body).riskCeilings).not.toHaveLength(0);
    expect((await ask({ origin: CONSOLE }, { to: { socketPath: path } })).status).toBe(403);
    await other.stop();
    await rm(path, { force: true });
  });

  test('any name is answered where that is asked for', async () => {
    const other = await startTestSidecar({ httpHosts: ['*'] });
    const [, port] = other.server.httpAddress!.split(':');
    expect((await ask({ host: 'evil.example' }, { to: { port } })).status).toBe(200);
    await other.stop();
  });
});

describe('the page in Origin', () => {
  const preflight = (origin: string, headers: Record<string, string> = {}) =>
    ask({ origin, 'access-control-request-method': 'POST', ...headers }, { method: 'OPTIONS' });

  test('one that is invited may send every header that a call has, and see every one that an answer has', async () => {
    const { status, headers } = await preflight(CONSOLE);
    expect(status).toBe(204);
    expect(headers).toMatchObject({ 'access-control-allow-origin': CONSOLE, vary: 'origin' });
    const allowed = headers['access-control-allow-headers']!.split(', ');
    expect(allowed).toEqual(
      expect.arrayContaining([
        ...['authorization', 'transaction', 'transaction-sequence', 'idempotency-key', 'traceparent', 'tracestate'],
        ...['content-type', 'connect-protocol-version', 'connect-timeout-ms', 'grpc-timeout', 'x-grpc-web'],
      ]),
    );
    expect(new Set(allowed).size).toBe(allowed.length);
    expect(headers['access-control-allow-methods']).toBe('POST, GET');
    expect(headers['access-control-allow-credentials']).toBeUndefined();
    const answer = await ask({ origin: CONSOLE });
    expect(answer.status).toBe(200);
    expect(answer.headers['access-control-allow-origin']).toBe(CONSOLE);
    expect(answer.headers['access-control-expose-headers']!.split(', ')).toEqual(
      expect.arrayContaining(['grpc-status', 'grpc-message', 'grpc-status-details-bin', 'inexact-values']),
    );
  });

  test.each(['https://evil.example', 'http://console.example', 'https://console.example:8443', 'null'])(
    '%s is refused before it can do anything',
    async (origin) => {
      const asked = await preflight(origin);
      expect(asked.status).toBe(403);
      expect(asked.headers['access-control-allow-origin']).toBeUndefined();
      expect(reasonOf(asked)).toMatchObject({ reason: 'ORIGIN_NOT_ALLOWED', metadata: { origin } });
      const path = `/${PolicyEngineService.typeName}/DeactivateAllVersions`;
      const blind = await ask({ origin, transaction: 'single-use' }, { path });
      expect(blind.status).toBe(403);
      expect(blind.headers['access-control-allow-origin']).toBeUndefined();
      expect(reasonOf(blind)).toMatchObject({ reason: 'ORIGIN_NOT_ALLOWED' });
      const { policyVersion } = await sidecar.grpc.unary(PolicyEngineService.method.fetchCurrentActiveVersion, {});
      expect(policyVersion?.version).toBe('1.0.0');
    },
  );

  test('a page of this very server needs no invitation', async () => {
    const host = sidecar.server.httpAddress!;
    expect((await ask({ host, origin: `http://${host}` })).status).toBe(200);
    expect((await ask({ host, origin: 'http://127.0.0.1:1' })).status).toBe(403);
  });

  test('a refusal of an invited page can be read by it', async () => {
    const answer = await ask({ origin: CONSOLE }, { body: '{' });
    expect(answer.status).toBe(400);
    expect(answer.headers['access-control-allow-origin']).toBe(CONSOLE);
  });
});
