import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { IntegrityTable, PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };
const CEILING = '0011cafe-00ab-4bcd-8ef0-000000000001';
const RULE = '0012cafe-00ab-4bcd-8ef0-000000000001';

const sidecar = useSidecar();
beforeEach(async () => {
  await sidecar.sql(`truncate policy.ethical_constraints, policy.risk_ceilings, policy.safety_rules,
    policy.business_rules, policy.policies, policy.temporal_policies, policy.policy_versions,
    policy.policy_dependencies, policy.snapshots`);
  await sidecar.sql(
    `insert into policy.ethical_constraints (name, description, constraint_type, forbidden_patterns, applies_to, is_active)
    values ('no "coercion"', 'd', 'no_coercion', '{a,"b,c"}', '{}', true), ('off', 'd', 'transparency', null, null, false)`,
  );
  await sidecar.sql(
    `insert into policy.risk_ceilings (id, name, metric, max_value, current_value, applies_to, tenant_id, description)
    values ($1, 'ceiling', 'cost_per_hour', 100.125, 99.5, '{x,NULL}', 't', 'cap')`.replace('NULL', '"NULL"'),
    [CEILING],
  );
  await sidecar.sql(
    `insert into policy.safety_rules (id, name, rule_type, condition, action, cooldown_seconds)
    values ($1, 'rule', 'action_block', '{"actions":["rm"]}', 'block', 30)`,
    [RULE],
  );
  await sidecar.sql(
    `insert into policy.business_rules (name, rule_type, condition, "constraint") values ('pro', 'tier_access', 'null', '[1.5]')`,
  );
});

