import { create, type MessageInitShape, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { type Duration, durationFromMs, durationMs, type Value } from '@bufbuild/protobuf/wkt';
import { refuse } from '../../contract/errors.ts';
import { type Rule, type Rules, required } from '../../contract/rules.ts';
import { PolicyCategory, PolicyCategorySchema } from '../../gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import {
  type DefineRequestSchema,
  type Symbol as SymbolMessage,
  SymbolSchema,
  type SymbolScopeSchema,
  type SymbolTableOperation,
  type SymbolTableResult,
  SymbolTableResultSchema,
  SymbolTableService,
  SymbolType as SymbolTypeNumber,
  SymbolTypeSchema,
} from '../../gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { enumText } from '../../statements/codecs.ts';
import type { Category } from '../conflict-resolver/grammar.ts';
import { type CallContext, compute, driver } from '../driver.ts';
import { HandleError, SymbolTables } from './symbol-tables.ts';
import { type PolicySymbol, type Scope, SymbolTable, SymbolTableError, type SymbolType } from './symbols.ts';

type Table = SymbolTable<Value>;
type Operation = Exclude<SymbolTableOperation['request'], { case: undefined }>;
type RequestOf<K extends Operation['case']> = Extract<Operation, { case: K }>['value'];

const DEFAULT_LEASE_MS = 600_000;
const MAX_LEASE_MS = 3_600_000;
const MAX_OPERATIONS = 10_000;
/** Bytes of results, and symbols looked through for lists, that one Apply can bring. */
const MAX_WORK = 8 * 1024 * 1024;
const DEFAULT_PRIORITY = 50;

const tables = new SymbolTables<Value>();

const refused = (error: unknown): unknown =>
  error instanceof SymbolTableError || error instanceof HandleError ? refuse(error.reason, error.message) : error;

const categoryText = (category: PolicyCategory | undefined): Category | undefined =>
  category === undefined ? undefined : (enumText(PolicyCategorySchema, category) as Category);

const typeText = (type: SymbolTypeNumber | undefined): SymbolType | undefined =>
  type === undefined ? undefined : (enumText(SymbolTypeSchema, type) as SymbolType);

const fromMessage = (symbol: SymbolMessage): PolicySymbol<Value> => ({
  ...symbol,
  symbolType: typeText(symbol.symbolType)!,
  category: categoryText(symbol.category),
  priority: symbol.priority ?? DEFAULT_PRIORITY,
  valueType: symbol.valueType,
  value: symbol.value,
  definedAt: symbol.definedAt,
});

const toMessage = (symbol: PolicySymbol<Value>): MessageInitShape<typeof SymbolSchema> => {
  const { category, valueType, value, definedAt, ...rest } = symbol;
  return {
    ...rest,
    $typeName: 'hoc.cus.policies.v1.Symbol',
    symbolType: SymbolTypeNumber[symbol.symbolType],
    referencedBy: [...symbol.referencedBy],
    ...(category === undefined ? {} : { category: PolicyCategory[category] }),
    ...(valueType === undefined ? {} : { valueType }),
    ...(value === undefined ? {} : { value }),
    ...(definedAt === undefined ? {} : { definedAt }),
  };
};

const found = (symbol: PolicySymbol<Value> | undefined) => (symbol ? { symbol: toMessage(symbol) } : {});
const listed = (symbols: readonly PolicySymbol<Value>[]) => ({ symbols: symbols.map(toMessage) });

const scopeMessage = ({ name, parent, category }: Scope<Value>): MessageInitShape<typeof SymbolScopeSchema> => ({
  name,
  ...(parent ? { parent: parent.name } : {}),
  ...(category ? { category: PolicyCategory[category] } : {}),
});

/** What each operation does with a table, for the single RPCs and for Apply. */
const operations = {
  enterScope: (table: Table, { name, category }: RequestOf<'enterScope'>) => ({
    scope: scopeMessage(table.enterScope(name, categoryText(category))),
  }),
  exitScope: (table: Table) => ({ scope: scopeMessage(table.exitScope()) }),
  define: (table: Table, { symbol, scopeOnly }: MessageShape<typeof DefineRequestSchema>) => {
    const defined = fromMessage(symbol!);
    table.define(defined, { scopeOnly, bytes: toBinary(SymbolSchema, symbol!).length });
    return found(defined);
  },
  lookup: (table: Table, { name, localOnly }: RequestOf<'lookup'>) => found(table.current.lookup(name, localOnly)),
  lookupPolicy: (table: Table, { name }: RequestOf<'lookupPolicy'>) => found(table.lookupPolicy(name)),
  lookupRule: (table: Table, { name, policy }: RequestOf<'lookupRule'>) => found(table.lookupRule(name, policy)),
  getSymbolsByCategory: (table: Table, { category, symbolType }: RequestOf<'getSymbolsByCategory'>) =>
    listed(table.symbolsByCategory(categoryText(category)!, typeText(symbolType))),
  getPolicies: (table: Table) => listed(table.policies()),
  getRules: (table: Table) => listed(table.rules()),
  addReference: (table: Table, { name, referencedFrom }: RequestOf<'addReference'>) => ({
    found: table.addReference(name, referencedFrom),
  }),
  getUnreferencedSymbols: (table: Table) => listed(table.unreferenced()),
  lookupByCategory: (table: Table, { category }: RequestOf<'lookupByCategory'>) =>
    listed(table.current.lookupByCategory(categoryText(category)!)),
  getAllSymbols: (table: Table) => listed(table.current.allSymbols()),
  getTable: (table: Table) => ({
    openScopes: table.openScopes.map(scopeMessage),
    symbols: table.size,
    text: table.toString(),
  }),
} satisfies { readonly [K in Operation['case']]: (table: Table, request: RequestOf<K>) => object };

