import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test } from 'vitest';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyReadService.method;
const since = timestampFromDate(new Date('2025-06-01T00:00:00Z'));

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate tenants, proxy_calls'));

const spend = (cents: string, at: string, tenant = 't') =>
  sidecar.sql(
    `insert into proxy_calls (id, tenant_id, endpoint, model, request_hash, request_json, cost_cents, created_at)
     values (gen_random_uuid()::text, $1, 'e', 'm', 'h', '{}', $2, $3)`,
    [tenant, cents, at],
  );

describe.each(['grpc', 'connect'] as const)('budgets and guardrails over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('a budget is the default until somebody sets another', async () => {
    await sidecar.sql(`insert into tenants (id, name, slug) values ('t', 'T', 't'), ('', 'empty', 'e')`);
    const read = async (tenantId: string) => (await caller().unary(rpc.getTenantBudgetSettings, { tenantId })).settings;
    expect(await read('t')).toMatchObject({ tenantId: 't', budgetLimitCents: 10_000n, budgetPeriod: 'daily' });
    expect(await read('')).toMatchObject({ tenantId: '' });
    expect(await read('T')).toBeUndefined();
    await sidecar.sql(`update tenants set budget_limit_cents = 5, budget_period = 'weekly' where id = 't'`);
    expect(await read('t')).toMatchObject({ budgetLimitCents: 5n, budgetPeriod: 'weekly' });
  });

  test('usage is summed exactly, from the first instant on, and truncated toward zero', async () => {
    const sum = async () => (await caller().unary(rpc.getUsageSumSince, { tenantId: 't', since })).totalCents;
    expect(await sum()).toBe(0n);
    await spend('0.1000', '2025-06-01T00:00:00Z');
    await spend('0.2000', '2025-06-02T00:00:00Z');
    await spend('0.6999', '2025-06-03T00:00:00Z');
    await spend('1000', '2025-05-31T23:59:59.999999Z');
    await spend('1000', '2025-06-03T00:00:00Z', 'other');
    expect(await sum()).toBe(0n);
    await spend('0.0001', '2025-06-03T00:00:00Z');
    expect(await sum()).toBe(1n);
    await spend('-3.5', '2025-06-03T00:00:00Z');
    expect(await sum()).toBe(-2n);
  });

  test('usage needs an instant', async () => {
    expect(await refusal(caller().unary(rpc.getUsageSumSince, { tenantId: 't' }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: ['since'],
    });
    const late = { seconds: 253_402_300_800n, nanos: 0 };
    const bare = await refusal(sidecar.grpc.unary(rpc.getUsageSumSince, { tenantId: 't', since: late }));
    expect(bare).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['since'] });
  });

  test('guardrails come in order of evaluation, enabled or not', async () => {
    const { guardrails } = await caller().unary(rpc.listAllGuardrails, {});
    expect(guardrails.map(({ id, priority }) => [id, priority])).toEqual([
      ['dg-005', 1],
      ['dg-004', 5],
      ['dg-001', 10],
      ['dg-002', 20],
      ['dg-003', 30],
    ]);
    const streamed = await collect(caller().stream(rpc.streamAllGuardrails, {}));
    expect(streamed.map(({ guardrail }) => guardrail)).toEqual(guardrails);
    await sidecar.sql(`update default_guardrails set is_enabled = false, description = null where id = 'dg-001'`);
    const { guardrail } = await caller().unary(rpc.getGuardrailById, { guardrailId: 'dg-001' });
    expect(guardrail).toMatchObject({ name: 'max_cost_per_request', isEnabled: false, action: 'block' });
    expect(guardrail?.description).toBeUndefined();
    await sidecar.sql(`update default_guardrails set is_enabled = true where id = 'dg-001'`);
    expect((await caller().unary(rpc.getGuardrailById, { guardrailId: 'DG-001' })).guardrail).toBeUndefined();
  });
});
