import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyCategory } from '../../src/gen/hoc/cus/policies/v1/conflict_resolver_pb.ts';
import { SymbolTableService, SymbolType } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { type CallError, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = SymbolTableService.method;

const sidecar = useSidecar({ maxMessageBytes: 33_554_432 });

const names = ({ symbols }: { symbols: { name: string }[] }): string[] => symbols.map(({ name }) => name);

describe.each(['grpc', 'connect'] as const)('symbol tables over %s', (listener) => {
  const caller = () => sidecar[listener];
  const create = async (leaseMs = 60_000) =>
    (await caller().unary(rpc.createTable, { idleLease: durationFromMs(leaseMs) })).table;
  const define = (table: string, name: string, symbolType: SymbolType, fields: object = {}, scopeOnly = false) =>
    caller().unary(rpc.define, { table, symbol: { name, symbolType, ...fields }, scopeOnly });

  test('a new table holds the builtins', async () => {
    const table = await create();
    expect(table).toMatch(/^[\w-]{22}$/);
    const described = await caller().unary(rpc.getTable, { table });
    expect(described).toMatchObject({ symbols: 14, openScopes: [{ name: 'global' }] });
    expect(described.text.split('\n').slice(0, 3)).toEqual([
      'SymbolTable:',
      "  Scope 'global':",
      '    Symbol(contains, FUNCTION)',
    ]);
    const { symbol } = await caller().unary(rpc.lookup, { table, name: 'budget' });
    expect(symbol).toMatchObject({ symbolType: SymbolType.VARIABLE, definedAt: 'builtin', priority: 50 });
    expect(symbol?.category).toBeUndefined();
  });

  test('scopes hide, inherit their category, and close', async () => {
    const table = await create();
    await define(table, 'x', SymbolType.VARIABLE, { value: jsonToValue({ a: [1] }) });
    expect(await refusal(define(table, 'x', SymbolType.CONSTANT))).toMatchObject({
      code: 'ALREADY_EXISTS',
      reason: 'SYMBOL_DEFINED',
      message: "Symbol 'x' already defined in scope 'global'",
    });
    const { scope } = await caller().unary(rpc.enterScope, { table, name: 's', category: PolicyCategory.SAFETY });
    expect(scope).toMatchObject({ name: 's', parent: 'global', category: PolicyCategory.SAFETY });
    const inner = await caller().unary(rpc.enterScope, { table, name: 'inner' });
    expect(inner.scope).toMatchObject({ parent: 's', category: PolicyCategory.SAFETY });
    await define(table, 'x', SymbolType.CONSTANT);
    const found = async (localOnly: boolean, name = 'x') =>
      (await caller().unary(rpc.lookup, { table, name, localOnly })).symbol;
    expect((await found(false))?.symbolType).toBe(SymbolType.CONSTANT);
    expect(await found(true, 'len')).toBeUndefined();
    const all = names(await caller().unary(rpc.getAllSymbols, { table }));
    expect(all.at(-1)).toBe('x');
    expect(all).toHaveLength(15);
    await caller().unary(rpc.exitScope, { table });
    expect((await caller().unary(rpc.exitScope, { table })).scope?.name).toBe('s');
    expect((await found(false))?.value).toEqual(jsonToValue({ a: [1] }));
    expect(await refusal(caller().unary(rpc.exitScope, { table }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'GLOBAL_SCOPE',
    });
  });

  test('policies and rules are found as the language does', async () => {
    const table = await create();
    await define(table, 'p', SymbolType.POLICY, { category: PolicyCategory.CUSTOM });
    await caller().unary(rpc.enterScope, { table, name: 'p' });
    await define(table, 'r', SymbolType.RULE, { category: PolicyCategory.SAFETY, priority: 7 });
    await define(table, 'low', SymbolType.RULE, { category: PolicyCategory.SAFETY, priority: -1 });
    await define(table, 'free', SymbolType.RULE);
    await define(table, 'aside', SymbolType.RULE, { category: PolicyCategory.SAFETY, priority: 99 }, true);
    await caller().unary(rpc.enterScope, { table, name: 'inner' });
    await define(table, 'r', SymbolType.VARIABLE);
    const rule = async (policy?: string) =>
      (await caller().unary(rpc.lookupRule, { table, name: 'r', ...(policy === undefined ? {} : { policy }) })).symbol;
    expect(await rule()).toBeUndefined();
    expect((await rule('p'))?.priority).toBe(7);
    expect(await rule('nobody')).toBeUndefined();
    expect((await caller().unary(rpc.lookupPolicy, { table, name: 'p' })).symbol?.name).toBe('p');
    expect((await caller().unary(rpc.lookupPolicy, { table, name: 'r' })).symbol).toBeUndefined();
    expect(names(await caller().unary(rpc.getPolicies, { table }))).toEqual(['p']);
    expect(names(await caller().unary(rpc.getRules, { table }))).toEqual(['r', 'low']);
    const safety = { table, category: PolicyCategory.SAFETY };
    expect(names(await caller().unary(rpc.getSymbolsByCategory, safety))).toEqual(['r', 'low']);
    const policies = { ...safety, symbolType: SymbolType.POLICY };
    expect(names(await caller().unary(rpc.getSymbolsByCategory, policies))).toEqual([]);
    expect(names(await caller().unary(rpc.lookupByCategory, safety))).toEqual(['r', 'low', 'aside']);
  });

  test('references', async () => {
    const table = await create();
    await define(table, 'used', SymbolType.VARIABLE);
    await define(table, 'unused', SymbolType.VARIABLE);
    const refer = async (name: string) =>
      (await caller().unary(rpc.addReference, { table, name, referencedFrom: 'here' })).found;
    expect(await refer('used')).toBe(true);
    expect(await refer('nobody')).toBe(false);
    expect(names(await caller().unary(rpc.getUnreferencedSymbols, { table }))).toEqual(['unused']);
    expect((await caller().unary(rpc.lookup, { table, name: 'used' })).symbol?.referencedBy).toEqual(['here']);
  });

  test('a handle ends with its lease, or when it is dropped', async () => {
    const short = await create(30);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(await refusal(caller().unary(rpc.getTable, { table: short }))).toMatchObject({ reason: 'TABLE_UNKNOWN' });
    const table = await create();
    await caller().unary(rpc.dropTable, { table });
    expect(await refusal(caller().unary(rpc.getTable, { table }))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'TABLE_UNKNOWN',
    });
    expect(await refusal(create(0))).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['idle_lease'] });
  });

  test('Apply runs a list, reports refusals in place, and keeps what worked', async () => {
    const symbol = (name: string) => ({ name, symbolType: SymbolType.VARIABLE });
    const operations = [
      { request: { case: 'define' as const, value: { symbol: symbol('a') } } },
      { request: { case: 'define' as const, value: { symbol: symbol('a') } } },
      { request: { case: 'lookup' as const, value: { name: 'a' } } },
    ];
    const { results } = await caller().unary(rpc.apply, { operations });
    expect(results.map(({ response }) => response.case)).toEqual(['define', 'error', 'lookup']);
    expect(results[1]?.response.value).toMatchObject({ reason: 'SYMBOL_DEFINED' });
    const stopped = await caller().unary(rpc.apply, { operations, stopAtError: true });
    expect(stopped.results).toHaveLength(2);
    const table = await create();
    await caller().unary(rpc.apply, { table, operations });
    expect((await caller().unary(rpc.lookup, { table, name: 'a' })).symbol?.name).toBe('a');
    expect(await refusal(caller().unary(rpc.apply, {}))).toMatchObject({ fields: ['operations'] });
    const addressed = { request: { case: 'getRules' as const, value: { table } } };
    for (const wrong of [{}, addressed]) {
      const call = caller().unary(rpc.apply, { operations: [...operations, wrong] });
      expect(await refusal(call)).toMatchObject({ code: 'INVALID_ARGUMENT', fields: ['operations'] });
    }
    expect(await refusal(caller().unary(rpc.apply, { table: 'x', operations }))).toMatchObject({
      reason: 'TABLE_UNKNOWN',
    });
  });

  // A small request could ask for one large value ten thousand times: the process ran out of memory.
  test('the results of Apply have their limit', async () => {
    const value = jsonToValue('x'.repeat(1_000_000));
    const operations = [
      {
        request: { case: 'define' as const, value: { symbol: { name: 'v', symbolType: SymbolType.CONSTANT, value } } },
      },
      ...Array.from({ length: 100 }, () => ({ request: { case: 'lookup' as const, value: { name: 'v' } } })),
      { request: { case: 'enterScope' as const, value: { name: 's' } } },
    ];
    const table = await create();
    const { results } = await caller().unary(rpc.apply, { table, operations });
    const answered = results.filter(({ response }) => response.case !== 'error');
    // Four megabytes are what a response may have.
    expect([results.length, answered.length]).toEqual([102, 4]);
    expect(results.at(-1)?.response).toMatchObject({ case: 'error', value: { reason: 'WORK_LIMIT' } });
    expect((await caller().unary(rpc.getTable, { table })).openScopes).toHaveLength(1);
    const stopped = await caller().unary(rpc.apply, { table, operations: operations.slice(1), stopAtError: true });
    expect(stopped.results).toHaveLength(5);
  });

  // Symbols were counted, whatever they held, and references to them were not: one caller could fill the process.
  test('what is kept has its limit, and room is given back', async () => {
    const value = jsonToValue('x'.repeat(7_000_000));
    const constant = (name: string) => ({ name, symbolType: SymbolType.CONSTANT, value });
    const table = await create();
    for (const name of ['a', 'b', 'd', 'e']) await caller().unary(rpc.define, { table, symbol: constant(name) });
    const tooMuch = { code: 'RESOURCE_EXHAUSTED', reason: 'SIZE_LIMIT' };
    expect(await refusal(caller().unary(rpc.define, { table, symbol: constant('c') }))).toMatchObject(tooMuch);
    expect((await caller().unary(rpc.lookup, { table, name: 'c' })).symbol).toBeUndefined();
    const refer = caller().unary(rpc.addReference, { table, name: 'a', referencedFrom: 'x'.repeat(6_000_000) });
    expect(await refusal(refer)).toMatchObject(tooMuch);
    const enter = caller().unary(rpc.enterScope, { table, name: 'x'.repeat(6_000_000) });
    expect(await refusal(enter)).toMatchObject(tooMuch);
    const others = await Promise.all(Array.from({ length: 10 }, () => create()));
    const filled = others.flatMap((each) => ['a', 'b'].map((name) => ({ table: each, symbol: constant(name) })));
    const refusals: CallError[] = [];
    for (const each of filled)
      await caller()
        .unary(rpc.define, each)
        .catch((error) => refusals.push(error));
    // Tables of other tests take some room, too.
    expect(refusals.length).toBeGreaterThanOrEqual(3);
    expect(refusals).toMatchObject(Array(refusals.length).fill(tooMuch));
    for (const each of [table, ...others]) await caller().unary(rpc.dropTable, { table: each });
    const next = await create();
    await caller().unary(rpc.define, { table: next, symbol: constant('a') });
    await caller().unary(rpc.dropTable, { table: next });
  });

  // Only bytes of texts were counted: references from nowhere had none, and a million of them took hundreds of megabytes.
  test('what has no bytes of its own takes room, too, and an open scope only while it is open', async () => {
    const table = await create();
    const filled = async (request: object, most: number): Promise<number> => {
      const operations = Array.from({ length: 10_000 }, () => ({ request }) as never);
      for (let done = 0; done < most; done += 10_000) {
        const { results } = await caller().unary(rpc.apply, { table, operations, stopAtError: true });
        const last = results.at(-1)?.response;
        if (last?.case === 'error') {
          expect(last.value.reason).toBe('SIZE_LIMIT');
          return done + results.length - 1;
        }
      }
      return most;
    };
    const inAndOut = [{ case: 'enterScope', value: { name: 's' } }, { case: 'exitScope' }];
    for (let round = 0; round < 30; round += 1) {
      const operations = Array.from({ length: 10_000 }, (_, at) => ({ request: inAndOut[at % 2] }) as never);
      const { results } = await caller().unary(rpc.apply, { table, operations });
      expect(results.at(-1)?.response.case).toBe('exitScope');
    }
    const references = await filled({ case: 'addReference', value: { name: 'ctx' } }, 2_000_000);
    expect(references).toBeGreaterThan(1_000_000);
    expect(references).toBeLessThan(1_100_000);
    await caller().unary(rpc.dropTable, { table });
  });

  test('depth has its limit, and a transaction id is checked here too', async () => {
    const table = await create();
    const deep = Array.from({ length: 1_000 }, () => ({
      request: { case: 'enterScope' as const, value: { name: 's' } },
    }));
    const { results } = await caller().unary(rpc.apply, { table, operations: deep });
    expect(results.at(-1)?.response).toMatchObject({ case: 'error', value: { reason: 'SCOPE_LIMIT' } });
    const unknown = caller().unary(rpc.getTable, { table }, { transaction: 'x' });
    expect(await refusal(unknown)).toMatchObject({ reason: 'TRANSACTION_UNKNOWN' });
  });
});
