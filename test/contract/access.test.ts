import { type DescMethod, getOption } from '@bufbuild/protobuf';
import { MethodOptions_IdempotencyLevel as Idempotency } from '@bufbuild/protobuf/wkt';
import { describe, expect, test } from 'vitest';
import { drivers } from '../../src/drivers/drivers.ts';
import { access, MethodAccess } from '../../src/gen/hoc/cus/policies/v1/access_pb.ts';
import { SymbolTableService } from '../../src/gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { noServices } from '../support/services.ts';

const ACCESS = {
  read: MethodAccess.READ,
  write: MethodAccess.WRITE,
  compute: MethodAccess.COMPUTE,
  control: MethodAccess.CONTROL,
} as const;

interface Rpc {
  readonly name: string;
  readonly method: DescMethod;
  readonly kind: keyof typeof ACCESS;
}

const rpcs: readonly Rpc[] = [
  ...drivers(noServices).flatMap(({ service, rpcs }) =>
    service.methods.map((method) => ({ method, kind: rpcs[method.localName]!.kind })),
  ),
  ...TransactionService.methods.map((method) => ({ method, kind: 'control' as const })),
].map((rpc) => ({ ...rpc, name: `${rpc.method.parent.name}/${rpc.method.name}` }));

/** RPCs that change what this process holds, and neither read nor write the database. */
const CHANGES: readonly DescMethod[] = [
  ...(['enterScope', 'exitScope', 'define', 'addReference', 'createTable', 'dropTable', 'apply'] as const).map(
    (name) => SymbolTableService.method[name],
  ),
  ...(
    [
      'begin',
      'commit',
      'rollback',
      'prepare',
      'savepoint',
      'rollbackToSavepoint',
      'releaseSavepoint',
      'hold',
      'execute',
    ] as const
  ).map((name) => TransactionService.method[name]),
];

/** Those that say the same of a transaction however often they are asked. */
const REPEATABLE: readonly DescMethod[] = [
  TransactionService.method.commitPrepared,
  TransactionService.method.rollbackPrepared,
];

describe('what the contract says of an RPC to tools', () => {
  test('is how the server treats its `transaction` header', () => {
    expect(rpcs.map(({ name, method }) => [name, getOption(method, access)])).toEqual(
      rpcs.map(({ name, kind }) => [name, ACCESS[kind]]),
    );
  });

  test('no write is without side effects, and every read is', () => {
    const pure = ({ kind, method }: Rpc): boolean => kind !== 'write' && !CHANGES.includes(method);
    expect(rpcs.map(({ name, method }) => [name, Idempotency[method.idempotency]])).toEqual(
      rpcs.map((rpc) => [
        rpc.name,
        REPEATABLE.includes(rpc.method) ? 'IDEMPOTENT' : pure(rpc) ? 'NO_SIDE_EFFECTS' : 'IDEMPOTENCY_UNKNOWN',
      ]),
    );
  });
});
