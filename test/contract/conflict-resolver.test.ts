import type { MessageInitShape } from '@bufbuild/protobuf';
import { describe, expect, test } from 'vitest';
import {
  ActionType,
  ConflictResolverService,
  IrConflictType,
  type IrFunctionSchema,
  PolicyCategory,
} from '../../src/gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

type Function = MessageInitShape<typeof IrFunctionSchema>;

const rpc = ConflictResolverService.method;

const sidecar = useSidecar();

const load = { operation: { case: 'loadVar' as const, value: { name: 'x' } } };
const act = (action: ActionType, target?: string) => ({
  operation: { case: 'action' as const, value: { action, ...(target === undefined ? {} : { target }) } },
});
const policy = (name: string, instructions: object[], category?: PolicyCategory, priority = 50n): Function => ({
  name,
  blocks: [{ name: 'entry', instructions }],
  ...(category === undefined ? {} : { governance: { category, priority } }),
});

describe.each(['grpc', 'connect'] as const)('conflicts over %s', (listener) => {
  const resolve = (functions: Function[]) => sidecar[listener].unary(rpc.resolve, { module: { name: 'm', functions } });

  test('an empty module has none', async () => {
    expect(await resolve([])).toMatchObject({ conflicts: [], resolutionLog: [], prioritiesAfter: [] });
  });

  test('the same condition with different actions: the most restrictive one prevails', async () => {
    const { conflicts, resolutionLog } = await resolve([
      policy('p_allow', [load, act(ActionType.ALLOW)]),
      policy('p_deny', [load, act(ActionType.DENY)]),
      policy('p_other', [act(ActionType.LOG)]),
    ]);
    expect(conflicts).toMatchObject([
      {
        conflictType: IrConflictType.ACTION,
        policies: ['p_allow', 'p_deny'],
        description:
          "Conflicting actions [<ActionType.ALLOW: 'allow'>, <ActionType.DENY: 'deny'>] for condition 'IRLoadVar|IRAction'",
        severity: 70,
        winner: 'p_deny',
        resolved: true,
      },
    ]);
    expect(resolutionLog).toEqual(["Resolved ACTION conflict: Using most restrictive action from 'p_deny'"]);
  });

  test('a function without a name takes part, and wins nothing', async () => {
    const { conflicts, resolutionLog, prioritiesAfter } = await resolve([
      policy('', [load, act(ActionType.DENY)], PolicyCategory.SAFETY, 10n),
      policy('a', [load, act(ActionType.ALLOW)], PolicyCategory.CUSTOM, 50n),
      policy('b', [act(ActionType.ROUTE, 'c')], PolicyCategory.CUSTOM, 60n),
      policy('c', [act(ActionType.ROUTE, 'b')], PolicyCategory.CUSTOM, 70n),
    ]);
    expect(
      conflicts.map(({ conflictType, policies, resolved, winner, resolution }) => ({
        conflictType,
        policies,
        resolved,
        winner,
        resolution,
      })),
    ).toEqual([
      { conflictType: IrConflictType.ACTION, policies: ['', 'a'], resolved: false },
      { conflictType: IrConflictType.CATEGORY, policies: ['a', ''], resolved: false },
      {
        conflictType: IrConflictType.CIRCULAR,
        policies: ['b', 'c', 'b'],
        resolved: true,
        winner: 'b',
        resolution: "Breaking cycle at lowest priority policy 'b'",
      },
    ]);
    expect(resolutionLog).toEqual(["Resolved CIRCULAR conflict: Breaking cycle at lowest priority policy 'b'"]);
    expect(prioritiesAfter.map(({ priority }) => priority)).toEqual([10n, 50n, 60n, 70n]);
  });

  test('a nameless way into a circle is cut nowhere', async () => {
    const { conflicts, resolutionLog } = await resolve([
      policy('', [act(ActionType.ROUTE, 'a')], PolicyCategory.CUSTOM, 1n),
      policy('a', [act(ActionType.ROUTE, 'a')], PolicyCategory.PRIVACY, 5n),
    ]);
    expect(conflicts).toMatchObject([
      { conflictType: IrConflictType.CIRCULAR, policies: ['', 'a', 'a'], resolved: false },
    ]);
    expect(conflicts[0]?.winner).toBeUndefined();
    expect(resolutionLog).toEqual([]);
  });

  test('equal priorities are spread by name, in the module too', async () => {
    const same = (name: string) => policy(name, [load], PolicyCategory.PRIVACY);
    const { conflicts, prioritiesAfter, module } = await resolve([
      same('zeta'),
      same('Alpha'),
      same('beta'),
      policy('free', [load]),
    ]);
    expect(conflicts).toMatchObject([{ conflictType: IrConflictType.PRIORITY, policies: ['zeta', 'Alpha', 'beta'] }]);
    expect(conflicts[0]?.winner).toBeUndefined();
    expect(prioritiesAfter.map(({ name, priority }) => [name, priority])).toEqual([
      ['zeta', 52n],
      ['Alpha', 50n],
      ['beta', 51n],
      ['free', undefined],
    ]);
    expect(module?.functions[0]?.governance?.priority).toBe(52n);
  });

  test('a weaker category that allows what SAFETY denies', async () => {
    const { conflicts } = await resolve([
      policy('lower', [act(ActionType.ALLOW)], PolicyCategory.ROUTING),
      policy('safe', [act(ActionType.LOG), act(ActionType.DENY)], PolicyCategory.SAFETY),
    ]);
    expect(conflicts).toMatchObject([
      { conflictType: IrConflictType.CATEGORY, policies: ['lower', 'safe'], severity: 90, winner: 'safe' },
    ]);
  });

  test('a circle of routes is the whole path into and around it', async () => {
    const route = (name: string, target: string, priority: bigint) =>
      policy(name, [act(ActionType.ROUTE, target)], PolicyCategory.ROUTING, priority);
    const { conflicts } = await resolve([route('x', 'a', 1n), route('a', 'b', 5n), route('b', 'a', 3n)]);
    expect(conflicts).toMatchObject([
      {
        conflictType: IrConflictType.CIRCULAR,
        policies: ['x', 'a', 'b', 'a'],
        description: 'Circular routing: x -> a -> b -> a',
        winner: 'x',
      },
    ]);
    const bare = await resolve([policy('self', [act(ActionType.ROUTE, 'self')])]);
    expect(bare.conflicts).toMatchObject([{ policies: ['self', 'self'], resolved: false }]);
    expect(bare.resolutionLog).toEqual([]);
  });

  test('a chain of ten thousand routes is walked to its end', async () => {
    const chain = Array.from({ length: 10_000 }, (_, index) =>
      policy(`p${index}`, [act(ActionType.ROUTE, `p${(index + 1) % 10_000}`)]),
    );
    const { conflicts } = await resolve(chain);
    expect(conflicts[0]?.policies).toHaveLength(10_001);
  });

  // The spread priority did not fit its field, and the answer failed as INTERNAL when it was written.
  test('priorities that cannot be spread within an int64 are refused', async () => {
    const same = (name: string) => policy(name, [load], PolicyCategory.SAFETY, 2n ** 63n - 1n);
    expect(await refusal(resolve([same('a'), same('b')]))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: ['module.functions.governance.priority'],
    });
    expect((await resolve([same('a')])).prioritiesAfter[0]?.priority).toBe(2n ** 63n - 1n);
  });

  // 1,500 policies on either side were two million conflicts: 22 s in which nobody else was served.
  test('more conflicts by category than an answer can hold are refused at once', async () => {
    const against = (count: number) =>
      Array.from({ length: count }, (_, index) => [
        policy(`r${index}`, [act(ActionType.ALLOW)], PolicyCategory.ROUTING, BigInt(index)),
        policy(`s${index}`, [act(ActionType.DENY)], PolicyCategory.SAFETY, BigInt(index)),
      ]).flat();
    expect(await refusal(resolve(against(1_500)))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      reason: 'CONFLICT_LIMIT',
    });
    // One of action, and each of ten against each of ten.
    expect((await resolve(against(10))).conflicts).toHaveLength(101);
  });

  test('what is no module is refused by name', async () => {
    expect(await refusal(sidecar[listener].unary(rpc.resolve, {}))).toMatchObject({ fields: ['module'] });
    expect(await refusal(resolve([policy('p', [act(ActionType.UNSPECIFIED)])]))).toMatchObject({
      fields: ['module.functions[0].blocks[0].instructions[0].action.action'],
    });
    // Which of up to 200,000 instructions it was, the refusal did not say.
    expect(await refusal(resolve([policy('n'.repeat(501), [load]), policy('p', [load, {}])]))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      violations: [
        { field: 'module.functions[0].name' },
        { field: 'module.functions[1].blocks[0].instructions', description: 'has no operation at index 1' },
      ],
    });
    const unknown = sidecar[listener].unary(rpc.resolve, { module: {} }, { transaction: 'x' });
    expect(await refusal(unknown)).toMatchObject({ reason: 'TRANSACTION_UNKNOWN' });
  });
});
