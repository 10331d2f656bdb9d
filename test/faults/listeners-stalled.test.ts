import type { ClientHttp2Session } from 'node:http2';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { useSidecar } from '../support/use.ts';
import { framed, http1Request, openCall, openH2, openTcp, pathOf } from '../support/wire.ts';

const STREAM = PolicyEngineService.method.streamConflicts;

const sidecar = useSidecar();
beforeAll(async () => {
  await sidecar.sql(`insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description)
    select 'a', 'b', 'x', repeat(n::text, 40) from generate_series(1, 20000) n`);
});

const busy = async (): Promise<number> => {
  const rows = await sidecar.sql(`select from pg_stat_activity where datname = current_database()
    and application_name like 'policy-sidecar%' and state like 'idle in transaction%'`);
  return rows.length;
};

const stall = async (leave: () => void): Promise<void> => {
  // What was fetched is not taken any more: the connection waits inside its transaction.
  await vi.waitFor(async () => expect(await busy()).toBe(1), { timeout: 10_000 });
  leave();
  await vi.waitFor(async () => expect(await busy()).toBe(0), { timeout: 10_000 });
};

// Over HTTP/2 on the HTTP port the write that waited for the reader never ended, so neither did the transaction, and
// SIGTERM hung after it.
describe('a stream whose reader stalls and then leaves gives its connection back', () => {
  const overH2 = (address: string, headers = {}): ClientHttp2Session => {
    const session = openH2(address);
    const stream = openCall(session, pathOf(STREAM), headers);
    stream.on('response', () => stream.pause());
    stream.end(framed(STREAM, {}));
    return session;
  };

  test.each([
    ['the gRPC port', 'grpcAddress', {}],
    ['gRPC on the HTTP port', 'httpAddress', {}],
    ['gRPC-Web over HTTP/2', 'httpAddress', { 'content-type': 'application/grpc-web+proto' }],
    ['Connect over HTTP/2', 'httpAddress', { 'content-type': 'application/connect+proto' }],
  ] as const)('%s, the connection destroyed', async (_what, port, headers) => {
    for (let round = 0; round < 3; round += 1) {
      const session = overH2(sidecar.server[port]!, headers);
      await stall(() => session.destroy());
    }
  });

  test.each(['grpcAddress', 'httpAddress'] as const)('%s, the stream reset', async (port) => {
    const session = openH2(sidecar.server[port]!);
    const stream = openCall(session, pathOf(STREAM));
    stream.on('response', () => stream.pause());
    stream.end(framed(STREAM, {}));
    await stall(() => stream.close(8));
    session.destroy();
  });

  test('Connect over HTTP/1.1', async () => {
    const socket = openTcp(sidecar.server.httpAddress!);
    socket.pause();
    socket.write(http1Request(pathOf(STREAM), ['content-type: application/connect+proto'], framed(STREAM, {})));
    await stall(() => socket.destroy());
  });
});
