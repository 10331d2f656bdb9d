import { create, toBinary } from '@bufbuild/protobuf';
import { beforeAll, describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { useSidecar } from '../support/use.ts';
import { exchange, http1Request, openH2, pathOf, rawCall } from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const WRITE = PolicyEngineService.method.resetRiskCeiling;
const UUID = '5b0c2b1e-0000-4000-8000-000000000001';

let ceilingId: string;
const sidecar = useSidecar();
beforeAll(async () => {
  const [row] = await sidecar.sql<{ id: string }>('select id from policy.risk_ceilings limit 1');
  ceilingId = row!.id;
});

/** A value or, where it was sent more than once, several. */
type Sent = Readonly<Record<string, string | readonly string[]>>;

/** A gRPC call with these headers: OK, or what it was refused with. */
const overGrpc = (port: 'grpcAddress' | 'httpAddress') => async (sent: Sent, write: boolean) => {
  const session = openH2(sidecar.server[port]!);
  const call = write
    ? rawCall(session, WRITE, { ceilingId }, sent as never)
    : rawCall(session, READ, {}, sent as never);
  const { status, reason, fields } = await call.finally(() => session.close());
  return status === 0 ? 'OK' : { status, reason, fields };
};

const overHttp1 = async (sent: Sent, write: boolean) => {
  const lines = Object.entries(sent).flatMap(([name, values]) => [values].flat().map((value) => `${name}: ${value}`));
  const method = write ? WRITE : READ;
  const body = toBinary(
    method.input as typeof WRITE.input,
    create(method.input as typeof WRITE.input, write ? { ceilingId } : {}),
  );
  const text = await exchange(
    sidecar.server.httpAddress!,
    http1Request(pathOf(method), ['content-type: application/proto', ...lines], body),
  );
  if (text.startsWith('HTTP/1.1 200')) return 'OK';
  const { code, details } = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1)) as {
    code: string;
    details: { debug: { reason?: string; fieldViolations?: { field: string }[] } }[];
  };
  return {
    status: code === 'invalid_argument' ? 3 : code === 'unauthenticated' ? 16 : 0,
    reason: details[0]?.debug.reason,
    fields: details.flatMap(({ debug }) => debug.fieldViolations?.map(({ field }) => field) ?? []),
  };
};

const refused = (header: string) => ({ status: 3, reason: 'INVALID_REQUEST', fields: [`header ${header}`] });

const single = { transaction: 'single-use' };

const UNREADABLE: [what: string, header: string, sent: Sent, write: boolean][] = [
  // These ran twice when they were sent twice: the header counted as absent.
  ['a byte beyond ASCII', 'idempotency-key', { ...single, 'idempotency-key': `${UUID}\xe9` }, true],
  ['a tab', 'idempotency-key', { ...single, 'idempotency-key': `${UUID}\t${UUID}` }, true],
  ['two values', 'idempotency-key', { ...single, 'idempotency-key': [UUID, UUID.replace('1', '2')] }, true],
  ['nothing', 'idempotency-key', { ...single, 'idempotency-key': '' }, true],
  // These left the transaction they were sent for.
  ['a byte beyond ASCII', 'transaction', { transaction: 'abc\xe9' }, false],
  ['a tab', 'transaction', { transaction: 'abc\tdef' }, false],
  ['nothing', 'transaction', { transaction: '' }, false],
  ['two values', 'transaction', { transaction: ['single-use', 'x'] }, false],
  ['two values', 'transaction-sequence', { transaction: 'x', 'transaction-sequence': ['1', '2'] }, false],
  ['a byte beyond ASCII', 'transaction-sequence', { transaction: 'x', 'transaction-sequence': '1\xb2' }, false],
  ['a byte beyond ASCII', 'authorization', { authorization: 'Bearer \xe9' }, false],
];

