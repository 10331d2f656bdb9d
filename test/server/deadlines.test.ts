import { beforeAll, describe, expect, test, vi } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { refusal } from '../support/client.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { useClient, useSidecar } from '../support/use.ts';

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
      const started = performance.now();
      const late = await Promise.race([...Array.from({ length: 3 }, () => refusal(reset()))]);
      expect(late).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'CONNECTION_QUEUE_FULL' });
      expect(late.retryAfterMs).toBeGreaterThan(0);
      expect(performance.now() - started).toBeLessThan(1_000);
      for (const error of await Promise.all(waiting)) expect(error.code).toBe('RESOURCE_EXHAUSTED');
      abort.abort();
      await holding;
    });
    expect((await reset()).rowsAffected).toBe(1n);
  });

  test('two callers at once: both updates of one row are there', async () => {
    await sidecar.sql(`truncate policy.violations`);
    const insert = (description: string) =>
      caller().unary(
        rpc.insertViolation,
        {
          violationId: crypto.randomUUID(),
          violationType: 'x',
          severity: 0.5,
          description,
          evidence: { kind: { case: 'nullValue', value: 0 } },
          routedToGovernor: false,
          detectedAt: { seconds: 1n, nanos: 0 },
        },
        single,
      );
    await Promise.all([insert('a'), insert('b')]);
    const { violations } = await caller().unary(rpc.fetchViolations, {});
    expect(violations.map(({ description }) => description).sort()).toEqual(['a', 'b']);
  });
});
