import { toJson } from '@bufbuild/protobuf';
import { ValueSchema } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test } from 'vitest';
import { ScopeResolverService, ScopeType } from '../../src/gen/hoc/cus/policies/v1/scope_resolver_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = ScopeResolverService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate public.policy_scopes restart identity'));

const RUN = { tenantId: 't1', agentId: 'agent-1', apiKeyId: 'key-1', humanActorId: 'u-1', runId: 'run-9' };

describe.each(['grpc', 'connect'] as const)('scopes over %s', (listener) => {
  const caller = () => sidecar[listener];
  const create = async (policyId: string, scopeType: ScopeType | undefined, more: object = {}) =>
    (
      await caller().unary(
        rpc.createScope,
        { tenantId: 't1', policyId, ...(scopeType === undefined ? {} : { scopeType }), ...more },
        single,
      )
    ).scope!;
  const resolve = (context: object = RUN) =>
    caller().unary(rpc.resolveApplicablePolicies, { context: context as never });

  test('one scope of each type', async () => {
    await create('pD', ScopeType.HUMAN_ACTOR, { humanActorIds: ['u-1'] });
    await create('pC', ScopeType.API_KEY, { apiKeyIds: ['key-1'] });
    await create('pB', ScopeType.AGENT, { agentIds: ['agent-0', 'agent-1'] });
    await create('pA', undefined);
    const found = await resolve();
    expect(found).toMatchObject({
      matchingPolicyIds: ['pA', 'pB', 'pC', 'pD'],
      allRunsPolicies: ['pA'],
      agentPolicies: ['pB'],
      apiKeyPolicies: ['pC'],
      humanActorPolicies: ['pD'],
      context: RUN,
      scopesEvaluated: 4,
    });
    expect(found.resolutionTimestamp).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00$/);
    expect(toJson(ValueSchema, found.snapshot!)).toEqual({
      matching_policy_ids: ['pA', 'pB', 'pC', 'pD'],
      all_runs_policies: ['pA'],
      agent_policies: ['pB'],
      api_key_policies: ['pC'],
      human_actor_policies: ['pD'],
      context: { tenant_id: 't1', agent_id: 'agent-1', api_key_id: 'key-1', human_actor_id: 'u-1' },
      scopes_evaluated: 4,
      resolution_timestamp: found.resolutionTimestamp,
    });
    const bare = await resolve({ tenantId: 't1' });
    expect(bare).toMatchObject({ matchingPolicyIds: ['pA'], agentPolicies: [], scopesEvaluated: 4 });
    expect(toJson(ValueSchema, bare.snapshot!)).toMatchObject({ context: { agent_id: null } });
    expect(await resolve({ tenantId: 't2' })).toMatchObject({ matchingPolicyIds: [], scopesEvaluated: 0 });
  });

  test('several scopes of a policy: each counts, the union holds it once', async () => {
    await create('p1', ScopeType.ALL_RUNS);
    await create('p1', ScopeType.AGENT, { agentIds: ['agent-1'] });
    await create('p1', ScopeType.AGENT, { agentIds: ['agent-1', 'x'] });
    await create('p1', ScopeType.ALL_RUNS, { agentIds: ['nobody'] });
    expect(await resolve()).toMatchObject({
      matchingPolicyIds: ['p1'],
      allRunsPolicies: ['p1', 'p1'],
      agentPolicies: ['p1', 'p1'],
      scopesEvaluated: 4,
    });
  });

  test('policies are in code point order', async () => {
    for (const policyId of ['b', '\u{1f600}', '\uffee', 'B', 'ä']) await create(policyId, undefined);
    expect((await resolve()).matchingPolicyIds).toEqual(['B', 'b', 'ä', '\uffee', '\u{1f600}']);
  });

  test('an empty id is an id; letter case counts', async () => {
    await create('p1', ScopeType.AGENT, { agentIds: ['', 'ü "x"'] });
    expect((await resolve({ tenantId: 't1', agentId: '' })).agentPolicies).toEqual(['p1']);
    expect((await resolve({ tenantId: 't1', agentId: 'ü "x"' })).agentPolicies).toEqual(['p1']);
    expect((await resolve({ tenantId: 't1', agentId: 'Ü "x"' })).agentPolicies).toEqual([]);
    expect((await resolve({ tenantId: 't1' })).agentPolicies).toEqual([]);
    expect(await sidecar.sql('select agent_ids_json from public.policy_scopes')).toEqual([
      { agent_ids_json: '["", "\\u00fc \\"x\\""]' },
    ]);
    expect((await refusal(resolve({ tenantId: 'a\0' }))).fields).toEqual(['context.tenant_id']);
    expect((await refusal(caller().unary(rpc.resolveApplicablePolicies, {}))).fields).toEqual(['context']);
  });

  test('what others stored: keys of objects, parts of texts, and what cannot be read', async () => {
    const store = (id: number, json: string) =>
      sidecar.sql(
        `insert into public.policy_scopes (id, scope_id, policy_id, tenant_id, scope_type, agent_ids_json)
        values ($1::int, 'S' || $1::int, 'p' || $1::int, 't1', 'agent', $2) on conflict (id) do update set agent_ids_json = $2`,
        [id, json],
      );
    await store(1, '{"agent-1": false}');
    await store(2, '{"x": "agent-1"}');
    await store(3, '"xx agent-1 yy"');
    await store(4, '[1, true, null, "agent-1"]');
    await store(5, '');
    expect((await resolve()).agentPolicies).toEqual(['p1', 'p3', 'p4']);
    for (const json of ['null', '7', 'true', '[agent-1]', '{']) {
      await store(3, json);
      expect(await refusal(resolve())).toMatchObject({
        code: 'FAILED_PRECONDITION',
        reason: 'SCOPE_UNREADABLE',
        metadata: { scope_id: 'S3' },
      });
      expect((await resolve({ tenantId: 't1' })).scopesEvaluated).toBe(5);
    }
    const { scope } = await caller().unary(rpc.getScopeForPolicy, { policyId: 'p4', tenantId: 't1' });
    expect(scope).toMatchObject({ agentIdsJson: '[1, true, null, "agent-1"]', agentIds: ['agent-1'] });
    const broken = await caller().unary(rpc.getScopeForPolicy, { policyId: 'p3', tenantId: 't1' });
    expect(broken.scope).toMatchObject({ agentIdsJson: '{', agentIds: [] });
  });

  test('one given scope', async () => {
    const matches = async (scope: object, context: object = RUN) =>
      (await caller().unary(rpc.matchesScope, { scope: scope as never, context: context as never })).matches;
    expect(await matches({ scopeType: ScopeType.ALL_RUNS, agentIdsJson: '{' })).toBe(true);
    expect(await matches({ scopeType: ScopeType.AGENT, agentIdsJson: '["agent-1"]' })).toBe(true);
    expect(await matches({ scopeType: ScopeType.AGENT, agentIds: ['agent-1'] })).toBe(true);
    expect(await matches({ scopeType: ScopeType.AGENT, agentIds: ['agent-1'], agentIdsJson: '[]' })).toBe(false);
    expect(await matches({ scopeType: ScopeType.API_KEY, agentIds: ['agent-1'] })).toBe(false);
    expect(await matches({ scopeType: ScopeType.HUMAN_ACTOR, humanActorIds: ['u-1'], tenantId: 'other' })).toBe(true);
    expect(await matches({ scopeType: ScopeType.AGENT, agentIdsJson: '{' }, { tenantId: 't' })).toBe(false);
    expect((await refusal(matches({ scopeType: ScopeType.AGENT, agentIdsJson: '{' }))).fields).toEqual(['scope']);
    expect((await refusal(matches({}))).fields).toEqual(['scope.scope_type']);
    expect((await refusal(caller().unary(rpc.matchesScope, {}))).fields).toEqual(['scope', 'context']);
  });

  test('the first scope of a policy', async () => {
    const first = await create('p1', undefined, { description: 'all' });
    await create('p1', ScopeType.AGENT);
    const get = async (policyId: string, tenantId: string) =>
      (await caller().unary(rpc.getScopeForPolicy, { policyId, tenantId })).scope;
    expect(await get('p1', 't1')).toEqual(first);
    expect(await get('p1', 't2')).toBe(undefined);
    expect(await get('', '')).toBe(undefined);
  });

  test('scopes are made, changed, listed and deleted', async () => {
    const scope = await create('p1', ScopeType.AGENT, { agentIds: ['a', 'b'], createdBy: 'me' });
    expect(scope).toMatchObject({
      policyId: 'p1',
      tenantId: 't1',
      scopeType: ScopeType.AGENT,
      agentIdsJson: '["a", "b"]',
      agentIds: ['a', 'b'],
      apiKeyIds: [],
      createdBy: 'me',
    });
    expect(scope.scopeId).toMatch(/^SCOPE-[0-9a-f]{12}$/);
    expect([scope.apiKeyIdsJson, scope.humanActorIdsJson, scope.description]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(scope.updatedAt).toEqual(scope.createdAt);
    const { scopeId } = scope;
    const update = async (paths: string[], updates: object, tenantId = 't1') =>
      (await caller().unary(rpc.updateScope, { tenantId, scopeId, updates, updateMask: { paths } }, single)).scope;
    const changed = await update(['scope_type', 'api_key_ids', 'agent_ids', 'description'], {
      scopeType: ScopeType.API_KEY,
      apiKeyIds: { values: ['k'] },
      description: '',
      humanActorIds: { values: ['ignored'] },
    });
    expect(changed).toMatchObject({ scopeType: ScopeType.API_KEY, apiKeyIds: ['k'], agentIds: [], description: '' });
    expect([changed!.agentIdsJson, changed!.humanActorIdsJson]).toEqual([undefined, undefined]);
    expect(changed!.updatedAt).not.toEqual(scope.updatedAt);
    expect(await update(['description'], {}, 't2')).toBe(undefined);
    expect((await update(['description'], {}))!.description).toBe(undefined);
    expect((await refusal(update([], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(update(['policy_id'], {}))).fields).toEqual(['update_mask']);
    expect((await refusal(update(['scope_type'], {}))).fields).toEqual(['updates.scope_type']);
    const long = 'x'.repeat(65);
    const tooLong = create(long, 9 as ScopeType, { createdBy: long, tenantId: long, agentIds: ['a', '\0'] });
    expect([...(await refusal(tooLong)).fields].sort()).toEqual([
      'agent_ids[1]',
      'created_by',
      'policy_id',
      'scope_type',
      'tenant_id',
    ]);

    await create('p2', undefined);
    await create('p1', undefined);
    await create('p1', undefined, { tenantId: 't2' });
    const list = async (more: object = {}) =>
      (await caller().unary(rpc.fetchScopes, { tenantId: 't1', ...more })).scopes.map(({ policyId }) => policyId);
    expect(await list()).toEqual(['p1', 'p2', 'p1']);
    expect(await list({ policyId: 'p1' })).toEqual(['p1', 'p1']);
    expect(await list({ policyId: '' })).toHaveLength(3);
    expect(await list({ limit: 1, offset: 1 })).toEqual(['p2']);
    expect(await list({ limit: 0 })).toEqual([]);
    expect((await refusal(list({ limit: -1 }))).fields).toEqual(['limit']);

    const remove = async (tenantId: string) =>
      (await caller().unary(rpc.deleteScope, { tenantId, scopeId }, single)).rowsAffected;
    expect(await remove('t2')).toBe(0n);
    expect(await remove('t1')).toBe(1n);
    expect(await remove('t1')).toBe(0n);
    expect((await refusal(caller().unary(rpc.deleteScope, {}))).reason).toBe('TRANSACTION_REQUIRED');
  });
});

test('a type that nobody knows fails the resolution, not a list', async () => {
  await sidecar.sql('alter table public.policy_scopes drop constraint ck_policy_scopes_scope_type');
  await sidecar.sql(
    `insert into public.policy_scopes (scope_id, policy_id, tenant_id, scope_type) values ('S1', 'p1', 't1', 'team')`,
  );
  const error = await refusal(sidecar.grpc.unary(rpc.resolveApplicablePolicies, { context: { tenantId: 't1' } }));
  expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'SCOPE_UNREADABLE' });
  expect(error.message).toContain("'team' is not a valid ScopeType");
  const { scopes } = await sidecar.grpc.unary(rpc.fetchScopes, { tenantId: 't1' });
  expect(scopes.map(({ scopeType }) => scopeType)).toEqual([ScopeType.UNSPECIFIED]);
});
