import { randomUUID } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };

const sidecar = useSidecar();
beforeEach(() => sidecar.sql('truncate policy.policy_dependencies, policy.policy_conflicts'));

describe.each(['grpc', 'connect'] as const)('dependencies and conflicts over %s', (listener) => {
  const caller = () => sidecar[listener];
  const depend = (fields = {}) =>
    caller().unary(
      rpc.insertDependency,
      {
        sourcePolicy: 'a',
        targetPolicy: 'b',
        dependencyType: 'requires',
        resolutionStrategy: 'merge',
        priority: -5,
        ...fields,
      },
      single,
    );
  const clash = (fields = {}) =>
    caller().unary(
      rpc.insertConflict,
      { policyA: 'a', policyB: 'b', conflictType: 'cascade_loop', description: 'd', ...fields },
      single,
    );

  test('dependencies are listed whole, their edges repeat', async () => {
    const { dependencyId, rowsAffected } = await depend({ description: "it's" });
    expect(rowsAffected).toBe(1n);
    const later = await depend();
    const { dependencies } = await caller().unary(rpc.fetchDependencies, {});
    expect(dependencies.map(({ id }) => id)).toEqual([dependencyId, later.dependencyId]);
    expect(dependencies.find(({ id }) => id === dependencyId)).toMatchObject({
      sourcePolicy: 'a',
      targetPolicy: 'b',
      dependencyType: 'requires',
      resolutionStrategy: 'merge',
      priority: -5,
      description: "it's",
    });
    expect((await collect(caller().stream(rpc.streamDependencies, {}))).map((each) => each.dependency)).toEqual(
      dependencies,
    );
    const { edges } = await caller().unary(rpc.fetchDependencyEdges, {});
    expect(edges.map((each) => [each.sourcePolicy, each.targetPolicy])).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ]);
  });

  test('inactive edges are left out unless asked for', async () => {
    await depend({ targetPolicy: 'off' });
    await sidecar.sql('update policy.policy_dependencies set is_active = false');
    await depend({ targetPolicy: 'on', dependencyType: 'overrides' });
    const targets = async (request: object) =>
      (await caller().unary(rpc.fetchDependencyEdges, request)).edges.map((each) => each.targetPolicy).sort();
    expect(await targets({})).toEqual(['on']);
    expect(await targets({ activeOnly: true })).toEqual(['on']);
    expect(await targets({ activeOnly: false })).toEqual(['off', 'on']);
    expect(await collect(caller().stream(rpc.streamDependencyEdges, { activeOnly: false }))).toHaveLength(2);
    const typed = await caller().unary(rpc.fetchDependencyEdgesWithType, {});
    expect(typed.edges).toMatchObject([{ sourcePolicy: 'a', targetPolicy: 'on', dependencyType: 'overrides' }]);
    expect((await collect(caller().stream(rpc.streamDependencyEdgesWithType, {}))).map((each) => each.edge)).toEqual(
      typed.edges,
    );
  });

  test('a dependency needs its fields, which may be empty', async () => {
    await depend({ sourcePolicy: '', targetPolicy: '', dependencyType: '', resolutionStrategy: '', priority: 0 });
    const error = await refusal(caller().unary(rpc.insertDependency, { sourcePolicy: 's'.repeat(129) }, single));
    expect([...error.fields].sort()).toEqual([
      'dependency_type',
      'priority',
      'resolution_strategy',
      'source_policy',
      'target_policy',
    ]);
  });

  test('a detected conflict comes back as stored', async () => {
    const { conflict, rowsAffected } = await clash({ affectedActionTypes: { values: [] } });
    expect(rowsAffected).toBe(1n);
    expect(conflict).toMatchObject({ severity: 0.5, resolved: false, affectedActionTypes: { values: [] } });
    expect(conflict?.detectedAt?.seconds).toBeGreaterThan(1_700_000_000n);
    expect(conflict?.resolvedAt).toBeUndefined();
    expect((await caller().unary(rpc.fetchConflicts, {})).conflicts).toEqual([conflict]);
    expect((await refusal(caller().unary(rpc.insertConflict, {}, single))).fields).toEqual([
      'policy_a',
      'policy_b',
      'conflict_type',
      'description',
    ]);
  });

  test('resolving a conflict takes it off the open lists and can be repeated', async () => {
    const { conflict } = await clash({ severity: 0.7 });
    await clash({ severity: 0 });
    const resolve = async (conflictId: string) =>
      (await caller().unary(rpc.resolveConflict, { conflictId, resolution: 'r', resolvedBy: 'bob' }, single))
        .rowsAffected;
    const counted = async (request: object) => (await caller().unary(rpc.fetchConflicts, request)).conflicts.length;
    expect(await counted({ severityMin: 0.7 })).toBe(1);
    expect(await counted({ severityMin: 0 })).toBe(2);
    expect(await resolve(conflict!.id)).toBe(1n);
    expect(await resolve(conflict!.id)).toBe(1n);
    expect(await resolve(randomUUID())).toBe(0n);
    expect(await counted({})).toBe(1);
    expect(await counted({ includeResolved: true })).toBe(2);
    expect(await counted({ includeResolved: true, severityMin: 0.7 })).toBe(1);
    expect(await collect(caller().stream(rpc.streamConflicts, { includeResolved: true }))).toHaveLength(2);
    const open = await caller().unary(rpc.fetchUnresolvedConflicts, {});
    expect(open.conflicts).toMatchObject([{ policyA: 'a', policyB: 'b', severity: 0, description: 'd' }]);
    expect((await collect(caller().stream(rpc.streamUnresolvedConflicts, {}))).map((each) => each.conflict)).toEqual(
      open.conflicts,
    );
  });
});
