import { writeFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { SymbolTableService } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { parseTokens, tokenIdentity } from '../../src/server/identity.ts';
import { refusal } from '../support/client.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { hash, tokenLine } from '../support/token-line.ts';
import { useFolder, useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const bearer = (token: string) => ({ headers: { authorization: `Bearer ${token}` } });

const folder = useFolder();
const tokensFile = join(folder, 'tokens');
beforeAll(async () => {
  await writeFile(tokensFile, `# engines\n\nann: ${hash('secret-a')}\nbob: ${hash('secret-b').toUpperCase()}\n`);
});
const sidecar = useSidecar({ tokensFile });

describe.each(['grpc', 'connect'] as const)('bearer tokens over %s', (listener) => {
  const caller = () => sidecar[listener];

  test.each([
    ['no token', {}],
    ['another token', bearer('secret-c')],
    ['a name instead of a token', bearer('ann')],
    ['the hash instead of the token', bearer(hash('secret-a'))],
    ['another scheme', { headers: { authorization: 'Basic secret-a' } }],
    ['an empty header', { headers: { authorization: '' } }],
  ])('%s is UNAUTHENTICATED', async (_what, init) => {
    const error = await refusal(caller().unary(rpc.fetchRiskCeilings, {}, init));
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'UNAUTHENTICATED' });
  });

  test('a symbol table belongs to the caller that made it', async () => {
    const { createTable, getTable } = SymbolTableService.method;
    const { table } = await caller().unary(createTable, {}, bearer('secret-a'));
    expect((await caller().unary(getTable, { table }, bearer('secret-a'))).symbols).toBe(14);
    expect(await refusal(caller().unary(getTable, { table }, bearer('secret-b')))).toMatchObject({
      code: 'PERMISSION_DENIED',
      reason: 'TABLE_NOT_YOURS',
    });
  });

  test('a token of the file is let in', async () => {
    expect((await caller().unary(rpc.fetchRiskCeilings, {}, bearer('secret-a'))).riskCeilings).not.toHaveLength(0);
    expect((await caller().unary(rpc.fetchRiskCeilings, {}, bearer('secret-b'))).riskCeilings).not.toHaveLength(0);
  });

  test('health needs no token', async () => {
    expect((await caller().unary(Health.method.check, {})).status).toBe(1);
  });

  test("another caller's transaction is refused, whatever is asked of it", async () => {
    const begun = await caller().unary(TransactionService.method.begin, { label: 'of ann' }, bearer('secret-a'));
    const { id } = begun.transaction!;
    expect(begun.transaction?.caller).toBe('ann');
    const asBob = { ...bearer('secret-b'), transaction: id! };
    for (const call of [
      caller().unary(rpc.fetchRiskCeilings, {}, asBob),
      caller().unary(TransactionService.method.commit, {}, asBob),
      caller().unary(TransactionService.method.rollback, {}, asBob),
      caller().unary(TransactionService.method.get, {}, asBob),
      caller().unary(
        TransactionService.method.getOutcome,
        { subject: { case: 'transactionId', value: id! } },
        bearer('secret-b'),
      ),
    ]) {
      expect(await refusal(call)).toMatchObject({ code: 'PERMISSION_DENIED', reason: 'TRANSACTION_NOT_YOURS' });
    }
    const listed = await caller().unary(TransactionService.method.list, {}, bearer('secret-b'));
    expect(listed.transactions).toMatchObject([{ caller: 'ann', label: 'of ann' }]);
    expect(listed.transactions[0]?.id).toBeUndefined();
    await caller().unary(TransactionService.method.commit, {}, { ...bearer('secret-a'), transaction: id! });
    expect(await refusal(caller().unary(TransactionService.method.commit, {}, asBob))).toMatchObject({
      code: 'PERMISSION_DENIED',
    });
  });
});

