import { beforeEach, describe, expect, test } from 'vitest';
import {
  BindAt,
  ConflictStrategy,
  FailureMode,
  PolicyArbitratorService,
} from '../../src/gen/hoc/cus/policies/v1/policy_arbitrator_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyArbitratorService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate public.policy_precedence restart identity'));

const limits = (...pairs: readonly (readonly [policyId: string, value: number])[]) =>
  pairs.map(([policyId, value]) => ({ policyId, limitType: 'token', value }));

describe.each(['grpc', 'connect'] as const)('arbitration over %s', (listener) => {
  const caller = () => sidecar[listener];
  const arbitrate = (policyIds: string[], arbInput?: object, tenantId = 't1') =>
    caller().unary(rpc.arbitrate, { policyIds, tenantId, ...(arbInput ? { arbInput } : {}) });
  const create = (policyId: string, more: object = {}) =>
    caller().unary(rpc.createPrecedence, { tenantId: 't1', policyId, ...more }, single);

  test('the smallest limits and the severest action win', async () => {
    await create('p1', { precedence: 50 });
    await create('p2', { precedence: 10 });
    const settled = await arbitrate(['p1', 'p2'], {
      tokenLimits: limits(['p1', 1000], ['p2', 2000]),
      costLimits: limits(['p1', 500], ['p2', 250]),
      burnRateLimits: limits(['p1', 1.5]),
      breachActions: [
        { policyId: 'p1', action: 'pause' },
        { policyId: 'p2', action: 'kill' },
      ],
    });
    expect(settled).toMatchObject({
      policyIds: ['p2', 'p1'],
      precedenceOrder: [10, 50],
      effectiveTokenLimit: 1000n,
      effectiveCostLimitCents: 250n,
      effectiveBurnRateLimit: 1.5,
      effectiveBreachAction: 'kill',
      conflictsResolved: 3,
      resolutionStrategy: ConflictStrategy.MOST_RESTRICTIVE,
      snapshotHash: '21b2ecc8b8667b92',
    });
    expect(Math.abs(Number(settled.arbitrationTimestamp!.seconds) - Date.now() / 1000)).toBeLessThan(60);
  });

  test('nothing asked for', async () => {
    const settled = await arbitrate([]);
    expect(settled).toMatchObject({
      policyIds: [],
      precedenceOrder: [],
      effectiveBreachAction: 'stop',
      conflictsResolved: 0,
      snapshotHash: '9451569ec94fa479',
    });
    expect([settled.effectiveTokenLimit, settled.effectiveCostLimitCents, settled.effectiveBurnRateLimit]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect([settled.settledTokenLimit, settled.settledCostLimitCents]).toEqual([undefined, undefined]);
    // Limits are settled even where no policy is named.
    expect((await arbitrate([], { tokenLimits: limits(['p', 7]) })).effectiveTokenLimit).toBe(7n);
  });

  test('ties keep the order given, duplicates stay, unknown policies count as 100', async () => {
    await create('a', { precedence: 100 });
    await create('b', { precedence: -5, conflictStrategy: ConflictStrategy.FAIL_CLOSED });
    const { policyIds, precedenceOrder, resolutionStrategy } = await arbitrate(['x', 'a', 'b', 'x', 'b']);
    expect(policyIds).toEqual(['b', 'b', 'x', 'a', 'x']);
    expect(precedenceOrder).toEqual([-5, -5, 100, 100, 100]);
    expect(resolutionStrategy).toBe(ConflictStrategy.FAIL_CLOSED);
    // The first policy of equals decides on the strategy, and it has none here.
    await create('c', { conflictStrategy: ConflictStrategy.EXPLICIT_PRIORITY });
    expect((await arbitrate(['x', 'c'])).resolutionStrategy).toBe(ConflictStrategy.MOST_RESTRICTIVE);
    expect((await arbitrate(['c', 'x'])).resolutionStrategy).toBe(ConflictStrategy.EXPLICIT_PRIORITY);
  });

  // A caller that took an unset limit for none lifted a limit of zero.
  test('a limit of exactly 0 is told from none', async () => {
    const settled = await arbitrate(['p'], { tokenLimits: limits(['p', 5], ['p', 0]), costLimits: limits(['p', 0.5]) });
    expect(settled.effectiveTokenLimit).toBeUndefined();
    expect([settled.settledTokenLimit, settled.settledCostLimitCents]).toEqual([0, 0.5]);
    expect((await arbitrate(['p'], { tokenLimits: limits(['p', 0]) })).settledCostLimitCents).toBeUndefined();
  });

  test('explicit priority asks the policy that goes first', async () => {
    await create('p1', { precedence: 150, conflictStrategy: ConflictStrategy.EXPLICIT_PRIORITY });
    await create('p9', { precedence: 1 });
    const settled = await arbitrate(['p1'], {
      tokenLimits: limits(['p1', 10], ['p9', 77]),
      breachActions: [
        { policyId: 'p1', action: 'pause' },
        { policyId: 'p9', action: 'stop' },
      ],
    });
    expect(settled).toMatchObject({
      effectiveTokenLimit: 77n,
      effectiveBreachAction: 'stop',
      conflictsResolved: 2,
      snapshotHash: '970a25bda518e98b',
    });
  });

  test('another tenant has precedences of its own', async () => {
    await create('p1', { precedence: 1 });
    await create('p1', { tenantId: 't2', precedence: 2 });
    expect((await arbitrate(['p1'])).precedenceOrder).toEqual([1]);
    expect((await arbitrate(['p1'], undefined, 't2')).precedenceOrder).toEqual([2]);
    expect((await arbitrate(['p1'], undefined, '')).precedenceOrder).toEqual([100]);
  });

  test('fractions are cut off, zero is no limit, large ones are exact', async () => {
    const tokens = async (value: number) =>
      (await arbitrate(['p'], { tokenLimits: limits(['p', value]) })).effectiveTokenLimit;
    expect(await tokens(999.9)).toBe(999n);
    expect(await tokens(-1.5)).toBe(-1n);
    expect(await tokens(0.5)).toBe(0n);
    expect(await tokens(0)).toBe(undefined);
    expect(await tokens(-0)).toBe(undefined);
    expect(await tokens(2 ** 53)).toBe(2n ** 53n);
    expect(await tokens(-(2 ** 63))).toBe(-(2n ** 63n));
    const rate = await arbitrate(['p'], { burnRateLimits: limits(['p', 0]) });
    expect(rate.effectiveBurnRateLimit).toBe(0);
    for (const value of [2 ** 63, 1e22, -1e300]) {
      expect(await refusal(tokens(value))).toMatchObject({
        code: 'INVALID_ARGUMENT',
        fields: ['arb_input.token_limits'],
      });
    }
    const both = arbitrate(['p'], { tokenLimits: limits(['p', 1e22]), costLimits: limits(['p', 1e22]) });
    expect((await refusal(both)).fields).toEqual(['arb_input.token_limits', 'arb_input.cost_limits']);
  });

  test('a limit without a value, or one that is no number, is refused', async () => {
    const wrong = await refusal(
      arbitrate(['p', 'a\0b'], {
        tokenLimits: [{ policyId: 'p' }, { policyId: 'q', value: Number.NaN }],
        burnRateLimits: limits(['p', Number.POSITIVE_INFINITY]),
        breachActions: [{ policyId: 'p', action: '\0' }],
      }),
    );
    expect(wrong.code).toBe('INVALID_ARGUMENT');
    expect([...wrong.fields].sort()).toEqual([
      'arb_input.breach_actions[0].action',
      'arb_input.burn_rate_limits[0].value',
      'arb_input.token_limits[0].value',
      'arb_input.token_limits[1].value',
      'policy_ids[1]',
    ]);
  });

  test('precedences are made, changed, listed and deleted', async () => {
    const { precedence } = await create('p1');
    expect(precedence).toMatchObject({
      policyId: 'p1',
      tenantId: 't1',
      precedence: 100,
      conflictStrategy: ConflictStrategy.MOST_RESTRICTIVE,
      bindAt: BindAt.RUN_START,
      failureMode: FailureMode.FAIL_CLOSED,
    });
    expect(precedence!.updatedAt).toEqual(precedence!.createdAt);
    expect(await refusal(create('p1'))).toMatchObject({ code: 'ALREADY_EXISTS', reason: 'UNIQUE_VIOLATION' });
    const update = async (paths: string[], updates: object, policyId = 'p1', tenantId = 't1') =>
      (await caller().unary(rpc.updatePrecedence, { tenantId, policyId, updates, updateMask: { paths } }, single))
        .precedence;
    const changed = await update(['bind_at', 'precedence'], { bindAt: BindAt.EACH_STEP, precedence: -2147483648 });
    expect(changed).toMatchObject({ bindAt: BindAt.EACH_STEP, precedence: -2147483648, id: precedence!.id });
    expect(changed!.updatedAt).not.toEqual(precedence!.updatedAt);
    expect(await update(['failure_mode'], { failureMode: FailureMode.FAIL_OPEN }, 'p1', 't2')).toBe(undefined);
    expect((await refusal(update([], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(update(['tenant_id'], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(update(['precedence'], {}))).fields).toEqual(['updates.precedence']);
    const zero = await refusal(update(['bind_at'], { bindAt: BindAt.UNSPECIFIED }));
    expect(zero.fields).toEqual(['updates.bind_at']);
    const tooLong = create('x'.repeat(65), { tenantId: 'y'.repeat(65), failureMode: 9 });
    expect([...(await refusal(tooLong)).fields].sort()).toEqual(['failure_mode', 'policy_id', 'tenant_id']);

    for (const policyId of ['B', 'a', 'Z']) await create(policyId);
    const list = async (more: object = {}) =>
      (await caller().unary(rpc.fetchPrecedences, { tenantId: 't1', ...more })).precedences.map(
        (each) => each.policyId,
      );
    expect(await list()).toEqual(['B', 'Z', 'a', 'p1']);
    expect(await list({ limit: 2, offset: 1 })).toEqual(['Z', 'a']);
    expect(await list({ limit: 0 })).toEqual([]);
    expect(await list({ policyIds: ['a', 'none', 'a'] })).toEqual(['a']);
    expect(await list({ tenantId: 't2' })).toEqual([]);
    expect((await refusal(list({ limit: -1, offset: -1 }))).fields).toEqual(['limit', 'offset']);

    const remove = async (policyId: string, tenantId = 't1') =>
      (await caller().unary(rpc.deletePrecedence, { tenantId, policyId }, single)).rowsAffected;
    expect(await remove('p1', 't2')).toBe(0n);
    expect(await remove('p1')).toBe(1n);
    expect(await remove('p1')).toBe(0n);
    expect((await refusal(caller().unary(rpc.deletePrecedence, {}))).reason).toBe('TRANSACTION_REQUIRED');
  });
});

test('an unknown strategy fails the call only where the policy goes first', async () => {
  await sidecar.sql('alter table public.policy_precedence drop constraint ck_policy_precedence_strategy');
  await sidecar.sql(`insert into public.policy_precedence (policy_id, tenant_id, precedence, conflict_strategy)
    values ('p1', 't1', 1, 'strictest'), ('p2', 't1', 0, 'fail_closed')`);
  const arbitrate = (...policyIds: string[]) => sidecar.grpc.unary(rpc.arbitrate, { policyIds, tenantId: 't1' });
  expect((await arbitrate('p1', 'p2')).resolutionStrategy).toBe(ConflictStrategy.FAIL_CLOSED);
  expect(await refusal(arbitrate('p1'))).toMatchObject({
    code: 'FAILED_PRECONDITION',
    reason: 'UNKNOWN_CONFLICT_STRATEGY',
  });
  await sidecar.sql('delete from public.policy_precedence');
  await sidecar.sql(`alter table public.policy_precedence add constraint ck_policy_precedence_strategy
    check (conflict_strategy in ('most_restrictive', 'explicit_priority', 'fail_closed'))`);
});
