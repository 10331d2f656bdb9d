import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { drivers } from '../../src/drivers/drivers.ts';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyRulesService } from '../../src/gen/hoc/cus/policies/v1/policy_rules_pb.ts';
import { SymbolTableService } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { authorizationReading, type Grants } from '../../src/server/authorization.ts';
import { driverEndpoints } from '../../src/server/endpoint.ts';
import { readOnce } from '../../src/server/watched-file.ts';
import { PageTokens } from '../../src/statements/page-tokens.ts';
import { collect, refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useFolder, useSidecar } from '../support/use.ts';

const { fetchRiskCeilings, streamRiskCeilings, resetRiskCeiling, deactivateAllVersions } = PolicyEngineService.method;
const { begin, commit, execute, list } = TransactionService.method;
const CEILING = { ceilingId: '00000000-0000-0000-0000-000000000001' };
const as = (name: string, transaction?: string) => ({
  headers: { authorization: `Bearer ${name}` },
  ...(transaction === undefined ? {} : { transaction }),
});

const POLICY = {
  identities: {
    reader: { read: ['PolicyEngineService'], tenants: 'all' },
    writer: { read: ['*'], write: ['PolicyEngineService/ResetRiskCeiling'], tenants: 'all' },
    nobody: { tenants: [] },
  },
};

const folder = useFolder();
const authorizationFile = join(folder, 'authorization.json');
const tokensFile = join(folder, 'tokens');
beforeAll(async () => {
  await writeFile(tokensFile, ['reader', 'writer', 'nobody', 'absent'].map((name) => tokenLine(name)).join(''));
  await writeFile(authorizationFile, JSON.stringify(POLICY));
});
const sidecar = useSidecar({ tokensFile, authorizationFile, audit: 'log' });

describe.each(['grpc', 'connect'] as const)('the authorization file over %s', (listener) => {
  const caller = () => sidecar[listener];

  test('what is granted is done', async () => {
    expect((await caller().unary(fetchRiskCeilings, {}, as('reader'))).riskCeilings).not.toHaveLength(0);
    expect(await collect(caller().stream(streamRiskCeilings, {}, as('reader')))).not.toHaveLength(0);
    expect((await caller().unary(resetRiskCeiling, CEILING, as('writer', 'single-use'))).rowsAffected).toBe(0n);
    expect((await caller().unary(SymbolTableService.method.createTable, {}, as('writer'))).table).not.toBe('');
  });

  test.each([
    ['a write of who may read', resetRiskCeiling, 'reader', 'ResetRiskCeiling', 'write'],
    ['another write of the service', deactivateAllVersions, 'writer', 'DeactivateAllVersions', 'write'],
    ['a read of who is granted nothing', fetchRiskCeilings, 'nobody', 'FetchRiskCeilings', 'read'],
    ['a read of who is not in the file', fetchRiskCeilings, 'absent', 'FetchRiskCeilings', 'read'],
  ] as const)('%s is refused by what is missing', async (_what, method, identity, name, needed) => {
    const error = await refusal(caller().unary(method, {}, as(identity, 'single-use')));
    expect(error).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'NOT_ALLOWED' });
    expect(error.metadata).toEqual({ identity, method: `PolicyEngineService/${name}`, needed });
    expect(error.message).toContain(`PolicyEngineService/${name} is not allowed`);
  });

  test('a stream is refused alike', async () => {
    const error = await refusal(collect(caller().stream(streamRiskCeilings, {}, as('nobody'))));
    expect(error).toMatchObject({ reason: 'NOT_ALLOWED', metadata: { needed: 'read' } });
  });

  test('an open transaction lends no right', async () => {
    const { transaction } = await caller().unary(begin, {}, as('reader'));
    const error = await refusal(caller().unary(resetRiskCeiling, CEILING, as('reader', transaction!.id)));
    expect(error.reason).toBe('NOT_ALLOWED');
    expect((await caller().unary(fetchRiskCeilings, {}, as('reader', transaction!.id))).riskCeilings).not.toEqual([]);
    await caller().unary(commit, {}, as('reader', transaction!.id));
  });

  test('each operation of Execute is held against it, before any runs', async () => {
    const operations = [
      { request: { case: 'resetRiskCeiling' as const, value: CEILING } },
      { request: { case: 'deactivateAllVersions' as const, value: {} } },
    ];
    const error = await refusal(caller().unary(execute, { operations }, as('writer')));
    expect(error).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'NOT_ALLOWED' });
    expect(error.metadata).toEqual({
      identity: 'writer',
      method: 'PolicyEngineService/DeactivateAllVersions',
      needed: 'write',
      operation: '1',
    });
    const granted = await caller().unary(execute, { operations: operations.slice(0, 1) }, as('writer'));
    expect(granted.results).toHaveLength(1);
  });

  test('who is not in the file gets no transaction and no list of them, only health', async () => {
    for (const method of [begin, list]) {
      expect(await refusal(caller().unary(method, {}, as('absent')))).toMatchObject({
        reason: 'NOT_ALLOWED',
        metadata: { identity: 'absent', needed: 'identity' },
      });
    }
    expect((await caller().unary(Health.method.check, {})).status).toBe(1);
  });
});

