import { IrFunctionSchema, IrInstructionSchema } from '../../../src/gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { byCodePoint } from '../../../src/statements/python-json.ts';
import { type Actual, Row } from '../compare.ts';
import { operation } from '../operations.ts';
import { asked, type Computation, type Data } from './subject.ts';

const instruction = ({ type, ...parts }: Data): Data => {
  const field = IrInstructionSchema.fields.find(({ message }) => message?.name === type.replace(/^IR/, 'Ir'));
  if (!field?.message) throw new Error(`there is no instruction ${type}`);
  const known = field.message.fields.map(({ name }) => name);
  return { [field.name]: Object.fromEntries(Object.entries(parts).filter(([name]) => known.includes(name))) };
};

const irFunction = ({ blocks, ...rest }: Data): Data => {
  const known = IrFunctionSchema.fields.map(({ name }) => name);
  return {
    ...Object.fromEntries(Object.entries(rest).filter(([name]) => known.includes(name))),
    blocks: blocks.map((block: Data) => ({ name: block.name, instructions: block.instructions.map(instruction) })),
  };
};

const conflict = ({ fields }: Row): Row => {
  const kind = fields.get('conflict_type') as Data;
  const policies = fields.get('policies') as readonly string[];
  // The original leaves the order of these open; the file has them sorted.
  return new Row([
    ...fields,
    ['policies', kind.text === 'ACTION' ? [...policies].sort(byCodePoint) : policies] as const,
  ]);
};

const resolve: Computation = ({ functions }, subject) =>
  asked(
    subject,
    operation('optimizer_conflict_resolver', 'resolve'),
    { module: { functions: functions.map(irFunction) } },
    ({ fields }) => ({
      conflicts: (fields.get('conflicts') as readonly Row[]).map(conflict),
      resolution_log: fields.get('resolution_log')!,
      priorities_after: Object.fromEntries(
        (fields.get('priorities_after') as readonly Row[]).map((each) => [
          each.fields.get('name') as string,
          each.fields.get('priority')! as Actual,
        ]),
      ),
    }),
  );

export const conflicts: Readonly<Record<string, Computation>> = { 'ConflictResolver.resolve': resolve };
