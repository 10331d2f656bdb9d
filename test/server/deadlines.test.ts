import { beforeAll, describe, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { refusal } from '../support/client.ts';
import { watchLag } from '../support/lag.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useSidecar } from '../support/use.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };

// One connection: what a call leaves behind on it, the next call meets.
const sidecar = useSidecar({ poolMax: 1, poolQueue: 2, poolWaitMs: 2_000 });
const holder = useClient(() => sidecar.url);
let ceilingId: string;
beforeAll(async () => {
  const [row] = await sidecar.sql<{ id: string }>(`select id from policy.risk_ceilings limit 1`);
  ceilingId = row!.id;
});

const locked = (work: Locked): Promise<void> =>
  whileLocked(holder, 'select from policy.risk_ceilings for update', work);

const waitingStatements = async (): Promise<number> => {
  const rows = await sidecar.sql(
    `select from pg_stat_activity where datname = current_database() and application_name = 'policy-sidecar call' and state = 'active'`,
  );
  return rows.length;
};

describe.each(['grpc', 'connect'] as const)('ends of calls over %s', (listener) => {
  const caller = () => sidecar[listener];
  const reset = (init = {}) => caller().unary(rpc.resetRiskCeiling, { ceilingId }, { ...single, ...init });

  test('a deadline stops the statement in PostgreSQL, and the connection goes on', async () => {
    await locked(async () => {
      const error = await refusal(reset({ timeoutMs: 150 }));
      expect(error.code).toBe('DEADLINE_EXCEEDED');
      await vi.waitFor(async () => expect(await waitingStatements()).toBe(0));
    });
    expect((await reset()).rowsAffected).toBe(1n);
  });

  test('a caller that cancels stops the statement in PostgreSQL', async () => {
    await locked(async () => {
      const abort = new AbortController();
      const call = refusal(reset({ signal: abort.signal }));
      await vi.waitFor(async () => expect(await waitingStatements()).toBe(1));
      abort.abort();
      expect((await call).code).toBe('CANCELLED');
      await vi.waitFor(async () => expect(await waitingStatements()).toBe(0));
    });
    expect((await reset()).rowsAffected).toBe(1n);
  });

  test('waiting for a connection is bounded in length and time', async () => {
    await locked(async () => {
      const abort = new AbortController();
      const holding = refusal(reset({ signal: abort.signal }));
      await vi.waitFor(async () => expect(await waitingStatements()).toBe(1));
      const waiting = [refusal(reset()), refusal(reset())];
      const lagMs = watchLag();
      const started = performance.now();
      const late = await Promise.race([...Array.from({ length: 3 }, () => refusal(reset()))]);
      expect(late).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'CONNECTION_QUEUE_FULL' });
      expect(late.retryAfterMs).toBeGreaterThan(0);
      expect(performance.now() - started).toBeLessThan(1_000 + 2 * lagMs());
      for (const error of await Promise.all(waiting)) expect(error.code).toBe('RESOURCE_EXHAUSTED');
      abort.abort();
      await holding;
    });
    expect((await reset()).rowsAffected).toBe(1n);
  });

  // They wait for one lock, so that neither has read the row after the other.
  test('two callers at once: updates of different fields of one row are both there', async () => {
    const own = await startTestSidecar({ lockTimeoutMs: 60_000 }, sidecar.url);
    const update = (updates: object, path: string) =>
      own[listener].unary(rpc.updateRiskCeiling, { ceilingId, updates, updateMask: { paths: [path] } }, single);
    const updates = [() => update({ currentValue: 3 }, 'current_value'), () => update({ maxValue: 5 }, 'max_value')];
    let answers: Promise<{ rowsAffected: bigint }>[] = [];
    await sidecar.sql('update policy.risk_ceilings set current_value = 1, max_value = 1');
    await locked(async () => {
      answers = updates.map((send) => send());
      await vi.waitFor(async () => expect(await sidecar.sql(WAITING_FOR_LOCK)).toHaveLength(2));
    });
    expect((await Promise.all(answers)).map(({ rowsAffected }) => rowsAffected)).toEqual([1n, 1n]);
    const [row] = await sidecar.sql('select current_value, max_value from policy.risk_ceilings where id = $1', [
      ceilingId,
    ]);
    expect(row).toEqual({ current_value: 3, max_value: 5 });
    await own.stop();
  });
});
