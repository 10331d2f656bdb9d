import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { PolicyProposalWriteService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import {
  EnforcementMode,
  IntegrityStatus,
  PolicyRulesService,
  RuleScope,
  RuleSource,
  RuleStatus,
} from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { PolicyRulesReadService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_read_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyRulesService.method;
const single = { transaction: 'single-use' };
const text = (value: string) => ({ kind: { case: 'stringValue' as const, value } });

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy_rules cascade'));

describe.each(['grpc', 'connect'] as const)('rules and verdicts over %s', (listener) => {
  const caller = () => sidecar[listener];
  const create = (fields: object = {}) =>
    caller().unary(rpc.createRule, { id: randomUUID(), tenantId: 't', name: 'n', ...fields }, single);
  const verdict = (ruleId: string, fields: object = {}) =>
    caller().unary(
      rpc.createIntegrity,
      {
        id: randomUUID(),
        ruleId,
        integrityStatus: IntegrityStatus.VERIFIED,
        integrityScore: '1.000',
        hashRoot: 'h',
        ...fields,
      },
      single,
    );
  const find = async (ruleId: string, tenantId = 't') =>
    (await caller().unary(rpc.fetchRuleById, { tenantId, ruleId })).rule;

  test('a rule of three fields takes the defaults', async () => {
    const { rule } = await create({ id: 'r' });
    expect(rule).toMatchObject({
      id: 'r',
      enforcementMode: EnforcementMode.WARN,
      scope: RuleScope.TENANT,
      status: RuleStatus.ACTIVE,
      source: RuleSource.MANUAL,
      ruleType: 'SYSTEM',
    });
    for (const field of ['description', 'scopeId', 'conditions', 'retiredAt', 'parentRuleId'] as const) {
      expect(rule?.[field]).toBeUndefined();
    }
    expect(await find('r')).toEqual(rule);
    const [row] = await sidecar.sql('select conditions is null as is_null, priority from policy_rules');
    expect(row).toEqual({ is_null: true, priority: 100 });
  });

  test('every field of a rule comes back as it was sent', async () => {
    await create({ id: 'parent' });
    const rule = {
      id: 'whole',
      tenantId: 't',
      name: 'ü"\\🚀',
      description: '',
      enforcementMode: EnforcementMode.DISABLED,
      scope: RuleScope.PROJECT,
      scopeId: 'p',
      conditions: { kind: { case: 'nullValue' as const, value: 0 } },
      status: RuleStatus.RETIRED,
      createdBy: 'ann',
      source: RuleSource.LEARNED,
      ruleType: 'x'.repeat(50),
      sourceProposalId: 's',
      parentRuleId: 'parent',
      legacyRuleId: 'l',
      retiredAt: { seconds: 1n, nanos: 1_000 },
      retiredBy: 'bob',
      retirementReason: 'why',
      supersededBy: 'parent',
      createdAt: { seconds: -62_135_596_800n, nanos: 0 },
      updatedAt: { seconds: 253_402_300_799n, nanos: 999_999_000 },
    };
    const { rule: stored } = await caller().unary(rpc.addRule, { rule }, single);
    expect(stored).toMatchObject(rule);
    expect(await find('whole')).toEqual(stored);
  });

  test('missing fields, and long texts are all named', async () => {
    expect(await refusal(caller().unary(rpc.createRule, { name: 'x'.repeat(257) }, single))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: ['id', 'tenant_id', 'name'],
    });
    const added = await refusal(caller().unary(rpc.addRule, { rule: { id: 'r', ruleType: 'x'.repeat(51) } }, single));
    expect([...added.fields].sort()).toEqual(['rule.name', 'rule.rule_type', 'rule.tenant_id']);
    expect((await refusal(caller().unary(rpc.addRule, {}, single))).fields).toEqual(['rule']);
  });

  test('an id twice, and a parent that is not there', async () => {
    await create({ id: 'r' });
    expect(await refusal(create({ id: 'r', tenantId: 'other' }))).toMatchObject({
      code: 'ALREADY_EXISTS',
      reason: 'UNIQUE_VIOLATION',
      metadata: { constraint: 'policy_rules_pkey' },
    });
    expect(await refusal(create({ parentRuleId: 'nobody' }))).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(await find('r', 'other')).toBeUndefined();
  });

  test('a verdict: rounded score, one a rule, only of a rule', async () => {
    await create({ id: 'r' });
    const { integrity } = await verdict('r', { integrityScore: '0.12345', details: text('d') });
    expect(integrity).toMatchObject({
      ruleId: 'r',
      integrityScore: '0.123',
      integrityStatus: IntegrityStatus.VERIFIED,
      details: text('d'),
    });
    expect(await refusal(verdict('r'))).toMatchObject({
      code: 'ALREADY_EXISTS',
      metadata: { constraint: 'policy_rule_integrity_rule_id_key' },
    });
    expect(await refusal(verdict('nobody'))).toMatchObject({ code: 'FAILED_PRECONDITION' });
    await create({ id: 'r2' });
    expect(await refusal(verdict('r2', { integrityScore: 'NaN' }))).toMatchObject({ fields: ['integrity_score'] });
    const given = {
      id: 'v',
      ruleId: 'r2',
      integrityStatus: IntegrityStatus.FAILED,
      integrityScore: '9.999',
      hashRoot: '',
    };
    const added = await caller().unary(rpc.addIntegrity, { integrity: given }, single);
    expect(added.integrity).toMatchObject(given);
  });

  // Only the column used to refuse what is too large: the field went unnamed and the transaction was lost.
  test('a score without room in its column is refused by name, and the transaction goes on', async () => {
    await create({ id: 'r' });
    const begun = await caller().unary(TransactionService.method.begin, {});
    const transaction = begun.transaction!.id!;
    const given = (integrityScore: string) =>
      caller().unary(
        rpc.createIntegrity,
        { id: 'v', ruleId: 'r', integrityStatus: IntegrityStatus.VERIFIED, integrityScore, hashRoot: 'h' },
        { transaction },
      );
    for (const score of [
      '10',
      '-10',
      '9.9995',
      '-9.99950',
      '1e1',
      '0.1e2',
      '0.99995e1',
      '00099.9',
      '1e9999',
      '9'.repeat(400),
    ]) {
      expect(await refusal(given(score))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['integrity_score'] });
    }
    const kept: Record<string, string> = {
      '9.99949999': '9.999',
      '-9.9994': '-9.999',
      '1e-9999': '0.000',
      '000.0005': '0.001',
      '.5': '0.500',
      '+5.': '5.000',
      [`9.998${'9'.repeat(300)}`]: '9.999',
    };
    for (const [score, stored] of Object.entries(kept)) {
      expect((await given(score)).integrity?.integrityScore).toBe(stored);
      await caller().unary(
        PolicyProposalWriteService.method.deletePolicyRule,
        { tenantId: 't', ruleId: 'r' },
        { transaction },
      );
      await caller().unary(rpc.createRule, { id: 'r', tenantId: 't', name: 'n' }, { transaction });
    }
    await caller().unary(TransactionService.method.commit, { transactionId: transaction });
  });

  test('rule and verdict in one transaction: both or none', async () => {
    const begin = async () => (await caller().unary(TransactionService.method.begin, {})).transaction!.id!;
    const store = async (transaction: string, id: string) => {
      await caller().unary(rpc.createRule, { id, tenantId: 't', name: 'n' }, { transaction });
      await caller().unary(
        rpc.createIntegrity,
        { id, ruleId: id, integrityStatus: IntegrityStatus.VERIFIED, integrityScore: '1', hashRoot: 'h' },
        { transaction },
      );
      await caller().unary(rpc.flush, {}, { transaction });
      const inside = await caller().unary(rpc.fetchRuleById, { tenantId: 't', ruleId: id }, { transaction });
      expect(inside.rule?.id).toBe(id);
      expect(await find(id)).toBeUndefined();
    };
    const kept = await begin();
    await store(kept, 'kept');
    await caller().unary(TransactionService.method.commit, { transactionId: kept });
    const dropped = await begin();
    await store(dropped, 'dropped');
    await caller().unary(TransactionService.method.rollback, { transactionId: dropped });
    expect((await find('kept'))?.id).toBe('kept');
    expect(await find('dropped')).toBeUndefined();
  });

  test('an update changes what its mask names', async () => {
    const { rule } = await create({ id: 'r', description: 'd', conditions: text('c') });
    const update = (paths: string[], updates: object, ruleId = 'r') =>
      caller().unary(rpc.updateRule, { tenantId: 't', ruleId, updates, updateMask: { paths } }, single);
    const { rule: changed } = await update(['enforcement_mode', 'description'], {
      enforcementMode: EnforcementMode.BLOCK,
      name: 'ignored',
    });
    expect(changed).toMatchObject({ enforcementMode: EnforcementMode.BLOCK, name: 'n', conditions: text('c') });
    expect(changed?.description).toBeUndefined();
    expect(changed?.updatedAt).toEqual(rule?.updatedAt);
    expect((await update(['name'], { name: 'x' }, 'nobody')).rule).toBeUndefined();
    expect(await refusal(update([], {}))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['update_mask'] });
    expect(await refusal(update(['id'], {}))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['update_mask'] });
    expect(await refusal(update(['name'], {}))).toMatchObject({ code: 'INVALID_ARGUMENT' });
    // What is left unset used to be named only once the rest was right; what the mask leaves out was refused, too.
    const wrong = await refusal(update(['rule_type', 'name', 'source'], { ruleType: 'x'.repeat(51) }));
    expect([...wrong.fields].sort()).toEqual(['updates.name', 'updates.rule_type', 'updates.source']);
    expect((await update(['scope_id'], { scopeId: 's', name: 'x'.repeat(257) })).rule).toMatchObject({ name: 'n' });
    const stamp = { seconds: 5n, nanos: 7_000 };
    expect((await update(['updated_at'], { updatedAt: stamp })).rule?.updatedAt).toMatchObject(stamp);
  });

  test('a retired rule says who, why and what follows; retiring again overwrites', async () => {
    await create({ id: 'next' });
    await create({ id: 'r' });
    const retire = (fields: object = {}) =>
      caller().unary(rpc.retireRule, { tenantId: 't', ruleId: 'r', by: 'ann', reason: 'old', ...fields }, single);
    const { rule } = await retire({ supersededBy: 'next' });
    expect(rule).toMatchObject({
      status: RuleStatus.RETIRED,
      retiredBy: 'ann',
      retirementReason: 'old',
      supersededBy: 'next',
    });
    expect(rule?.retiredAt).toBeDefined();
    expect((await retire()).rule?.supersededBy).toBeUndefined();
    expect((await retire({ tenantId: 'other' })).rule).toBeUndefined();
  });

  test('who looks at the older columns alone takes no retired rule for active', async () => {
    await create({ id: 'active' });
    await create({ id: 'born retired', status: RuleStatus.RETIRED });
    await create({ id: 'retired' });
    await create({ id: 'updated' });
    await caller().unary(rpc.retireRule, { tenantId: 't', ruleId: 'retired' }, single);
    const update = { updates: { status: RuleStatus.RETIRED }, updateMask: { paths: ['status'] } };
    await caller().unary(rpc.updateRule, { tenantId: 't', ruleId: 'updated', ...update }, single);
    const renamed = { updates: { name: 'other' }, updateMask: { paths: ['name'] } };
    await caller().unary(rpc.updateRule, { tenantId: 't', ruleId: 'active', ...renamed }, single);
    expect(await sidecar.sql('select id, is_active, mode from policy_rules order by id')).toEqual([
      { id: 'active', is_active: true, mode: 'active' },
      { id: 'born retired', is_active: null, mode: null },
      { id: 'retired', is_active: null, mode: null },
      { id: 'updated', is_active: null, mode: null },
    ]);
  });

  test.each([
    ['addRule', { rule: { id: 'r', tenantId: 't', name: 'n' } }],
    ['createRule', { id: 'r', tenantId: 't', name: 'n' }],
    ['flush', {}],
    ['retireRule', { tenantId: 't', ruleId: 'r' }],
  ] as const)('%s without a transaction is refused', async (name, request) => {
    const error = await refusal(caller().unary(rpc[name], request as never));
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_REQUIRED' });
    expect(await sidecar.sql('select from policy_rules')).toHaveLength(0);
  });
});

