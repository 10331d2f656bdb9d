import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { jsonToValue, valueToJson } from '../../src/database/values.ts';
import { PolicyProposalReadService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_read_pb.ts';
import { PolicyProposalWriteService } from '../../src/gen/hoc/cus/policies/v1/policy_proposal_write_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const read = PolicyProposalReadService.method;
const write = PolicyProposalWriteService.method;
const review = ProposalsReadService.method;
const single = { transaction: 'single-use' };
const NOBODY = '00000000-0000-0000-0000-000000000000';

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy_proposals, policy_versions, policy_rules, pattern_feedback cascade'));

interface Row {
  readonly tenant?: string;
  readonly status?: string;
  readonly type?: string;
  readonly at?: string;
  readonly synthetic?: boolean;
  readonly rule?: string;
  readonly feedback?: string;
}

const propose = async (row: Row = {}): Promise<string> => {
  const [stored] = await sidecar.sql<{ id: string }>(
    `insert into policy_proposals (tenant_id, proposal_name, proposal_type, rationale, proposed_rule, triggering_feedback_ids, status, created_at, is_synthetic)
     values ($1, 'n', $2, 'r', $3, $4, $5, $6, $7) returning id`,
    [
      row.tenant ?? 't',
      row.type ?? 'cost_cap',
      row.rule ?? '{"a": 1}',
      row.feedback ?? '[]',
      row.status ?? 'draft',
      row.at ?? '2025-01-01T00:00:00Z',
      row.synthetic ?? false,
    ],
  );
  return stored!.id;
};

describe.each(['grpc', 'connect'] as const)('writing proposals over %s', (listener) => {
  const caller = () => sidecar[listener];
  const create = (fields: object = {}) =>
    caller().unary(
      write.createProposal,
      {
        tenantId: 't',
        proposalName: 'n',
        proposalType: 'cost_cap',
        rationale: 'r',
        proposedRule: jsonToValue({ max: 1.5 }),
        triggeringFeedbackIds: ['f1', 'f2'],
        ...fields,
      },
      single,
    );

  test('a proposal is a draft made now', async () => {
    const { id } = await create({ tenantId: 'ü', triggeringFeedbackIds: [] });
    const { proposal } = await caller().unary(read.fetchProposalById, { proposalId: id });
    expect(proposal).toMatchObject({ tenantId: 'ü', status: 'draft', isSynthetic: false });
    expect(valueToJson(proposal!.proposedRule!)).toEqual({ max: 1.5 });
    expect(valueToJson(proposal!.triggeringFeedbackIds!)).toEqual([]);
    expect(proposal?.reviewedAt).toBeUndefined();
    expect(Math.abs(Number(proposal!.createdAt!.seconds) - Date.now() / 1000)).toBeLessThan(60);
    expect(await refusal(create({ proposalName: 'x'.repeat(256), rationale: 'a\0' }))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: ['proposal_name', 'rationale'],
    });
    const alone = { tenantId: 't', proposalName: 'n', proposalType: 'custom', rationale: 'r' };
    expect(await refusal(caller().unary(write.createProposal, alone))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'TRANSACTION_REQUIRED',
    });
  });

  // They used to be refused, where the original's column cuts them.
  test('spaces at the end that are too many for the column are cut', async () => {
    const name = 'ü'.repeat(255);
    const { id } = await create({ proposalName: `${name}   `, proposalType: `${'x'.repeat(49)}  ` });
    const { proposal } = await caller().unary(read.fetchProposalById, { proposalId: id });
    expect(proposal).toMatchObject({ proposalName: name, proposalType: `${'x'.repeat(49)} ` });
    expect(await refusal(create({ proposalName: `${name} x` }))).toMatchObject({ fields: ['proposal_name'] });
  });

  test('a review sets all five columns', async () => {
    const { id } = await create();
    const update = (fields: object) =>
      caller().unary(write.updateProposalStatus, { proposalId: id, newStatus: 'approved', ...fields }, single);
    const reviewedAt = { seconds: 1_750_000_000n, nanos: 123_456_000 };
    const reviewed = { reviewedAt, reviewedBy: 'ann', reviewNotes: '', effectiveFrom: reviewedAt };
    expect((await update(reviewed)).rowsAffected).toBe(1n);
    const find = async () => (await caller().unary(review.getProposalDetail, { proposalId: id })).proposal;
    expect(await find()).toMatchObject({ status: 'approved', reviewedAt, reviewedBy: 'ann', reviewNotes: '' });
    await update({ newStatus: 'rejected' });
    const cleared = await find();
    expect(cleared?.status).toBe('rejected');
    expect([cleared?.reviewedAt, cleared?.reviewedBy, cleared?.effectiveFrom]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect((await update({ proposalId: NOBODY })).rowsAffected).toBe(0n);
    expect(await refusal(update({ newStatus: 'x'.repeat(21) }))).toMatchObject({ fields: ['new_status'] });
    expect(await refusal(update({ proposalId: 'x' }))).toMatchObject({ fields: ['proposal_id'] });
  });

  test('versions repeat, and belong to a proposal', async () => {
    const { id } = await create();
    const version = (versionNumber: number, fields: object = {}) =>
      caller().unary(
        write.createVersion,
        {
          proposalId: id,
          versionNumber,
          ruleSnapshot: jsonToValue({ v: versionNumber }),
          createdBy: 'ann',
          changeReason: 'c',
          ...fields,
        },
        single,
      );
    await version(1);
    await version(2);
    await version(2);
    expect((await caller().unary(read.countVersionsForProposal, { proposalId: id })).count).toBe(3n);
    const { versions } = await caller().unary(review.listProposalVersions, { proposalId: id });
    expect(versions.map((each) => each.version)).toEqual([2, 2, 1]);
    expect([versions[0]!.id, versions[1]!.id]).toEqual([versions[0]!.id, versions[1]!.id].sort().reverse());
    const streamed = await collect(caller().stream(review.streamProposalVersions, { proposalId: id }));
    expect(streamed.map((each) => each.version)).toEqual(versions);
    expect((await caller().unary(review.listProposalVersions, { proposalId: NOBODY })).versions).toEqual([]);
    expect(await refusal(version(1, { proposalId: NOBODY }))).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  test('a rule of a proposal: cut, defaulted, and never another tenant’s', async () => {
    const rule = (fields: object = {}) =>
      caller().unary(
        write.createPolicyRule,
        {
          ruleId: 'rule_1',
          tenantId: 't',
          name: 'n',
          description: '🚀'.repeat(501),
          ruleType: 'retry_policy',
          conditions: jsonToValue({ c: 1 }),
          actions: jsonToValue([]),
          ...fields,
        },
        single,
      );
    expect(await rule()).toMatchObject({ ruleId: 'rule_1', created: true });
    expect(await rule({ tenantId: 'other', name: 'stolen' })).toMatchObject({ ruleId: 'rule_1', created: false });
    const [row] = await sidecar.sql(
      `select tenant_id, name, char_length(description) as length, enforcement_mode, scope, status, priority, mode,
       source_type, confirmations_received, activated_at = created_at as at_once from policy_rules`,
    );
    expect(row).toEqual({
      tenant_id: 't',
      name: 'n',
      length: 500,
      enforcement_mode: 'WARN',
      scope: 'TENANT',
      status: 'ACTIVE',
      priority: 100,
      mode: 'active',
      source_type: 'proposal',
      confirmations_received: 1,
      at_once: true,
    });
    expect((await caller().unary(read.checkRuleExists, { ruleId: 'rule_1' })).exists).toBe(true);
    expect((await caller().unary(read.checkRuleExists, {})).exists).toBe(false);
    const find = async (tenantId: string) =>
      (await caller().unary(read.fetchRuleById, { ruleId: 'rule_1', tenantId })).rule;
    expect(await find('t')).toMatchObject({ id: 'rule_1', name: 'n' });
    expect(await find('other')).toBeUndefined();
    await sidecar.sql(`insert into policy_rule_integrity (id, rule_id, integrity_status, integrity_score, hash_root)
      values ('i', 'rule_1', 'VERIFIED', 1, 'h')`);
    const remove = async (tenantId: string) =>
      (await caller().unary(write.deletePolicyRule, { ruleId: 'rule_1', tenantId }, single)).rowsAffected;
    expect(await remove('other')).toBe(0n);
    expect(await remove('t')).toBe(1n);
    expect(await remove('t')).toBe(0n);
    expect(await sidecar.sql('select from policy_rule_integrity')).toEqual([]);
    expect(await refusal(caller().unary(write.deletePolicyRule, { ruleId: 'r', tenantId: 't' }))).toMatchObject({
      reason: 'TRANSACTION_REQUIRED',
    });
  });
});

describe.each(['grpc', 'connect'] as const)('reading proposals over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('feedback that nobody acknowledged', async () => {
    await sidecar.sql(`insert into pattern_feedback (tenant_id, pattern_type, description, signature, acknowledged) values
      ('t', 'cost_spike', 'd', 's', false), ('t', 'failure_pattern', 'd', null, false), ('u', 'cost_spike', 'd', '', false),
      ('t', 'cost_spike', 'd', 's', true)`);
    const list = async (request: object) => (await caller().unary(read.fetchUnacknowledgedFeedback, request)).feedback;
    expect(await list({})).toHaveLength(3);
    expect(await list({ tenantId: '', feedbackType: '' })).toHaveLength(3);
    expect(await list({ tenantId: 't', feedbackType: 'failure_pattern' })).toMatchObject([{ tenantId: 't' }]);
    const [bare] = await list({ feedbackType: 'failure_pattern' });
    expect(bare?.signature).toBeUndefined();
    const all = await list({});
    expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).sort());
    const streamed = await collect(caller().stream(read.streamUnacknowledgedFeedback, { tenantId: 'u' }));
    expect(streamed.map(({ feedback }) => feedback?.signature)).toEqual(['']);
  });

  test('one proposal and its status', async () => {
    const id = await propose({ rule: 'null', feedback: '"text"' });
    const { proposal } = await caller().unary(read.fetchProposalById, { proposalId: id.toUpperCase() });
    expect(proposal?.id).toBe(id);
    expect(valueToJson(proposal!.proposedRule!)).toBeNull();
    const status = async (proposalId: string) =>
      (await caller().unary(read.fetchProposalStatus, { proposalId })).status;
    expect(await status(id)).toBe('draft');
    expect(await status(NOBODY)).toBeUndefined();
    expect((await caller().unary(read.fetchProposalById, { proposalId: NOBODY })).proposal).toBeUndefined();
    const { proposal: reviewed } = await caller().unary(review.fetchProposalById, { tenantId: 't', proposalId: id });
    expect(valueToJson(reviewed!.proposedRule!)).toEqual({});
    expect(reviewed).toMatchObject({ triggeringFeedbackCount: 0 });
    expect(valueToJson(reviewed!.triggeringFeedbackIds!)).toBe('text');
    const foreign = await caller().unary(review.fetchProposalById, { tenantId: 'other', proposalId: id });
    expect(foreign.proposal).toBeUndefined();
    expect((await caller().unary(review.getProposalDetail, { proposalId: NOBODY })).proposal).toBeUndefined();
  });

  test('lists are newest first with ties by id, limited, and filtered by what is not empty', async () => {
    const ids = [
      await propose({ at: '2025-01-01Z' }),
      await propose({ at: '2025-01-02Z' }),
      await propose({ at: '2025-01-02Z' }),
    ];
    await propose({ tenant: 'u', status: 'approved', at: '2025-01-03Z' });
    const list = async (request: object) => (await caller().unary(read.fetchProposals, request)).proposals;
    const own = (await list({ tenantId: 't' })).map(({ id }) => id);
    expect(own).toEqual([...ids.slice(1).sort().reverse(), ids[0]]);
    expect(await list({ tenantId: '', status: '' })).toHaveLength(4);
    expect(await list({ status: 'approved' })).toMatchObject([{ tenantId: 'u' }]);
    expect(await list({ limit: 1 })).toHaveLength(1);
    expect(await list({ limit: 0 })).toEqual([]);
    expect(await refusal(list({ limit: -1 }))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['limit'] });
  });

  test('proposals for review: drafts of the tenant by default, with the badge of all drafts', async () => {
    await propose({ feedback: '["a", "b"]' });
    await propose({ synthetic: true });
    await propose({ status: 'approved', type: 'custom' });
    await propose({ tenant: 'u' });
    await propose({ at: new Date(Date.now() - 36 * 3_600_000).toISOString() });
    await propose({ at: new Date(Date.now() + 3_600_000).toISOString() });
    const list = (request: object) => caller().unary(review.fetchProposals, { tenantId: 't', ...request });
    const { items, pendingCount } = await list({});
    expect(pendingCount).toBe(3n);
    expect(items.map(({ daysPending }) => daysPending).slice(0, 2)).toEqual([-1n, 1n]);
    expect(items.at(-1)?.triggeringFeedbackCount).toBe(2);
    expect((await list({ includeSynthetic: true })).items).toHaveLength(4);
    expect((await list({ status: 'approved', proposalType: 'custom' })).items).toHaveLength(1);
    expect((await list({ daysOld: 0 })).items).toHaveLength(3);
    expect((await list({ daysOld: 1 })).items).toHaveLength(2);
    expect((await list({ daysOld: -5 })).items).toHaveLength(3);
    expect((await list({ limit: 1, offset: 2 })).items).toHaveLength(1);
    // Round bounds used to cut off the last years on both sides, which the original reaches.
    const days = (until: string) => Math.trunc((Date.now() - Date.parse(until)) / 86_400_000);
    const [first, last] = [days('0001-01-01T00:00:00Z'), days('+010000-01-01T00:00:00Z')];
    expect((await list({ daysOld: first })).items).toEqual([]);
    expect((await list({ daysOld: last })).items).toHaveLength(3);
    for (const daysOld of [first + 1, last - 1, 2 ** 31 - 1, -(2 ** 31)]) {
      expect(await refusal(list({ daysOld }))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['days_old'] });
    }
    expect((await caller().unary(review.countDraftProposals, { tenantId: 't' })).count).toBe(3n);
  });

  test.each([
    [1, 15, 6.2],
    [3, 13, 18.8],
    [1, 2, 33.3],
    [0, 0, 0],
    [2, 0, 100],
  ])('%i approved and %i rejected are %d percent', async (approved, rejected, percent) => {
    for (let index = 0; index < approved; index += 1) await propose({ status: 'approved' });
    for (let index = 0; index < rejected; index += 1) await propose({ status: 'rejected', type: 'custom' });
    await propose({ status: 'weird', synthetic: true });
    await propose({ tenant: 'u' });
    const stats = await caller().unary(review.getProposalStats, { tenantId: 't' });
    expect(stats).toMatchObject({
      total: BigInt(approved + rejected + 1),
      reviewed: BigInt(approved + rejected),
      pending: 0n,
      approvalRatePercent: percent,
    });
    expect(stats.byStatus['weird']).toBe(1n);
    expect((await caller().unary(review.getProposalStats, {})).pending).toBe(1n);
  });
});

