import { create, type DescMethodUnary, type MessageInitShape } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { expect, test, vi } from 'vitest';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { OperationSchema } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { type IsolationLevel, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError, type Caller } from '../support/client.ts';
import { request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { useSidecar } from '../support/use.ts';

const tx = TransactionService.method;
const WORKERS = 12;
/** Pieces of work, each one call, one list of operations or one transaction. */
const PIECES = Number(process.env['PIECES'] ?? 1_500);
const SEED = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);

// A busy machine may take its time to connect; that is not what is looked for here.
const sidecar = useSidecar({ poolWaitMs: 20_000 });

interface Call {
  readonly method: DescMethodUnary;
  readonly isWrite: boolean;
  readonly given: object;
}

const operations = new Map(
  OperationSchema.oneofs.flatMap(({ fields }) => fields.map((field) => [field.message!.typeName, field.localName])),
);

const anyCall: fc.Arbitrary<Call> = fc.oneof(
  ...driversFor(noServices).flatMap(({ service, rpcs }) =>
    service.methods
      .filter((method): method is DescMethodUnary => method.methodKind === 'unary')
      .map((method) => {
        const isWrite = rpcs[method.localName]!.kind === 'write';
        return request(method.input).map((given) => ({ method, isWrite, given }));
      }),
  ),
);
const isolationLevel = fc.integer({ min: 1, max: 3 });
const anyPiece = fc.oneof(
  fc.record({ kind: fc.constant('call' as const), call: anyCall, hurry: fc.option(fc.integer({ min: 1, max: 20 })) }),
  fc.record({
    kind: fc.constant('list' as const),
    calls: fc.array(
      anyCall.filter(({ method }) => operations.has(method.input.typeName)),
      { minLength: 1, maxLength: 4 },
    ),
    isolationLevel,
    maxAttempts: fc.integer({ min: 1, max: 3 }),
  }),
  fc.record({
    kind: fc.constant('transaction' as const),
    calls: fc.array(anyCall, { maxLength: 6 }),
    isolationLevel,
    commits: fc.boolean(),
  }),
);
type Piece = typeof anyPiece extends fc.Arbitrary<infer P> ? P : never;

/** Codes of what a caller, another caller, or the lack of time can be the cause of. */
const FORESEEN =
  /^(INVALID_ARGUMENT|NOT_FOUND|ALREADY_EXISTS|FAILED_PRECONDITION|ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED)$/;

const send = ({ method, given }: Call, caller: Caller, init: object): Promise<unknown> =>
  caller.unary(method, create(method.input, given as never), init);

/** Awaits a call, and swallows what was foreseen. An end of a transaction is part of no piece. */
type Met = (call: Promise<unknown>, of?: Piece['kind']) => Promise<void>;

/** Does a piece of work. */
const work = async (piece: Piece, caller: Caller, met: Met): Promise<void> => {
  switch (piece.kind) {
    case 'call': {
      const scope = piece.call.isWrite ? { transaction: 'single-use' } : {};
      const init = piece.hurry === null ? scope : { ...scope, timeoutMs: piece.hurry };
      await met(send(piece.call, caller, init), piece.kind);
      return;
    }
    case 'list': {
      const { calls, isolationLevel: level, maxAttempts } = piece;
      const list = calls.map(({ method, given }) => ({
        request: { case: operations.get(method.input.typeName), value: create(method.input, given as never) },
      }));
      const execute = { operations: list, isolationLevel: level, maxAttempts };
      await met(caller.unary(tx.execute, execute as MessageInitShape<typeof tx.execute.input>), piece.kind);
      return;
    }
    case 'transaction': {
      const { transaction } = await caller.unary(tx.begin, { isolationLevel: piece.isolationLevel as IsolationLevel });
      const transactionId = transaction!.id!;
      for (const call of piece.calls) await met(send(call, caller, { transaction: transactionId }), piece.kind);
      await met(caller.unary(piece.commits ? tx.commit : tx.rollback, { transactionId }));
    }
  }
};

test('any mix of all calls, alone, in lists and in transactions, meets nothing unforeseen', async () => {
  console.log(`seed ${SEED}`);
  const pieces = fc.sample(anyPiece, { numRuns: PIECES, seed: SEED });
  const strange: string[] = [];
  /** Calls that succeeded, by what they were part of. */
  const succeeded = { call: 0, list: 0, transaction: 0 };
  const met: Met = async (call, of) => {
    await call.then(
      () => {
        if (of) succeeded[of] += 1;
      },
      (error: unknown) => {
        if (!(error instanceof CallError && FORESEEN.test(error.code))) strange.push(String(error));
      },
    );
  };
  const worker = async (_: unknown, number: number): Promise<void> => {
    const caller = sidecar.callers[number % sidecar.callers.length]!;
    for (let piece = pieces.pop(); piece; piece = pieces.pop()) await work(piece, caller, met);
  };
  await Promise.all(Array.from({ length: WORKERS }, worker));
  expect(strange).toEqual([]);
  for (const [kind, count] of Object.entries(succeeded)) expect(count, kind).toBeGreaterThan(0);
  expect(sidecar.log().filter(({ level }) => level === 'error' || level === 'fatal')).toEqual([]);
  expect((await sidecar.grpc.unary(tx.list, {})).transactions).toEqual([]);
  // A statement that was cancelled may take a moment to end.
  await vi.waitFor(async () => {
    const busy = await sidecar.sql(`select from pg_stat_activity
      where datname = current_database() and application_name like 'policy-sidecar%' and state <> 'idle'`);
    expect(busy).toEqual([]);
  });
}, 120_000);
