import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Arrivals, CALLS_A_TURN } from '../../src/server/arrivals.ts';
import { useSidecar } from '../support/use.ts';
import { answerOf, framed, openCall, openH2, pathOf } from '../support/wire.ts';

const rpc = PolicyEngineService.method;

const sidecar = useSidecar();

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('so many calls begin in a turn, in the order in which they came', async () => {
  const arrivals = new Arrivals();
  const begun: number[] = [];
  const arrive = (call: number): void => {
    if (arrivals.mayBegin()) begun.push(call);
    else arrivals.wait(() => begun.push(call));
  };
  const calls = 3 * CALLS_A_TURN - 1;
  for (let call = 0; call < calls; call += 1) arrive(call);
  const seen = [begun.length];
  for (let turn = 0; turn < 3; turn += 1) {
    await nextTurn();
    // One that comes later begins later.
    if (turn === 0) arrive(calls);
    seen.push(begun.length);
  }
  expect(seen).toEqual([CALLS_A_TURN, 2 * CALLS_A_TURN, 3 * CALLS_A_TURN, 3 * CALLS_A_TURN]);
  expect(begun).toEqual(Array.from({ length: calls + 1 }, (_, call) => call));
  await nextTurn();
  for (let call = 0; call < CALLS_A_TURN; call += 1) arrive(call);
  expect(begun).toHaveLength(4 * CALLS_A_TURN);
});

test('of calls that come in one piece each is answered, but for those whose caller has left, and nothing is left', async () => {
  const session = openH2(sidecar.server.grpcAddress);
  await new Promise((resolve) => session.once('remoteSettings', resolve));
  const streams = Array.from({ length: 10 * CALLS_A_TURN }, () => {
    const stream = openCall(session, pathOf(rpc.fetchRiskCeilings));
    stream.end(framed(rpc.fetchRiskCeilings, {}));
    return stream;
  });
  const answers = streams.map((stream, at) => {
    if (at % 3 > 0) return answerOf(stream);
    stream.close(8);
    return undefined;
  });
  for (const answer of await Promise.all(answers)) if (answer) expect(answer.status).toBe(0);
  await vi.waitFor(() => expect(sidecar.server.callsUnderWay).toBe(0));
  session.close();
});