describe.each(['grpc', 'connect'] as const)('rules with verdicts and triggers over %s', (listener) => {
  const caller = () => sidecar[listener];
  const read = PolicyRulesReadService.method;

  beforeEach(async () => {
    await sidecar.sql(`insert into policy_rules (id, tenant_id, name, status, enforcement_mode, scope, source, rule_type, created_at) values
      ('a', 't', 'a', 'ACTIVE', 'BLOCK', 'GLOBAL', 'MANUAL', 'SYSTEM', '2025-01-01Z'),
      ('b', 't', 'b', 'ACTIVE', 'WARN', 'TENANT', 'SYSTEM', 'SAFETY', '2025-01-02Z'),
      ('c', 't', 'c', 'ACTIVE', 'WARN', 'TENANT', 'SYSTEM', 'SAFETY', '2025-01-02Z'),
      ('d', 't', 'no verdict', 'ACTIVE', 'WARN', 'TENANT', 'SYSTEM', 'SAFETY', '2025-01-03Z'),
      ('e', 't', 'retired', 'RETIRED', 'WARN', 'TENANT', 'SYSTEM', 'SAFETY', '2025-01-03Z'),
      ('f', 'other', 'f', 'ACTIVE', 'WARN', 'TENANT', 'SYSTEM', 'SAFETY', '2025-01-03Z')`);
    await sidecar.sql(`insert into policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root)
      select id, id, 'DEGRADED', 0.5, 'h' from policy_rules where id <> 'd'`);
    await sidecar.sql(`insert into policy_enforcements (id, tenant_id, rule_id, action_taken, triggered_at) values
      ('1', 't', 'a', 'BLOCKED', now() - interval '29 days 23 hours'),
      ('2', 'another', 'a', 'BLOCKED', now() - interval '20 days'),
      ('3', 't', 'b', 'WARNED', now() - interval '31 days')`);
  });
  const list = (fields: object = {}) => caller().unary(read.fetchPolicyRules, { tenantId: 't', ...fields });
  const ids = async (fields: object = {}) => (await list(fields)).items.map(({ ruleId }) => ruleId);

  test('last triggered first, then newest, ties by id; the total counts rules without a verdict', async () => {
    const { items, total } = await list();
    expect(items.map(({ ruleId }) => ruleId)).toEqual(['a', 'c', 'b']);
    expect(total).toBe(4n);
    expect(items[0]).toMatchObject({
      triggerCount30d: 2n,
      integrityStatus: IntegrityStatus.DEGRADED,
      integrityScore: '0.500',
    });
    expect(items[0]?.lastTriggeredAt).toBeDefined();
    expect(items[2]).toMatchObject({ ruleId: 'b', triggerCount30d: 0n });
    expect(items[2]?.lastTriggeredAt).toBeUndefined();
  });

  test('filters', async () => {
    expect(await ids({ enforcementMode: EnforcementMode.BLOCK })).toEqual(['a']);
    expect(await ids({ scope: RuleScope.TENANT, source: RuleSource.SYSTEM, ruleType: 'SAFETY' })).toEqual(['c', 'b']);
    expect(await ids({ status: RuleStatus.RETIRED })).toEqual(['e']);
    const day = { seconds: BigInt(Date.parse('2025-01-02T00:00:00Z') / 1000), nanos: 0 };
    expect(await ids({ createdAfter: day })).toEqual(['c', 'b']);
    expect(await ids({ createdBefore: day })).toEqual(['a', 'c', 'b']);
    const nothing = await list({ ruleType: '' });
    expect([nothing.items.length, nothing.total]).toEqual([0, 4n]);
    expect(await refusal(list({ status: 0 }))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['status'] });
  });

  test('pages', async () => {
    expect(await ids({ limit: 1 })).toEqual(['a']);
    expect(await ids({ limit: 1, offset: 1 })).toEqual(['c']);
    expect(await ids({ limit: 0 })).toEqual([]);
    expect(await ids({ limit: 2_147_483_647, offset: 2_147_483_647 })).toEqual([]);
    expect(await refusal(list({ limit: -1, offset: -1 }))).toMatchObject({ fields: ['limit', 'offset'] });
  });

  test('one rule, hidden without a verdict or from another tenant', async () => {
    const one = async (ruleId: string, tenantId = 't') =>
      (await caller().unary(read.fetchPolicyRuleById, { tenantId, ruleId })).rule;
    expect(await one('e')).toMatchObject({ ruleId: 'e', status: RuleStatus.RETIRED, triggerCount30d: 0n });
    expect((await one('a'))?.ruleDefinition).toBeUndefined();
    expect(await one('d')).toBeUndefined();
    expect(await one('f')).toBeUndefined();
  });

  test('counts ignore verdicts', async () => {
    const count = async (fields: object) =>
      (await caller().unary(read.countPolicyRules, { tenantId: 't', ...fields })).count;
    expect(await count({})).toBe(4n);
    expect(await count({ status: RuleStatus.RETIRED })).toBe(1n);
    expect(await count({ tenantId: 'nobody' })).toBe(0n);
  });
});
