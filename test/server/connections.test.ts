import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { create, toBinary } from '@bufbuild/protobuf';
import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { framed, openCall, openH2, pathOf, rawCall } from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const HOLD = TransactionService.method.hold;
const PORTS = ['grpcAddress', 'httpAddress'] as const;

test.each(PORTS)(
  'SIDECAR_CONNECTION_AGE: an old connection takes no new calls, and those under way go on: %s',
  async (port) => {
    const sidecar = await startTestSidecar({ connectionAgeMs: 2_000 });
    const session = openH2(sidecar.server[port]!);
    const told = once(session, 'goaway');
    const held = openCall(session, pathOf(HOLD));
    held.end(framed(HOLD, {}));
    await once(held, 'data');
    await told;
    const [transaction] = (await sidecar.grpc.unary(TransactionService.method.list, {})).transactions;
    expect(held.closed).toBe(false);
    held.resume();
    await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
    await once(session, 'close');
    // Whoever connects anew is served.
    expect(await rawCall(openH2(sidecar.server[port]!), READ, {})).toMatchObject({ status: 0 });
    await sidecar.stop();
  },
);

test('SIDECAR_CONNECTION_AGE: over HTTP/1.1 an old connection ends with an answer that says so', async () => {
  const sidecar = await startTestSidecar({ connectionAgeMs: 2_000 });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const body = toBinary(READ.input, create(READ.input, {}));
  const answered = async (): Promise<string | undefined> => {
    const call = request(`http://${sidecar.server.httpAddress}${pathOf(READ)}`, {
      method: 'POST',
      agent,
      headers: { 'content-type': 'application/proto', 'content-length': body.length },
    });
    call.end(body);
    const [response] = await once(call, 'response');
    response.resume();
    await once(response, 'end');
    expect(response.statusCode).toBe(200);
    return response.headers.connection;
  };
  expect(await answered()).toBe('keep-alive');
  await vi.waitFor(async () => expect(await answered()).toBe('close'));
  agent.destroy();
  await sidecar.stop();
});

test.each(PORTS)('SIDECAR_CONNECTION_IDLE: a connection without a call is closed: %s', async (port) => {
  const sidecar = await startTestSidecar({ connectionIdleMs: 300 });
  const session = openH2(sidecar.server[port]!);
  expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
  await once(session, 'close');
  await sidecar.stop();
});