const own = (handle: string, { caller }: CallContext): Table => tables.find(handle, caller);

/** Runs work on tables; what they refuse becomes the caller's error. */
const guarded = <T>(work: () => T): T => {
  try {
    return work();
  } catch (error) {
    throw refused(error);
  }
};

/** Operations after which the table is another: what they bring is told, however large. */
const CHANGES: ReadonlySet<string> = new Set<Operation['case']>(['enterScope', 'exitScope', 'define', 'addReference']);

/** One operation as an RPC of its own. */
const single = <K extends Operation['case']>(
  name: K,
  rules: Rules<(typeof SymbolTableService)['method'][K]['input']>,
) =>
  compute<(typeof SymbolTableService)['method'][K]>(rules, ((request: { readonly table: string }, call: CallContext) =>
    guarded(() => {
      if (CHANGES.has(name)) call.size.waive();
      return operations[name](own(request.table, call), request as never);
    })) as never);

const applied = (table: Table, { request }: SymbolTableOperation): MessageInitShape<typeof SymbolTableResultSchema> => {
  try {
    const value = operations[request.case!](table, request.value as never);
    return { response: { case: request.case!, value } as never };
  } catch (error) {
    if (!(error instanceof SymbolTableError)) throw error;
    return { response: { case: 'error', value: { reason: error.reason, message: error.message } } };
  }
};

/** Operations that go through all symbols of the table. */
const LISTS: ReadonlySet<string> = new Set<Operation['case']>([
  'getSymbolsByCategory',
  'getPolicies',
  'getRules',
  'getUnreferencedSymbols',
  'lookupByCategory',
  'getAllSymbols',
  'getTable',
]);

const TOO_MUCH_WORK = create(SymbolTableResultSchema, {
  response: {
    case: 'error',
    value: { reason: 'WORK_LIMIT', message: 'the results before it are all that one call can bring' },
  },
});

/** Bytes of that in a response. */
const PLACE_BYTES = toBinary(SymbolTableResultSchema, TOO_MUCH_WORK).length + 2;

const leaseRule: Rule<Duration> = (lease) => {
  const milliseconds = durationMs(lease);
  return milliseconds >= 1 && milliseconds <= MAX_LEASE_MS ? undefined : 'must be between 1 ms and 1 h';
};

const operationsRule = required((list: readonly SymbolTableOperation[]) => {
  if (list.length > MAX_OPERATIONS) return `must have at most ${MAX_OPERATIONS} elements`;
  const empty = list.findIndex(({ request }) => request.case === undefined);
  if (empty !== -1) return `has no request at ${empty}`;
  const addressed = list.findIndex(({ request }) => request.value?.table !== '');
  return addressed === -1 ? undefined : `must not name a table of its own at ${addressed}`;
});

/** `SymbolTable` and `Scope`: symbols of the policy language, in tables of this process. */
export const symbolTable = driver(SymbolTableService, {
  enterScope: single('enterScope', {}),
  exitScope: single('exitScope', {}),
  define: single('define', { symbol: required() }),
  lookup: single('lookup', {}),
  lookupPolicy: single('lookupPolicy', {}),
  lookupRule: single('lookupRule', {}),
  getSymbolsByCategory: single('getSymbolsByCategory', {}),
  getPolicies: single('getPolicies', {}),
  getRules: single('getRules', {}),
  addReference: single('addReference', {}),
  getUnreferencedSymbols: single('getUnreferencedSymbols', {}),
  lookupByCategory: single('lookupByCategory', {}),
  getAllSymbols: single('getAllSymbols', {}),
  getTable: single('getTable', {}),
  createTable: compute({ idle_lease: leaseRule }, ({ idleLease }, { caller }) =>
    guarded(() => {
      const lease = idleLease ? durationMs(idleLease) : DEFAULT_LEASE_MS;
      return { table: tables.create(caller, lease), idleLease: durationFromMs(lease) };
    }),
  ),
  dropTable: compute({}, ({ table }, { caller }) =>
    guarded(() => {
      tables.drop(table, caller);
      return {};
    }),
  ),
  apply: compute({ operations: operationsRule, 'operations.define.symbol': required() }, (request, call) =>
    guarded(() => {
      const table: Table = request.table === '' ? new SymbolTable<Value>() : own(request.table, call);
      const results: SymbolTableResult[] = [];
      let work = 0;
      // Whatever is left out has its place, too.
      const most = Math.min(MAX_WORK, call.size.limit - request.operations.length * PLACE_BYTES);
      call.size.waive();
      for (const operation of request.operations) {
        const kind = operation.request.case!;
        const result = work > most ? TOO_MUCH_WORK : create(SymbolTableResultSchema, applied(table, operation));
        work += toBinary(SymbolTableResultSchema, result).length;
        if (LISTS.has(kind)) work += table.size;
        const told = work > most && !CHANGES.has(kind) ? TOO_MUCH_WORK : result;
        results.push(told);
        if (request.stopAtError && told.response.case === 'error') break;
      }
      return { results };
    }),
  ),
});
