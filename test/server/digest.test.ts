import { create, type DescMessage, fromBinary, toBinary } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { ExecuteRequestSchema, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { digest } from '../../src/server/headers.ts';
import { useSidecar } from '../support/use.ts';
import { answerOf, envelope, openCall, openH2, pathOf } from '../support/wire.ts';

const INSERT = PolicyEngineService.method.insertViolation;

const sidecar = useSidecar();

const text = (value: string) => ({ kind: { case: 'stringValue' as const, value } });

/** The same violation, its evidence's entries in the given order: the order they are created in is that of the wire. */
const insertion = (id: string, keys: readonly string[]) => {
  const inner = { fields: Object.fromEntries(keys.map((key) => [key, text(key)])) };
  const fields = Object.fromEntries(keys.map((key) => [key, { kind: { case: 'structValue' as const, value: inner } }]));
  return create(INSERT.input, {
    violationId: id,
    violationType: 'x',
    severity: 0.5,
    description: 'd',
    evidence: { kind: { case: 'structValue', value: { fields } } },
    routedToGovernor: false,
    detectedAt: { seconds: 1n, nanos: 0 },
  });
};

const send = async (path: string, bytes: Uint8Array, headers: Record<string, string>) => {
  const session = openH2(sidecar.server.grpcAddress);
  const stream = openCall(session, path, headers);
  const answer = answerOf(stream);
  stream.end(envelope(bytes));
  const { status, message } = await answer;
  session.close();
  return { status, message };
};

const OK = { status: 0, message: '' };

// Go's protobuf writes the entries of a map in an order that is random on purpose; every document is a map.
describe('a retry is the same request in whatever order map entries arrive', () => {
  test('idempotency-key of a single-use write', async () => {
    const headers = { transaction: 'single-use', 'idempotency-key': crypto.randomUUID() };
    const id = crypto.randomUUID();
    const path = pathOf(INSERT);
    expect(await send(path, toBinary(INSERT.input, insertion(id, ['a', 'b', 'c'])), headers)).toMatchObject(OK);
    expect(await send(path, toBinary(INSERT.input, insertion(id, ['c', 'a', 'b'])), headers)).toMatchObject(OK);
    const other = await send(path, toBinary(INSERT.input, insertion(id, ['c', 'a', 'd'])), headers);
    expect(other.status).not.toBe(0);
  });

  test('transaction-sequence', async () => {
    const { transaction } = await sidecar.grpc.unary(TransactionService.method.begin, {});
    const headers = { transaction: transaction!.id!, 'transaction-sequence': '1' };
    const id = crypto.randomUUID();
    const path = pathOf(INSERT);
    expect(await send(path, toBinary(INSERT.input, insertion(id, ['a', 'b'])), headers)).toMatchObject(OK);
    expect(await send(path, toBinary(INSERT.input, insertion(id, ['b', 'a'])), headers)).toMatchObject(OK);
    await sidecar.grpc.unary(TransactionService.method.rollback, { transactionId: transaction!.id! });
  });

  test('idempotency-key of Execute', async () => {
    const headers = { 'idempotency-key': crypto.randomUUID() };
    const id = crypto.randomUUID();
    const list = (keys: string[]) =>
      toBinary(
        ExecuteRequestSchema,
        create(ExecuteRequestSchema, {
          operations: [{ request: { case: 'insertViolation', value: insertion(id, keys) } }],
        }),
      );
    const path = pathOf(TransactionService.method.execute);
    expect(await send(path, list(['a', 'b']), headers)).toMatchObject(OK);
    expect(await send(path, list(['b', 'a']), headers)).toMatchObject(OK);
  });
});

describe('what is another request has another digest', () => {
  const none = { header: () => undefined, sent: [] };
  const of = (desc: DescMessage, bytes: Uint8Array) => digest('p', desc, fromBinary(desc, bytes), none);
  const id = '5b0c2b1e-0000-4000-8000-000000000001';
  const base = toBinary(INSERT.input, insertion(id, ['a', 'b']));

  test('another path, another value', () => {
    expect(digest('q', INSERT.input, fromBinary(INSERT.input, base), none)).not.toBe(of(INSERT.input, base));
    expect(of(INSERT.input, toBinary(INSERT.input, insertion(id, ['a', 'c'])))).not.toBe(of(INSERT.input, base));
  });

  test('keys that look like numbers, and the one that is no own property', () => {
    const odd = (keys: string[]) => of(INSERT.input, toBinary(INSERT.input, insertion(id, keys)));
    expect(odd(['10', '9', '__proto__'])).toBe(odd(['__proto__', '9', '10']));
    expect(odd(['10', '__proto__'])).not.toBe(odd(['10']));
  });

  test('fields that this version does not know count, in whatever order they arrive', () => {
    const unknown = (...values: number[]) => {
      const writer = new BinaryWriter();
      for (const value of values) writer.tag(900, WireType.Varint).uint32(value);
      return Buffer.concat([base, writer.finish()]);
    };
    expect(of(INSERT.input, unknown(1, 2))).toBe(of(INSERT.input, unknown(2, 1)));
    expect(of(INSERT.input, unknown(1, 2))).not.toBe(of(INSERT.input, unknown(1, 3)));
    expect(of(INSERT.input, unknown(1))).not.toBe(of(INSERT.input, base));
  });
});
