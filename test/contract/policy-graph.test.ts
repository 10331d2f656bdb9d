import { beforeEach, describe, expect, test } from 'vitest';
import { LimitScope, LimitStatus, PolicyGraphService } from '../../src/gen/hoc/cus/policies/v1/policy_graph_pb.ts';
import {
  EnforcementMode,
  RuleScope,
  RuleSource,
  RuleStatus,
} from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyGraphService.method;

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy_rules, limits, policy.policy_conflicts cascade'));

const rule = (id: string, fields: Record<string, unknown> = {}) => {
  const row: Record<string, unknown> = { id, tenant_id: 't', name: id, ...fields };
  const names = Object.keys(row);
  return sidecar.sql(
    `insert into policy_rules (${names.join(', ')}) values (${names.map((_, index) => `$${index + 1}`).join(', ')})`,
    Object.values(row),
  );
};

const limit = (
  id: string,
  type: string,
  scope: string,
  fields: { status?: string; value?: string; tenant?: string } = {},
) =>
  sidecar.sql(
    `insert into limits (id, tenant_id, name, limit_category, limit_type, scope, max_value, status)
     values ($1, $2, $1, 'BUDGET', $3, $4, $5, $6)`,
    [id, fields.tenant ?? 't', type, scope, fields.value ?? '1', fields.status ?? 'ACTIVE'],
  );