test('a refusal is in the log, and a write in the audit, with who wanted what', () => {
  expect(sidecar.log()).toContainEqual(
    expect.objectContaining({
      method: 'PolicyEngineService/ResetRiskCeiling',
      code: 'PERMISSION_DENIED',
      reason: 'NOT_ALLOWED',
      caller: 'reader',
      needed: 'write',
    }),
  );
  const audited = { audit: 'write', caller: 'reader', method: 'PolicyEngineService/ResetRiskCeiling' };
  expect(sidecar.log()).toContainEqual(
    expect.objectContaining({ ...audited, outcome: 'failed', reason: 'NOT_ALLOWED' }),
  );
});

test('a change counts within moments; a broken one is told and changes nothing', async () => {
  const changing = join(folder, 'changing.json');
  const tokensFile = join(folder, 'tokens');
  await writeFile(changing, JSON.stringify(POLICY));
  const server = await startTestSidecar({ tokensFile, authorizationFile: changing });
  const reads = (): Promise<boolean> =>
    server.grpc.unary(fetchRiskCeilings, {}, as('nobody')).then(
      () => true,
      () => false,
    );
  expect(await reads()).toBe(false);
  const more = { identities: { nobody: { read: ['PolicyEngineService/FetchRiskCeilings'], tenants: 'all' } } };
  await writeFile(changing, JSON.stringify(more));
  await vi.waitFor(async () => expect(await reads()).toBe(true));
  expect((await refusal(server.grpc.unary(fetchRiskCeilings, {}, as('reader')))).reason).toBe('NOT_ALLOWED');
  await writeFile(changing, '{"identities": {"nobody": {"tenants": "none"}}}');
  await vi.waitFor(() =>
    expect(server.log()).toContainEqual(
      expect.objectContaining({
        problem: `the authorization file ${changing} is no good: identities.nobody.tenants must be "all" or a list`,
        msg: 'authorization file not usable, what was read before stays in force',
      }),
    ),
  );
  expect(await reads()).toBe(true);
  await server.stop();
});

describe('the file itself', () => {
  const endpoints = async () => {
    const server = drivers({} as never);
    return server.flatMap(driverEndpoints(new PageTokens()));
  };
  const grantsOf = async (content: unknown): Promise<Grants> => {
    const path = join(folder, 'candidate.json');
    await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
    return readOnce(authorizationReading(path, await endpoints()));
  };
  const identity = (entry: object) => ({ identities: { ann: { tenants: 'all', ...entry } } });

  test.each([
    ['no JSON', '{"identities":\n', /^the authorization file \S+ is no good: .*JSON/],
    ['a list', [], /it must be object/],
    ['nothing', {}, /it must have required property 'identities'/],
    ['another key', { identities: {}, roles: {} }, /roles is not a key of this file/],
    ['a misspelt key', identity({ reads: ['*'] }), /identities\.ann\.reads is not a key of this file/],
    ['no tenants', { identities: { ann: {} } }, /identities\.ann must have required property 'tenants'/],
    ['a tenant without a name', identity({ tenants: [''] }), /identities\.ann\.tenants\[0\] must NOT have fewer/],
    ['a text for a list', identity({ read: '*' }), /identities\.ann\.read must be array/],
    [
      'a path',
      identity({ read: ['/a/b/c'] }),
      /identities\.ann\.read\[0\] must be a service, an RPC as Service\/Method/,
    ],
    ['an unknown service', identity({ read: ['*', 'Nope'] }), /identities\.ann\.read\[1\] names no service or RPC/],
    [
      'an unknown RPC',
      identity({ write: ['PolicyEngineService/Nope'] }),
      /identities\.ann\.write\[0\] names no service or RPC of the drivers: PolicyEngineService\/Nope/,
    ],
    [
      'a write among reads',
      identity({ read: ['PolicyEngineService/ResetRiskCeiling'] }),
      /identities\.ann\.read\[0\] is no read: PolicyEngineService\/ResetRiskCeiling/,
    ],
    ['transactions', identity({ read: ['TransactionService'] }), /names no service or RPC of the drivers/],
  ])('%s is refused by its place', async (_what, content, message) => {
    const problem = await grantsOf(content).catch((error: Error) => error.message);
    expect(problem).toMatch(message);
    expect(problem).not.toContain('\n');
  });

  test('every wrong place is named at once', async () => {
    const problem = await grantsOf({ identities: { ann: { reads: [] }, bob: { tenants: 1 } } }).catch(String);
    expect(problem).toMatch(/identities\.ann .*; identities\.ann\.reads .*; identities\.bob\.tenants /);
  });

  test('it explains what it grants, and by which entry', async () => {
    const grants = await grantsOf(POLICY);
    expect(grants.explain('reader', 'PolicyEngineService/FetchRiskCeilings')).toEqual({
      allowed: true,
      needed: 'read',
      because: 'identities.reader.read[0]',
    });
    expect(grants.explain('writer', `${PolicyRulesService.typeName.split('.').at(-1)}/AddRule`)).toEqual({
      allowed: false,
      needed: 'write',
      because: 'identities.writer.write does not grant it',
    });
    expect(grants.explain('absent', 'PolicyEngineService/FetchRiskCeilings')).toMatchObject({
      allowed: false,
      because: 'identities has no absent',
    });
    expect(grants.explain('reader', 'PolicyEngineService/Nope')).toBeUndefined();
  });

  test('it says whose rows a caller is about', async () => {
    const grants = await grantsOf(POLICY);
    expect(['reader', 'writer', 'nobody', 'absent'].map((name) => grants.of(name).tenants)).toEqual([
      'all',
      'all',
      [],
      [],
    ]);
  });
});