test('the file is read again when it changes; a bad file changes nothing', async () => {
  const let_in = (token: string) =>
    sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, bearer(token)).then(
      () => true,
      () => false,
    );
  await writeFile(tokensFile, tokenLine('ann', 'secret-a') + tokenLine('cid', 'secret-c'));
  await vi.waitFor(async () => expect(await let_in('secret-c')).toBe(true), { timeout: 10_000 });
  expect(await let_in('secret-b')).toBe(false);
  await writeFile(tokensFile, 'not a token line\n');
  await vi.waitFor(() =>
    expect(sidecar.log()).toContainEqual(
      expect.objectContaining({ level: 'warn', msg: expect.stringMatching(/not usable, what was read before/) }),
    ),
  );
  expect(await let_in('secret-c')).toBe(true);
});

test('the open transactions and holds of a removed caller end, with why', async () => {
  const own = join(folder, 'own');
  const both = tokenLine('ann', 'secret-a') + tokenLine('bob', 'secret-b');
  await writeFile(own, both);
  const server = await startTestSidecar({ tokensFile: own });
  const { begin, hold, list } = TransactionService.method;
  await server.grpc.unary(begin, { label: 'ann' }, bearer('secret-a'));
  await server.grpc.unary(begin, { label: 'bob' }, bearer('secret-b'));
  const states: (number | undefined)[] = [];
  const holding = (async () => {
    for await (const { transaction } of server.grpc.stream(hold, {}, bearer('secret-b')))
      states.push(transaction?.state);
  })();
  await vi.waitFor(() => expect(states).toHaveLength(1));
  await writeFile(own, tokenLine('ann', 'secret-a'));
  const open = async () =>
    (await server.grpc.unary(list, {}, bearer('secret-a'))).transactions.map(({ label }) => label);
  await vi.waitFor(async () => expect(await open()).toEqual(['ann']), { timeout: 10_000 });
  await holding;
  // OPEN, then ROLLED_BACK
  expect(states).toEqual([1, 4]);
  const how = 'its caller is no longer in the tokens file';
  expect(server.log().filter((line) => line['how'] === how)).toHaveLength(2);
  await rm(own);
  await vi.waitFor(
    () =>
      expect(server.log()).toContainEqual(
        expect.objectContaining({ problem: `the tokens file ${own} cannot be read (ENOENT)` }),
      ),
    { timeout: 10_000 },
  );
  expect(await open()).toEqual(['ann']);
  await server.stop();
}, 60_000);

test('a start with a bad file names file and line', () => {
  const path = join(folder, 'bad');
  writeFileSync(path, `a: ${hash('x')}\nb: short\n`);
  expect(() => tokenIdentity(path, undefined as never)).toThrow(`${path} is no good: line 2 is not`);
});

test('a bad line is named', () => {
  expect(() => parseTokens(`a: ${hash('x')}\nb: short\n`)).toThrow('line 2');
});

test('a name may have several tokens, a token has one name', () => {
  const [x, y] = [hash('x'), hash('y')];
  expect(parseTokens(`  # a comment\na: ${x}\r\n  a: ${y}  \n`).map(({ name }) => name)).toEqual(['a', 'a']);
  expect(() => parseTokens(`a: ${x}\n\nb: ${x.toUpperCase()}\n`)).toThrow('line 3 has the token of line 1');
});

test('a name may have colons: the last one ends it', () => {
  const names = ['spiffe://example/ns/a/sa/engine', 'urn:x', 'host:8443'];
  expect(parseTokens(names.map((name) => tokenLine(name)).join('')).map(({ name }) => name)).toEqual(names);
  expect(parseTokens(`a:b:${hash('x')}\n`).map(({ name }) => name)).toEqual(['a:b']);
  for (const name of ['', ':', 'a:', 'a b', 'x'.repeat(129)]) {
    expect(() => parseTokens(tokenLine(name))).toThrow('line 1 is not');
  }
});

test('a bad line is not repeated: it may be a token', () => {
  expect(() => parseTokens('ann: the-token-itself\n')).toThrow(
    /^line 1 is not "name: sha256-of-token" \(64 hex\w+ digits\)$/,
  );
});
