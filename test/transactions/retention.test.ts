import { randomUUID } from 'node:crypto';
import { expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { violation } from '../support/violation.ts';

const { insertViolation } = PolicyEngineService.method;

/** What is stored is looked through every ten minutes, and a minute after a start: where none lived longer, nobody did. */
const TIMERS = [
  ['setInterval', 600_000],
  ['setTimeout', 60_000],
] as const;

test.each(TIMERS)(
  'SIDECAR_REQUEST_RETENTION, by %s: an answer that is older is deleted, and its key is any other; a younger one is kept',
  async (timer, afterMs) => {
    // Nobody waits so long for a test: the sidecar's own timer is told that it is over.
    const timers = vi.spyOn(globalThis, timer);
    const sidecar = await startTestSidecar({ requestRetentionMs: 3_600_000 });
    const prune = timers.mock.calls.find(([, ms]) => ms === afterMs)?.[0] as () => void;
    timers.mockRestore();
    const [old, young] = [randomUUID(), randomUUID()];
    const send = (key: string, row = violation()) =>
      sidecar.grpc.unary(insertViolation, row, { transaction: 'single-use', headers: { 'idempotency-key': key } });
    for (const key of [old, young]) await send(key);
    const age = (key: string, ago: string) =>
      sidecar.sql('update policy_sidecar.requests set created_at = now() - $2::interval where request_id = $1', [
        key,
        ago,
      ]);
    await age(old, '61 minutes');
    await age(young, '59 minutes');
    prune();
    const kept = async () =>
      (await sidecar.sql<{ id: string }>('select request_id as id from policy_sidecar.requests')).map(({ id }) => id);
    await vi.waitFor(async () => expect(await kept()).toEqual([young]));
    expect(await refusal(send(young))).toMatchObject({ reason: 'IDEMPOTENCY_KEY_REUSED' });
    expect((await send(old)).rowsAffected).toBe(1n);
    await sidecar.stop();
  },
);
