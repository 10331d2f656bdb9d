import { connect } from 'node:http2';
import { text } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import { createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { useSidecar } from '../support/use.ts';

const NAME = PolicyEngineService.typeName;

const sidecar = useSidecar();

const get = (method: string, query: Record<string, string> | string, headers: Record<string, string> = {}) =>
  fetch(
    `http://${sidecar.server.httpAddress}/${NAME}/${method}?${typeof query === 'string' ? query : new URLSearchParams(query)}`,
    { headers },
  );

const json = (message: string) => ({ connect: 'v1', encoding: 'json', message });

const reasonOf = async (answer: Response): Promise<unknown> => {
  const { details } = (await answer.json()) as { details: { debug: { reason: string } }[] };
  return details[0]?.debug.reason;
};

describe('a read by GET', () => {
  test('is answered, and no cache may keep the answer', async () => {
    const answer = await get('FetchRiskCeilings', json('{}'));
    expect({ status: answer.status, cache: answer.headers.get('cache-control') }).toEqual({
      status: 200,
      cache: 'no-store',
    });
    const { riskCeilings } = (await answer.json()) as { riskCeilings: { name: string }[] };
    expect(riskCeilings.map(({ name }) => name)).toContain('hourly_cost_ceiling');
  });

  test('says what it asks in the binary form, too, over HTTP/1.1 and HTTP/2', async () => {
    for (const httpVersion of ['1.1', '2'] as const) {
      const transport = createConnectTransport({
        baseUrl: `http://${sidecar.server.httpAddress}`,
        httpVersion,
        useHttpGet: true,
        useBinaryFormat: true,
      });
      const { policyVersions } = await createClient(PolicyEngineService, transport).fetchPolicyVersions({ limit: 1 });
      expect(policyVersions).toHaveLength(1);
    }
  });

  test('over HTTP/2 needs no more than its address', async () => {
    const session = connect(`http://${sidecar.server.httpAddress}`);
    const stream = session.request({
      ':path': `/${NAME}/FetchRiskCeilings?${new URLSearchParams(json('{}'))}`,
    });
    expect(JSON.parse(await text(stream))).toMatchObject({ riskCeilings: expect.any(Array) });
    session.close();
  });

  test('runs in the transaction that its header names', async () => {
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    const { id = '' } = transaction ?? {};
    await sidecar.grpc.unary(PolicyEngineService.method.deactivateAllVersions, {}, { transaction: id });
    const inside = await get('FetchCurrentActiveVersion', json('{}'), { transaction: id });
    expect(await inside.json()).toEqual({});
    const outside = await get('FetchCurrentActiveVersion', json('{}'));
    expect(await outside.json()).toMatchObject({ policyVersion: expect.anything() });
    await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: id });
  });

  test('is checked like any other', async () => {
    const answer = await get('FetchViolations', json('{"limit":-1}'));
    expect({ status: answer.status, reason: await reasonOf(answer) }).toEqual({
      status: 400,
      reason: 'INVALID_REQUEST',
    });
  });

  test('may be compressed', async () => {
    const message = gzipSync('{}').toString('base64url');
    const answer = await get('FetchRiskCeilings', { encoding: 'json', base64: '1', compression: 'gzip', message });
    expect(answer.status).toBe(200);
  });

  test.each([
    ['no base64', 'encoding=proto&base64=1&message=%21%21'],
    ['bytes that are no UTF-8', 'encoding=json&message=%7B%22versionId%22%3A%22%FF%22%7D'],
    ['no JSON', 'encoding=json&message=%7B'],
    ['no message of its type', 'encoding=proto&message=%FF'],
  ])('%s is a bad request', async (_what, query) => {
    const answer = await get('FetchPolicyVersionById', query);
    expect({ status: answer.status, reason: await reasonOf(answer) }).toEqual({
      status: 400,
      reason: 'MALFORMED_REQUEST',
    });
  });

  // `<img src>` and a link tell no origin.
  test.each(['cross-site', 'same-site'])('of a page that is %s and tells no origin is refused', async (site) => {
    const answer = await get('FetchRiskCeilings', json('{}'), { 'sec-fetch-site': site });
    expect({ status: answer.status, reason: await reasonOf(answer) }).toEqual({
      status: 403,
      reason: 'ORIGIN_NOT_ALLOWED',
    });
  });

  test.each(['none', 'same-origin'])('that a browser calls %s is answered', async (site) => {
    expect((await get('FetchRiskCeilings', json('{}'), { 'sec-fetch-site': site })).status).toBe(200);
  });
});

test('a write by GET is refused', async () => {
  const before = await sidecar.sql('select is_active from policy.policy_versions where is_active');
  const answer = await get('DeactivateAllVersions', json('{}'), { transaction: 'single-use' });
  expect(answer.status).toBe(405);
  expect(await sidecar.sql('select is_active from policy.policy_versions where is_active')).toEqual(before);
  expect(before).toHaveLength(1);
});