describe.each(['grpc', 'connect'] as const)('policy graph over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('active policies: the tenant only, newest first, ties by id, retired ones left out', async () => {
    await rule('old', { created_at: '2025-01-01T00:00:00Z' });
    await rule('tie-a', { created_at: '2025-01-02T00:00:00Z' });
    await rule('tie-b', { created_at: '2025-01-02T00:00:00Z' });
    await rule('new', { created_at: '2025-01-02T00:00:00.000001Z' });
    await rule('retired', { status: 'RETIRED' });
    await rule('foreign', { tenant_id: 'T' });
    const { policies } = await caller().unary(rpc.fetchActivePolicies, { tenantId: 't' });
    expect(policies.map(({ id }) => id)).toEqual(['new', 'tie-b', 'tie-a', 'old']);
    const streamed = await collect(caller().stream(rpc.streamActivePolicies, { tenantId: 't' }));
    expect(streamed.map(({ policy }) => policy)).toEqual(policies);
    expect((await caller().unary(rpc.fetchActivePolicies, { tenantId: 'nobody' })).policies).toEqual([]);
  });

  // The columns used to allow no empty type, so it was shown as stored; now that one table holds the rules made of
  // proposals too, an empty type is stored and the original's fallback is reached.
  test('an empty type is shown as SYSTEM', async () => {
    await rule('typeless', { rule_type: '' });
    await rule('typed', { rule_type: ' ' });
    for (const method of [rpc.fetchActivePolicies, rpc.fetchAllPolicies]) {
      const { policies } = await caller().unary(method, { tenantId: 't' });
      expect(Object.fromEntries(policies.map(({ id, ruleType }) => [id, ruleType]))).toEqual({
        typeless: 'SYSTEM',
        typed: ' ',
      });
    }
  });

  test('a policy is a node with all its fields', async () => {
    await rule('parent');
    await rule('child', {
      rule_type: 'retry_policy',
      scope: 'AGENT',
      scope_id: 'agent "ü" 🚀',
      enforcement_mode: 'BLOCK',
      source: 'LEARNED',
      status: 'RETIRED',
      parent_rule_id: 'parent',
      conditions: JSON.stringify({ a: [1, null, 'ü'], nested: { __proto__: 1 } }),
    });
    const { policies } = await caller().unary(rpc.fetchAllPolicies, { tenantId: 't' });
    expect(policies.find(({ id }) => id === 'child')).toMatchObject({
      ruleType: 'retry_policy',
      scope: RuleScope.AGENT,
      scopeId: 'agent "ü" 🚀',
      enforcementMode: EnforcementMode.BLOCK,
      source: RuleSource.LEARNED,
      status: RuleStatus.RETIRED,
      parentRuleId: 'parent',
    });
    const parent = policies.find(({ id }) => id === 'parent')!;
    expect(parent.scopeId).toBeUndefined();
    expect(parent.parentRuleId).toBeUndefined();
    expect(await collect(caller().stream(rpc.streamAllPolicies, { tenantId: 't' }))).toHaveLength(2);
  });

  test.each([
    ['SQL NULL', null],
    ['null', 'null'],
    ['false', 'false'],
    ['zero', '0'],
    ['zero with fraction', '0.00'],
    ['an empty text', '""'],
    ['an empty list', '[]'],
    ['an empty object', '{}'],
  ])('conditions that are %s read as an empty object', async (_what, conditions) => {
    await rule('r', { conditions });
    const { policies } = await caller().unary(rpc.fetchActivePolicies, { tenantId: 't' });
    expect(policies[0]?.conditions?.kind).toMatchObject({ case: 'structValue', value: { fields: {} } });
  });

  test.each([
    ['a list', '[0]', 'listValue'],
    ['a text', '" "', 'stringValue'],
    ['a number', '-0.5', 'numberValue'],
    ['true', 'true', 'boolValue'],
  ])('conditions that are %s pass as they are', async (_what, conditions, kind) => {
    await rule('r', { conditions });
    const { policies } = await caller().unary(rpc.fetchActivePolicies, { tenantId: 't' });
    expect(policies[0]?.conditions?.kind.case).toBe(kind);
  });

  test('limits keep every digit and sort by type, then scope, by code point', async () => {
    await limit('a', 'TOKENS_DAILY', 'TENANT', { value: '99999999999999.9999' });
    await limit('b', 'TOKENS_DAILY', 'GLOBAL', { value: '0.0001' });
    await limit('c', 'cost', 'PROVIDER');
    await limit('d', 'COST_DAILY', 'AGENT', { status: 'DISABLED' });
    await limit('e', 'TOKENS_DAILY', 'GLOBAL');
    await limit('f', 'TOKENS_DAILY', 'GLOBAL', { tenant: 'other' });
    const { limits } = await caller().unary(rpc.fetchActiveLimits, { tenantId: 't' });
    expect(limits.map(({ id }) => id)).toEqual(['b', 'e', 'a', 'c']);
    expect(limits.map(({ limitValue }) => limitValue)).toEqual(['0.0001', '1.0000', '99999999999999.9999', '1.0000']);
    expect(limits[3]?.scope).toBe(LimitScope.PROVIDER);
    const every = (await caller().unary(rpc.fetchAllLimits, { tenantId: 't' })).limits;
    expect(every.map(({ id, status }) => [id, status])).toEqual([
      ['d', LimitStatus.DISABLED],
      ['a', LimitStatus.ACTIVE],
      ['b', LimitStatus.ACTIVE],
      ['e', LimitStatus.ACTIVE],
      ['c', LimitStatus.ACTIVE],
    ]);
    const active = await collect(caller().stream(rpc.streamActiveLimits, { tenantId: 't' }));
    expect(active.map(({ limit: each }) => each)).toEqual(limits);
    const all = await collect(caller().stream(rpc.streamAllLimits, { tenantId: 't' }));
    expect(all.map(({ limit: each }) => each)).toEqual(every);
  });

  test('settled conflicts: each ordered pair once', async () => {
    const conflict = (a: string, b: string, resolved: boolean) =>
      sidecar.sql(
        `insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description, resolved) values ($1, $2, 'x', 'd', $3)`,
        [a, b, resolved],
      );
    await conflict('b', 'a', true);
    await conflict('a', 'b', true);
    await conflict('a', 'b', true);
    await conflict('a', 'B', true);
    await conflict('open', 'pair', false);
    const { pairs } = await caller().unary(rpc.fetchResolvedConflicts, {});
    expect(pairs.map(({ policyA, policyB }) => [policyA, policyB])).toEqual([
      ['a', 'B'],
      ['a', 'b'],
      ['b', 'a'],
    ]);
    const streamed = await collect(caller().stream(rpc.streamResolvedConflicts, {}));
    expect(streamed.map(({ pair }) => pair)).toEqual(pairs);
  });

  test('a tenant with U+0000 is refused, and the connection lives on', async () => {
    const error = await refusal(caller().unary(rpc.fetchActivePolicies, { tenantId: 'a\0b' }));
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['tenant_id'] });
    expect((await caller().unary(rpc.fetchActivePolicies, { tenantId: '' })).policies).toEqual([]);
  });

  test('a stream of many rows is whole and in order', async () => {
    await sidecar.sql(
      `insert into policy_rules (id, tenant_id, name, created_at)
       select 'r' || lpad(n::text, 6, '0'), 't', 'n', '2025-01-01Z'::timestamptz + n * interval '1 microsecond'
       from generate_series(1, 2345) n`,
    );
    const ids = (await collect(caller().stream(rpc.streamActivePolicies, { tenantId: 't' }))).map(
      ({ policy }) => policy!.id,
    );
    expect(ids).toHaveLength(2345);
    expect(ids).toEqual([...ids].sort().reverse());
  });
});