describe.each(['grpc', 'connect'] as const)('configuration over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('only active rows are listed, and streamed alike', async () => {
    const { ethicalConstraints } = await caller().unary(rpc.fetchEthicalConstraints, {});
    expect(ethicalConstraints).toMatchObject([
      {
        name: 'no "coercion"',
        forbiddenPatterns: { values: ['a', 'b,c'] },
        appliesTo: { values: [] },
        enforcementLevel: 'strict',
        violationAction: 'block',
        isActive: true,
      },
    ]);
    expect(ethicalConstraints[0]?.requiredDisclosures).toBeUndefined();
    const { riskCeilings } = await caller().unary(rpc.fetchRiskCeilings, {});
    expect(riskCeilings).toMatchObject([
      {
        id: CEILING,
        maxValue: 100.125,
        windowSeconds: 3600,
        appliesTo: { values: ['x', 'NULL'] },
        breachAction: 'block',
      },
    ]);
    const { safetyRules } = await caller().unary(rpc.fetchSafetyRules, {});
    expect(safetyRules).toMatchObject([{ id: RULE, priority: 100, condition: { kind: { case: 'structValue' } } }]);
    const { businessRules } = await caller().unary(rpc.fetchBusinessRules, {});
    expect(businessRules).toMatchObject([
      { condition: { kind: { case: 'nullValue' } }, constraint: { kind: { case: 'listValue' } } },
    ]);
    expect(
      (await collect(caller().stream(rpc.streamEthicalConstraints, {}))).map((each) => each.ethicalConstraint),
    ).toEqual(ethicalConstraints);
    expect((await collect(caller().stream(rpc.streamRiskCeilings, {}))).map((each) => each.riskCeiling)).toEqual(
      riskCeilings,
    );
    expect((await collect(caller().stream(rpc.streamSafetyRules, {}))).map((each) => each.safetyRule)).toEqual(
      safetyRules,
    );
    expect((await collect(caller().stream(rpc.streamBusinessRules, {}))).map((each) => each.businessRule)).toEqual(
      businessRules,
    );
  });

  test('a patch changes what its mask names and nothing else', async () => {
    const patch = async (paths: string[], updates: object, ceilingId = CEILING) =>
      (await caller().unary(rpc.updateRiskCeiling, { ceilingId, updates, updateMask: { paths } }, single)).rowsAffected;
    const stored = async () => (await caller().unary(rpc.fetchRiskCeilings, {})).riskCeilings[0]!;
    const before = await stored();
    expect(
      await patch(['max_value', 'applies_to'], { maxValue: -1.5, appliesTo: { values: [''] }, name: 'ignored' }),
    ).toBe(1n);
    expect(await stored()).toMatchObject({ ...before, maxValue: -1.5, appliesTo: { values: [''] } });
    expect(await patch(['tenant_id', 'applies_to', 'description'], {})).toBe(1n);
    const cleared = await stored();
    expect([cleared.tenantId, cleared.appliesTo, cleared.description]).toEqual([undefined, undefined, undefined]);
    expect(await patch(['last_breach_at'], { lastBreachAt: { seconds: 1n, nanos: 2_000 } })).toBe(1n);
    expect(await patch(['max_value'], { maxValue: 1 }, randomUUID())).toBe(0n);
    expect(await patch([], {}, 'not-a-uuid')).toBe(0n);
    const error = await refusal(patch(['breach_action', 'metric'], { breachAction: 'x'.repeat(51) }, 'not-a-uuid'));
    const wrong = ['ceiling_id', 'updates.breach_action', 'updates.metric'];
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', fields: wrong });
    expect((await refusal(patch(['metric'], {}))).fields).toEqual(['updates.metric']);
    expect((await refusal(patch(['id'], {}))).fields).toEqual(['update_mask']);
    await sidecar.sql(`insert into policy.risk_ceilings (name, metric, max_value) values ('taken', 'm', 1)`);
    expect(await refusal(patch(['name'], { name: 'taken' }))).toMatchObject({
      code: 'ALREADY_EXISTS',
      metadata: { constraint: 'risk_ceilings_name_key' },
    });
  });

  test('resetting a ceiling zeroes its value', async () => {
    const reset = async (ceilingId: string) =>
      (await caller().unary(rpc.resetRiskCeiling, { ceilingId }, single)).rowsAffected;
    expect(await reset(CEILING.toUpperCase())).toBe(1n);
    expect((await caller().unary(rpc.fetchRiskCeilings, {})).riskCeilings[0]?.currentValue).toBe(0);
    expect(await reset(randomUUID())).toBe(0n);
    expect((await refusal(reset('x'))).fields).toEqual(['ceiling_id']);
  });

  test('a safety rule keeps JSON null and SQL NULL apart', async () => {
    const patch = (paths: string[], updates: object) =>
      caller().unary(rpc.updateSafetyRule, { ruleId: RULE, updates, updateMask: { paths } }, single);
    const nullValue = { kind: { case: 'nullValue' as const, value: 0 } };
    expect((await patch(['condition', 'priority'], { condition: nullValue, priority: 0 })).rowsAffected).toBe(1n);
    const [rule] = (await caller().unary(rpc.fetchSafetyRules, {})).safetyRules;
    expect(rule).toMatchObject({ condition: nullValue, priority: 0, cooldownSeconds: 30 });
    expect((await refusal(patch(['condition'], {}))).fields).toEqual(['updates.condition']);
    expect((await patch(['cooldown_seconds'], {})).rowsAffected).toBe(1n);
    expect((await caller().unary(rpc.fetchSafetyRules, {})).safetyRules[0]?.cooldownSeconds).toBeUndefined();
    expect((await patch([], {})).rowsAffected).toBe(0n);
  });

  test('integrity names come from the table the enum says', async () => {
    await sidecar.sql(`insert into policy.policies (name, category) values ('p', 'risk')`);
    await sidecar.sql(
      `insert into policy.temporal_policies (name, temporal_type, metric, max_value, window_seconds) values ('tp', 't', 'cost', 2.5, 60)`,
    );
    await sidecar.sql(
      `insert into policy.policy_versions (version, policy_hash, created_by, is_active) values ('1.0.0', '', '', true), ('0.9.0', '', '', false)`,
    );
    await sidecar.sql(
      `insert into policy.policy_dependencies (source_policy, target_policy, dependency_type) values ('s', 't', 'requires')`,
    );
    const expected: [IntegrityTable, string][] = [
      [IntegrityTable.ETHICAL_CONSTRAINTS, 'no "coercion"'],
      [IntegrityTable.RISK_CEILINGS, 'ceiling'],
      [IntegrityTable.SAFETY_RULES, 'rule'],
      [IntegrityTable.BUSINESS_RULES, 'pro'],
      [IntegrityTable.POLICIES, 'p'],
      [IntegrityTable.TEMPORAL_POLICIES, 'tp'],
      [IntegrityTable.POLICY_VERSIONS, '1.0.0'],
      [IntegrityTable.POLICY_DEPENDENCIES, 's'],
    ];
    for (const [table, name] of expected) {
      expect((await caller().unary(rpc.fetchActivePoliciesForIntegrity, { table })).names).toEqual([name]);
      expect(await collect(caller().stream(rpc.streamActivePoliciesForIntegrity, { table }))).toMatchObject([{ name }]);
    }
    for (const table of [0, 99] as IntegrityTable[]) {
      expect((await refusal(caller().unary(rpc.fetchActivePoliciesForIntegrity, { table }))).fields).toEqual(['table']);
    }
    const { temporalPolicies } = await caller().unary(rpc.fetchTemporalPoliciesForIntegrity, {});
    expect(temporalPolicies).toMatchObject([
      { name: 'tp', metric: 'cost', maxValue: 2.5, windowSeconds: 60, breachAction: 'block' },
    ]);
    expect(
      (await collect(caller().stream(rpc.streamTemporalPoliciesForIntegrity, {}))).map((each) => each.temporalPolicy),
    ).toEqual(temporalPolicies);
    const { ethicalConstraints } = await caller().unary(rpc.fetchEthicalConstraintsForIntegrity, {});
    expect(ethicalConstraints).toMatchObject([
      { name: 'no "coercion"', enforcementLevel: 'strict', violationAction: 'block' },
    ]);
    expect(
      (await collect(caller().stream(rpc.streamEthicalConstraintsForIntegrity, {}))).map(
        (each) => each.ethicalConstraint,
      ),
    ).toEqual(ethicalConstraints);
  });

  test('a snapshot comes back as stored; of several the newest', async () => {
    const store = (fields: object) =>
      caller().unary(
        rpc.insertSnapshot,
        { snapshotId: 'SNAP "1" ü', tenantId: 't', policyCount: 1, integrityHash: 'ab', ...fields },
        single,
      );
    const list = {
      kind: { case: 'listValue' as const, value: { values: [{ kind: { case: 'numberValue' as const, value: 1.5 } }] } },
    };
    expect((await store({})).rowsAffected).toBe(1n);
    await store({ policies: list, thresholds: { kind: { case: 'nullValue' as const, value: 0 } }, policyCount: 2 });
    const { snapshot } = await caller().unary(rpc.fetchSnapshotById, { snapshotId: 'SNAP "1" ü' });
    expect(snapshot).toMatchObject({
      policyCount: 2,
      policies: list,
      thresholds: { kind: { case: 'nullValue' } },
      integrityHash: 'ab',
    });
    expect((await caller().unary(rpc.fetchSnapshotById, { snapshotId: 'snap' })).snapshot).toBeUndefined();
    expect((await refusal(caller().unary(rpc.insertSnapshot, {}, single))).fields).toEqual(['snapshot_id']);
  });
});
