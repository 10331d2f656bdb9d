import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { IsolationLevel, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy.policy_versions'));

describe.each(['grpc', 'connect'] as const)('versions over %s', (listener) => {
  const caller = () => sidecar[listener];
  const insert = async (version: string, versionId: string = randomUUID()) =>
    (await caller().unary(rpc.insertPolicyVersion, { versionId, version, policyHash: 'h', createdBy: 'ann' }, single))
      .versionId;
  const active = async () =>
    (
      await sidecar.sql<{ version: string }>('select version from policy.policy_versions where is_active order by 1')
    ).map(({ version }) => version);
  const listed = async (request = {}) =>
    (await caller().unary(rpc.fetchPolicyVersions, request)).policyVersions.map(({ version }) => version);

  test('a new version is active beside the others', async () => {
    const id = await insert('1.0.0', randomUUID().toUpperCase());
    await insert('1.0.1');
    expect(await active()).toEqual(['1.0.0', '1.0.1']);
    const { policyVersion: current } = await caller().unary(rpc.fetchCurrentActiveVersion, {});
    expect(current).toMatchObject({ version: '1.0.1', policyHash: 'h', createdBy: 'ann' });
    const { policyVersion } = await caller().unary(rpc.fetchPolicyVersionById, { versionId: id });
    expect(policyVersion).toMatchObject({ id, version: '1.0.0' });
    expect(
      (await caller().unary(rpc.fetchPolicyVersionById, { versionId: randomUUID() })).policyVersion,
    ).toBeUndefined();
    expect((await refusal(insert('1.0.2', id))).code).toBe('ALREADY_EXISTS');
    expect((await refusal(caller().unary(rpc.insertPolicyVersion, {}, single))).fields).toEqual([
      'version_id',
      'version',
      'policy_hash',
      'created_by',
    ]);
  });

  // SQL cuts off excess spaces and the original stored such texts; ours refused them.
  test('only spaces may exceed a column', async () => {
    await insert(`${'é'.repeat(50)}   `);
    expect(await listed()).toEqual(['é'.repeat(50)]);
    expect((await refusal(insert(`${'é'.repeat(50)} x`))).fields).toEqual(['version']);
  });

  test('a version is found by id before it is found by text', async () => {
    const id = await insert('1.0.0');
    await insert(id);
    const find = async (versionId: string) =>
      (await caller().unary(rpc.fetchPolicyVersionByIdOrVersion, { versionId })).policyVersion;
    expect(await find(id.toUpperCase())).toMatchObject({ id, version: '1.0.0', isActive: true });
    expect(await find('1.0.0')).toMatchObject({ id });
    expect(await find('nope')).toBeUndefined();
  });

  test('a stamp, not inactivity, hides a version', async () => {
    await insert('1.0.0');
    const mark = await caller().unary(rpc.markVersionRolledBack, { by: 'bob' }, single);
    expect(mark.rowsAffected).toBe(1n);
    expect(await active()).toEqual(['1.0.0']);
    await insert('1.0.1');
    expect((await caller().unary(rpc.deactivateAllVersions, {}, single)).rowsAffected).toBe(2n);
    expect((await caller().unary(rpc.fetchCurrentActiveVersion, {})).policyVersion).toBeUndefined();
    expect(await listed()).toEqual(['1.0.1']);
    expect(await listed({ includeInactive: true })).toEqual(['1.0.1', '1.0.0']);
    expect(await listed({ includeInactive: true, limit: 1 })).toEqual(['1.0.1']);
    expect((await caller().unary(rpc.activateVersion, { version: '1.0.0' }, single)).rowsAffected).toBe(1n);
    expect((await caller().unary(rpc.activateVersion, { version: 'nope' }, single)).rowsAffected).toBe(0n);
    expect(await listed()).toEqual(['1.0.1']);
  });

  test('snapshots are empty until somebody fills them', async () => {
    const id = await insert('1.0.0');
    const { policyVersion } = await caller().unary(rpc.fetchVersionForRollback, { version: '1.0.0' });
    expect(policyVersion).toMatchObject({ id, safetyRulesSnapshot: { kind: { case: 'structValue', value: {} } } });
    expect((await caller().unary(rpc.fetchVersionForRollback, { version: id })).policyVersion).toBeUndefined();
  });

  test('activating exclusively leaves one version active, and listed', async () => {
    await insert('1.0.0');
    const id = await insert('1.0.1');
    await caller().unary(rpc.markVersionRolledBack, { by: 'bob' }, single);
    const answer = await caller().unary(rpc.activateVersionExclusively, { versionId: id }, single);
    expect(answer).toMatchObject({ deactivated: 1n, rowsAffected: 2n, policyVersion: { id, isActive: true } });
    expect(answer.policyVersion?.rolledBackAt).toBeUndefined();
    expect(await active()).toEqual(['1.0.1']);
    expect(await listed()).toEqual(['1.0.1']);
    const nothing = await caller().unary(rpc.activateVersionExclusively, { versionId: 'nope' }, single);
    expect(nothing).toMatchObject({ deactivated: 0n, rowsAffected: 0n });
    expect(nothing.policyVersion).toBeUndefined();
    expect(await active()).toEqual(['1.0.1']);
  });

  test('rolling back stamps what was active and leaves one version active', async () => {
    await insert('1.0.0');
    await insert('1.0.1');
    await insert('1.0.2');
    const answer = await caller().unary(rpc.rollBackToVersion, { versionId: '1.0.0', by: 'bob' }, single);
    expect(answer).toMatchObject({ rolledBack: 2n, rowsAffected: 3n, policyVersion: { version: '1.0.0' } });
    expect(await active()).toEqual(['1.0.0']);
    expect(await listed()).toEqual(['1.0.0']);
    const stamps = await sidecar.sql(
      'select version, rolled_back_by as by from policy.policy_versions where rolled_back_at is not null order by 1',
    );
    expect(stamps).toEqual([
      { version: '1.0.1', by: 'bob' },
      { version: '1.0.2', by: 'bob' },
    ]);
  });

  // With no version active, an activation changed nothing that a transaction with an older snapshot could see: both
  // committed, and two versions were active.
  test.each([IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])(
    'an activation that its transaction cannot see refuses another, isolation level %s',
    async (isolationLevel) => {
      const change = {
        exclusively: (versionId: string, transaction: string) =>
          caller().unary(rpc.activateVersionExclusively, { versionId }, { transaction }),
        rollBack: (versionId: string, transaction: string) =>
          caller().unary(rpc.rollBackToVersion, { versionId }, { transaction }),
      };
      for (const [first, second] of [
        [change.exclusively, change.rollBack],
        [change.rollBack, change.exclusively],
      ] as const) {
        await insert('1.0.0');
        await caller().unary(rpc.deactivateAllVersions, {}, single);
        const { transaction } = await caller().unary(TransactionService.method.begin, { isolationLevel });
        const id = transaction!.id!;
        await caller().unary(rpc.fetchCurrentActiveVersion, {}, { transaction: id });
        const other = (await caller().unary(TransactionService.method.begin, {})).transaction!.id!;
        await caller().unary(
          rpc.insertPolicyVersion,
          { versionId: randomUUID(), version: '2.0.0', policyHash: 'h', createdBy: 'bob' },
          { transaction: other },
        );
        await first('2.0.0', other);
        await caller().unary(TransactionService.method.commit, { transactionId: other });
        expect((await refusal(second('1.0.0', id))).code).toBe('ABORTED');
        await caller().unary(TransactionService.method.rollback, { transactionId: id });
        expect(await active()).toEqual(['2.0.0']);
        await sidecar.sql('truncate policy.policy_versions');
      }
    },
  );

  test('of transactions that each insert a version and activate it, one ends with its own active', async () => {
    const begin = async () => (await caller().unary(TransactionService.method.begin, {})).transaction!.id!;
    const ids = [await begin(), await begin()];
    for (const [index, transaction] of ids.entries()) {
      await caller().unary(
        rpc.insertPolicyVersion,
        { versionId: randomUUID(), version: `${index}`, policyHash: 'h', createdBy: 'bob' },
        { transaction },
      );
    }
    const ended = await Promise.allSettled(
      ids.map(async (transaction, index) => {
        await caller().unary(rpc.activateVersionExclusively, { versionId: `${index}` }, { transaction });
        await caller().unary(TransactionService.method.commit, { transactionId: transaction });
        return `${index}`;
      }),
    );
    const won = ended.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const lost = ended.flatMap((each) => (each.status === 'rejected' ? [each.reason.code] : []));
    expect(lost).toEqual(['ABORTED']);
    expect(await active()).toEqual(won);
  });

  test('of calls that race exactly one version ends active', async () => {
    const versions = ['1.0.0', '1.0.1', '1.0.2', '1.0.3'];
    for (const version of versions) await insert(version);
    for (let round = 0; round < 10; round += 1) {
      if (round % 2 === 0) await caller().unary(rpc.deactivateAllVersions, {}, single);
      await Promise.all(
        versions.map((versionId, index) =>
          index % 2 === 0
            ? caller().unary(rpc.activateVersionExclusively, { versionId }, single)
            : caller().unary(rpc.rollBackToVersion, { versionId, by: 'bob' }, single),
        ),
      );
      expect(await active()).toHaveLength(1);
    }
  });
});
