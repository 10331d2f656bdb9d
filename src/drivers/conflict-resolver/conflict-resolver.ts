import { invalidArgument, refuse } from '../../contract/errors.ts';
import { maxLength, type Rule, type Rules, required } from '../../contract/rules.ts';
import {
  ActionTypeSchema,
  ConflictResolverService,
  IrConflictType,
  type IrFunction,
  type IrInstruction,
  type IrModule,
  PolicyCategorySchema,
  type ResolveRequestSchema,
} from '../../gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { enumText, lowerEnumText } from '../../statements/codecs.ts';
import { compute, driver } from '../driver.ts';
import type { Action, Category } from './grammar.ts';
import {
  type Instruction,
  type PolicyFunction,
  type PolicyModule,
  resolveConflicts,
  TooManyConflicts,
} from './resolution.ts';

const MAX_FUNCTIONS = 20_000;
const MAX_INSTRUCTIONS = 200_000;
/** Of a function: every conflict it has a part in shows it twice. */
const MAX_NAME = 500;

const ENTRY = 'entry';

const sized = required(({ functions }: IrModule) => {
  const instructions = functions.reduce(
    (sum, { blocks }) => sum + blocks.reduce((inBlocks, block) => inBlocks + block.instructions.length, 0),
    0,
  );
  return functions.length <= MAX_FUNCTIONS && instructions <= MAX_INSTRUCTIONS
    ? undefined
    : `must have at most ${MAX_FUNCTIONS} functions and ${MAX_INSTRUCTIONS} instructions`;
});

/** `….IrLoadVar` -> `IRLoadVar`, the name that signatures are made of. */
const kindOf = (typeName: string): string => `IR${typeName.slice(typeName.lastIndexOf('.') + '.Ir'.length)}`;

/** Every instruction does something. */
const operative: Rule<readonly IrInstruction[]> = (instructions) => {
  const idle = instructions.findIndex(({ operation }) => operation.case === undefined);
  return idle === -1 ? undefined : `has no operation at index ${idle}`;
};

const instruction = ({ operation }: IrInstruction): Instruction => {
  if (operation.case !== 'action') return { kind: kindOf(operation.value!.$typeName) };
  const { action, target } = operation.value;
  return { kind: 'IRAction', action: lowerEnumText(ActionTypeSchema, action) as Action, target };
};

const policyFunction = ({ blocks, entryBlock, governance }: IrFunction): PolicyFunction => ({
  entryBlock: entryBlock ?? ENTRY,
  blocks: new Map(blocks.map((block) => [block.name, block.instructions.map(instruction)])),
  governance: governance && {
    category: enumText(PolicyCategorySchema, governance.category) as Category,
    priority: governance.priority,
  },
});

const resolved = (policies: PolicyModule): ReturnType<typeof resolveConflicts> => {
  try {
    return resolveConflicts(policies);
  } catch (error) {
    if (!(error instanceof TooManyConflicts)) throw error;
    throw refuse('CONFLICT_LIMIT', error.message);
  }
};

const fitsInt64 = (priority: bigint): boolean => priority === BigInt.asIntN(64, priority);

const rules: Rules<typeof ResolveRequestSchema> = {
  module: sized,
  'module.functions.name': maxLength(MAX_NAME),
  'module.functions.blocks.instructions': operative,
};

/** `ConflictResolver`: conflicts between the policies of an optimizer module. */
export const conflictResolver = driver(ConflictResolverService, {
  resolve: compute(rules, ({ module }) => {
    // A later function of the same name takes the earlier one's place.
    const functions = new Map(module!.functions.map((each) => [each.name, each]));
    const policies = new Map([...functions].map(([name, each]) => [name, policyFunction(each)]));
    const { conflicts, log } = resolved(policies);
    if ([...policies.values()].some(({ governance }) => governance && !fitsInt64(governance.priority))) {
      const description = 'must fit an int64 when equal priorities have been spread';
      throw invalidArgument([{ field: 'module.functions.governance.priority', description }]);
    }
    for (const [name, { governance }] of functions) {
      const spread = policies.get(name)?.governance;
      if (governance && spread) governance.priority = spread.priority;
    }
    return {
      conflicts: conflicts.map(({ kind, policies: names, winner, resolution, ...conflict }) => ({
        ...conflict,
        conflictType: IrConflictType[kind],
        policies: [...names],
        ...(winner === undefined ? {} : { winner }),
        ...(resolution === undefined ? {} : { resolution }),
      })),
      resolutionLog: log,
      prioritiesAfter: [...functions].map(([name, { governance }]) => ({
        name,
        ...(governance ? { priority: governance.priority } : {}),
      })),
      module: { ...module!, functions: [...functions.values()] },
    };
  }),
});