test('pages agree with a plain model of the rows', async () => {
  const tenant = fc.constantFrom('a', 'b', '');
  const status = fc.constantFrom('draft', 'approved', 'odd');
  const type = fc.constantFrom('cost_cap', 'custom');
  const row = fc.record({ tenant, status, type, at: fc.integer({ min: 0, max: 5 }) });
  const filter = fc.option(fc.constantFrom('a', 'b', '', 'draft', 'odd', 'custom'), { nil: undefined });
  await fc.assert(
    fc.asyncProperty(
      fc.array(row, { maxLength: 25 }),
      fc.record({ tenantId: filter, status: filter, proposalType: filter }),
      fc.nat(10),
      fc.nat(10),
      async (rows, filters, limit, offset) => {
        await sidecar.sql('truncate policy_proposals cascade');
        const model = rows.map((each) => ({ ...each, id: randomUUID() }));
        await sidecar.sql(
          `insert into policy_proposals (id, tenant_id, proposal_name, proposal_type, rationale, proposed_rule, status, created_at)
           select r.id::uuid, r.tenant, 'n', r.type, 'r', '{}', r.status, '2025-01-01Z'::timestamptz + r.at * interval '1 day'
           from jsonb_to_recordset($1) as r(id text, tenant text, type text, status text, at integer)`,
          [JSON.stringify(model)],
        );
        const matching = model
          .filter((each) => !filters.tenantId || each.tenant === filters.tenantId)
          .filter((each) => !filters.status || each.status === filters.status)
          .filter((each) => !filters.proposalType || each.type === filters.proposalType)
          .sort((a, b) => b.at - a.at || (a.id < b.id ? 1 : -1));
        const given = Object.fromEntries(Object.entries(filters).filter(([, value]) => value !== undefined));
        const page = await sidecar.grpc.unary(review.listProposalsPaginated, { ...given, limit, offset });
        const expected = matching.slice(offset, offset + limit);
        expect(page.items.map(({ id }) => id)).toEqual(expected.map(({ id }) => id));
        expect(page.total).toBe(BigInt(matching.length));
        const counts = Object.values(page.byStatus).reduce((sum, count) => sum + count, 0n);
        expect(counts).toBe(BigInt(expected.length));
      },
    ),
    { numRuns: 60 },
  );
});
