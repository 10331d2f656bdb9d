import { SymbolSchema, SymbolTableService } from '../../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { type Actual, EnumText, Row } from '../compare.ts';
import type { Operation } from '../operations.ts';
import { asked, type Computation, type Data } from './subject.ts';

const apply: Operation = {
  driver: 'symbol_table',
  name: 'apply',
  kind: 'compute',
  method: SymbolTableService.method.apply,
};

/** Steps whose operation has another name; those of the scope act on the current one. */
const RENAMED: Readonly<Record<string, string>> = {
  str: 'get_table',
  'scope.define': 'define',
  'scope.lookup': 'lookup',
  'scope.lookup_by_category': 'lookup_by_category',
  'scope.get_all_symbols': 'get_all_symbols',
};

const request = ({ op, ...args }: Data): Data => {
  const name = RENAMED[op] ?? op;
  if (name !== 'define') return { [name]: args };
  const symbol = Object.fromEntries(
    SymbolSchema.fields.filter((field) => field.name in args).map((field) => [field.name, args[field.name]]),
  );
  return { define: { symbol, scope_only: op === 'scope.define' } };
};

const textOf = (value: Actual | undefined): string | null => (value instanceof EnumText ? value.text : null);

const symbolOf = (symbol: Actual | undefined): Actual => {
  if (!(symbol instanceof Row)) return null;
  const { fields } = symbol;
  const [type, category] = [textOf(fields.get('symbol_type')), textOf(fields.get('category'))];
  const repr = `Symbol(${fields.get('name')}, ${type}${category ? `[${category}]` : ''})`;
  return new Row([...fields, ['repr', repr]]);
};

/** What a step brought, as the original returns it. */
const result = (op: string, response: Row): Actual => {
  const [name, value] = [...response.fields].find(([, each]) => each !== null)!;
  const { fields } = value as Row;
  if (name === 'error') return { error: { type: 'ValueError', message: fields.get('message')! } };
  switch (RENAMED[op] ?? op) {
    case 'define':
    case 'add_reference':
      return null;
    case 'get_table':
      return fields.get('text')!;
    case 'enter_scope':
      return fields.get('scope')!;
    case 'exit_scope':
      return (fields.get('scope') as Row).fields.get('name')!;
    default: {
      const listed = fields.get('symbols');
      return listed === undefined
        ? symbolOf(fields.get('symbol'))
        : (listed as readonly Row[]).map((symbol) => symbol.fields.get('name')!);
    }
  }
};

const sequence: Computation = (steps: Data[], subject) =>
  asked(subject, apply, { operations: steps.map(request) }, ({ fields }) =>
    (fields.get('results') as readonly Row[]).map((each, index) => result(steps[index].op, each)),
  );

export const symbols: Readonly<Record<string, Computation>> = { 'SymbolTable(sequence)': sequence };