describe.each([
  ['the gRPC port', 'grpc-timeout', () => overGrpc('grpcAddress')],
  ['gRPC on the HTTP port', 'grpc-timeout', () => overGrpc('httpAddress')],
  ['Connect over HTTP/1.1', 'connect-timeout-ms', () => overHttp1],
] as const)('over %s a header that was sent and cannot be read is refused by name', (_where, timeout, caller) => {
  test.each(UNREADABLE)('%s in %s', async (_what, header, sent, write) => {
    expect(await caller()(sent, write)).toEqual(refused(header));
  });

  test.each(['soon', '-1', '5s', '99999999999999S', '1\xb2', ''])('a deadline of "%s"', async (value) => {
    expect(await caller()({ [timeout]: value }, false)).toEqual(refused(timeout));
  });

  test('two deadlines', async () => {
    const values = timeout === 'grpc-timeout' ? ['1S', '2S'] : ['1000', '2000'];
    expect(await caller()({ [timeout]: values }, false)).toEqual(refused(timeout));
  });

  test('the same value twice is that value', async () => {
    expect(await caller()({ transaction: ['single-use', 'single-use'] }, true)).toBe('OK');
  });

  test('a header that means nothing here may hold anything', async () => {
    expect(await caller()({ 'x-comment': 'caf\xe9\t!' }, false)).toBe('OK');
  });

  test('an idempotency-key that means nothing here may hold anything', async () => {
    expect(await caller()({ 'idempotency-key': 'caf\xe9\t!' }, false)).toBe('OK');
  });

  test('what is readable is read', async () => {
    expect(await caller()({ ...single, 'idempotency-key': crypto.randomUUID() }, true)).toBe('OK');
  });
});

test('two values in authorization', async () => {
  expect(await overHttp1({ authorization: ['Bearer a', 'Bearer b'] }, false)).toEqual(refused('authorization'));
});

// HTTP/1.1 cuts blanks around a value off, as its standard says.
test.each(['grpcAddress', 'httpAddress'] as const)('over HTTP/2 a padded header is refused: %s', async (port) => {
  const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
  for (const value of [` ${transaction!.id}`, `${transaction!.id} `, ' ', '\t']) {
    expect(await overGrpc(port)({ transaction: value }, false)).toEqual(refused('transaction'));
  }
  await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
});

describe('headers that are too long are told, and the connection stays', () => {
  const many = (count: number, length: number): Record<string, string> =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`x-${index}`, 'v'.repeat(length)]));
  const tooLarge = { reason: 'HEADERS_TOO_LARGE', fields: [] };

  test.each([
    ['one of 20 KiB', many(1, 20_000)],
    ['200 of 200 bytes', many(200, 200)],
    ['a token of 20 KiB', { authorization: `Bearer ${'v'.repeat(20_000)}` }],
  ])('%s', async (_what, headers) => {
    for (const port of ['grpcAddress', 'httpAddress'] as const) {
      const session = openH2(sidecar.server[port]!);
      expect(await rawCall(session, READ, {}, headers)).toMatchObject({ status: 8, ...tooLarge });
      expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
      session.destroy();
    }
    expect(await overHttp1(headers, false)).toMatchObject(tooLarge);
  });

  test('very many short ones are read, and none of them is left out', async () => {
    // Node by itself takes 128 over HTTP/2, and of HTTP/1.1 no more than 2,000.
    const short = many(500, 1);
    expect(await overGrpc('grpcAddress')({ ...short, transaction: 'nonsense' }, true)).toMatchObject({
      reason: 'TRANSACTION_UNKNOWN',
    });
    expect(await overGrpc('httpAddress')({ ...short, transaction: 'nonsense' }, true)).toMatchObject({
      reason: 'TRANSACTION_UNKNOWN',
    });
    const shortest = Object.fromEntries(Array.from({ length: 2_500 }, (_, index) => [`x${index}`, '']));
    expect(await overHttp1({ ...shortest, transaction: 'nonsense' }, true)).toMatchObject({
      reason: 'TRANSACTION_UNKNOWN',
    });
  });

  test('more than 64 KiB is 431 over HTTP/1.1', async () => {
    const request = http1Request(pathOf(READ), [`x: ${'v'.repeat(70_000)}`], Buffer.alloc(0));
    expect(await exchange(sidecar.server.httpAddress!, request)).toMatch(/^HTTP\/1.1 431/);
  });

  test.each(['grpcAddress', 'httpAddress'] as const)('and told like the others over HTTP/2: %s', async (port) => {
    const session = openH2(sidecar.server[port]!, { maxSendHeaderBlockLength: 1_000_000 });
    const beyond = { x: 'v'.repeat(40_000), y: 'v'.repeat(40_000) };
    expect(await rawCall(session, READ, {}, beyond)).toMatchObject({ status: 8, ...tooLarge });
    expect(await rawCall(session, READ, {})).toMatchObject({ status: 0 });
    session.destroy();
  });
});
