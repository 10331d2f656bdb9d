import { setTimeout as sleep } from 'node:timers/promises';
import { create, type DescMessage, fromBinary, type Message, toBinary } from '@bufbuild/protobuf';
import { tellDocuments } from '../contract/document-texts.ts';
import { Code, type FieldViolation, invalidArgument, ofOperation, type RpcError, refuse } from '../contract/errors.ts';
import type { Database } from '../database/pool.ts';
import { AutoCommitSession, type Session } from '../database/session.ts';
import { abortSignalOf } from '../database/signal.ts';
import { toRpcError } from '../database/sqlstate.ts';
import type { TransactionMode } from '../database/transaction-mode.ts';
import {
  type Operation,
  type OperationResult,
  OperationResultSchema,
  OperationSchema,
} from '../gen/hoc/cus/policies/v1/operation_pb.ts';
import {
  type ExecuteRequest,
  ExecuteRequestSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
  TransactionService,
} from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import { firstAnswer, type OnceRequest } from '../transactions/once.ts';
import { inOwn } from '../transactions/single-use.ts';
import type { Transaction } from '../transactions/transaction.ts';
import { answered, type ControlCall, type DriverEndpoint, rowCountOf } from './endpoint.ts';
import { idempotencyKeyOf, outsideError, sequenceOf } from './headers.ts';
import { isolationOf } from './isolation.ts';
import { keyed, onceInOwn, onceInTransaction } from './repeats.ts';

/** One kind of operation: which RPC runs it and how its answer is wrapped. */
interface Runner {
  readonly endpoint: DriverEndpoint;
  /** Local name of the answer's field in OperationResult. */
  readonly result: string;
}

const fieldsOf = (desc: DescMessage, oneof: string) =>
  desc.oneofs
    .find(({ name }) => name === oneof)!
    .fields.map((field) => ({ name: field.localName, type: field.message! }));

/** Operation field -> its RPC, found by request type; every RPC has a request type of its own. */
const runnersOf = (endpoints: readonly DriverEndpoint[]): Map<string, Runner> => {
  const byInput = new Map(endpoints.map((endpoint) => [endpoint.method.input.typeName, endpoint]));
  const results = new Map(fieldsOf(OperationResultSchema, 'response').map(({ name, type }) => [type.typeName, name]));
  return new Map(
    fieldsOf(OperationSchema, 'request').map(({ name, type }) => {
      const endpoint = byInput.get(type.typeName);
      const result = endpoint && results.get(endpoint.method.output.typeName);
      if (!endpoint || !result) throw new Error(`operation ${name} has no RPC or no result`);
      return [name, { endpoint, result }];
    }),
  );
};

/** Bound of `max_attempts`. */
export const MAX_ATTEMPTS = 10;
/** Bound of `operations`. */
export const MAX_OPERATIONS = 1_000;

/** `attempts` in a response. */
const ATTEMPTS_BYTES = 2;

const EXECUTE = {
  name: 'TransactionService/Execute',
  // Digests that are stored are of this word.
  path: 'Execute',
  method: TransactionService.method.execute,
};

/** Operations sent before the first of them is answered. */
const MOST_UNDER_WAY = 100;

/** What a message of so many bytes takes as an element of a list: with its tag and its length. */
const fieldBytes = (bytes: number): number => 2 + Math.floor(Math.log2(Math.max(bytes, 1)) / 7) + bytes;

const unexpected = (expected: bigint, found: bigint): RpcError =>
  refuse('UNEXPECTED_ROW_COUNT', `${expected} rows were expected, ${found} found`, {
    metadata: { expected: String(expected), found: String(found) },
    preconditions: [
      { type: 'ROW_COUNT', subject: 'expected_rows', description: `expected ${expected}, found ${found}` },
    ],
  });

/**
 * Handlers of `TransactionService.Execute`: a list of operations in one round trip, `alone` in a transaction of their own or
 * `inside` an open one, which goes on as if nothing had been tried where they fail.
 */
export const executeHandlers = (database: Database, endpoints: readonly DriverEndpoint[]) => {
  const runners = runnersOf(endpoints);
  const runnerOf = ({ request }: Operation): Runner => runners.get(request.case!)!;

  const validate = (operations: readonly Operation[]): void => {
    const problems: FieldViolation[] = operations.flatMap(({ request }, index) => {
      const path = `operations[${index}]`;
      if (request.case === undefined) return [{ field: `${path}.request`, description: 'must be set' }];
      const prefix = `${path}.${OperationSchema.field[request.case].name}.`;
      return runners
        .get(request.case)!
        .endpoint.check(request.value)
        .map(({ field, description }) => ({ field: prefix + field, description }));
    });
    if (problems.length > 0) throw invalidArgument(problems);
  };

  /** Each must be granted, before any runs. */
  const authorize = (operations: readonly Operation[], { access }: ControlCall): void => {
    for (const [index, operation] of operations.entries()) {
      try {
        access.check(runnerOf(operation).endpoint);
      } catch (error) {
        throw ofOperation(toRpcError(error), index);
      }
    }
  };

  const runOne = async (db: Session, operation: Operation, call: ControlCall): Promise<OperationResult> => {
    const { endpoint, result } = runnerOf(operation);
    const { response: value, count } = await answered(endpoint, db, operation.request.value as Message, call, false);
    const rows = rowCountOf(value, count);
    if (operation.expectedRows !== undefined && operation.expectedRows !== rows) {
      throw unexpected(operation.expectedRows, rows);
    }
    const made = create(OperationResultSchema, {
      rows,
      response: { case: result, value } as OperationResult['response'],
    });
    call.size.take(fieldBytes(toBinary(OperationResultSchema, made).length));
    return made;
  };

  /** Operations of one statement need no other's answer, and are on their way together. */
  const runAll = async (
    db: Session,
    operations: readonly Operation[],
    call: ControlCall,
  ): Promise<OperationResult[]> => {
    const results: OperationResult[] = [];
    let under = new Set<Promise<void>>();
    let failed: { readonly index: number; readonly error: unknown } | undefined;
    const settled = async (): Promise<void> => {
      await Promise.all(under);
      under = new Set();
      if (failed) throw ofOperation(toRpcError(failed.error), failed.index);
    };
    for (const [index, operation] of operations.entries()) {
      const isAlone = runnerOf(operation).endpoint.answering === undefined;
      if (isAlone || under.size >= MOST_UNDER_WAY) await settled();
      const running = runOne(db, operation, call).then(
        (result) => {
          results[index] = result;
        },
        (error: unknown) => {
          // Those after it fail, too, and only because of it.
          if (failed === undefined || index < failed.index) failed = { index, error };
        },
      );
      under.add(running);
      if (isAlone) await settled();
    }
    await settled();
    return results;
  };

  const admit = ({ operations }: ExecuteRequest, call: ControlCall): void => {
    validate(operations);
    authorize(operations, call);
  };

  const results = async (
    db: Session,
    { operations }: ExecuteRequest,
    call: ControlCall,
    attempts: number,
  ): Promise<ExecuteResponse> => {
    call.notes.clear();
    call.size.clear();
    call.size.take(ATTEMPTS_BYTES);
    const made = create(ExecuteResponseSchema, { results: await runAll(db, operations, call), attempts });
    return call.notes.documentTexts ? (tellDocuments(ExecuteResponseSchema, made) as ExecuteResponse) : made;
  };

  const inside = async (
    transaction: Transaction,
    request: ExecuteRequest,
    call: ControlCall,
  ): Promise<ExecuteResponse> => {
    admit(request, call);
    const unwanted = (['isolationLevel', 'maxAttempts'] as const).filter((field) => request[field] !== undefined);
    if (unwanted.length > 0) {
      throw invalidArgument(
        unwanted.map((field) => ({
          field: ExecuteRequestSchema.field[field].name,
          description: 'must be unset inside an open transaction',
        })),
      );
    }
    const run = (): Promise<ExecuteResponse> =>
      transaction.run(EXECUTE.name, call, (db) => db.attempt((within) => results(within, request, call, 1)));
    const sequence = sequenceOf(call);
    return sequence === undefined ? run() : onceInTransaction(transaction, sequence, EXECUTE, request, call, run);
  };

  /** The answer to a request that was committed while another waited for it. */
  const answeredBefore = async (once: OnceRequest, call: ControlCall): Promise<ExecuteResponse | undefined> => {
    const bytes = await firstAnswer(new AutoCommitSession(database, call), once).catch(() => undefined);
    return bytes && fromBinary(ExecuteResponseSchema, bytes);
  };

  const alone = async (request: ExecuteRequest, call: ControlCall): Promise<ExecuteResponse> => {
    admit(request, call);
    if (sequenceOf(call) !== undefined) throw outsideError();
    const idempotencyKey = idempotencyKeyOf(call);
    const once = idempotencyKey === undefined ? undefined : keyed(EXECUTE, request, call, idempotencyKey);
    const mode: TransactionMode = {
      isolation: isolationOf(request.isolationLevel),
      readOnly: false,
      deferrable: false,
    };
    const attempts = request.maxAttempts ?? 1;
    for (let attempt = 1; ; attempt += 1) {
      const run = (db: Session): Promise<ExecuteResponse> => results(db, request, call, attempt);
      try {
        return await (once ? onceInOwn(database, mode, call, once, run) : inOwn(database, mode, call, run));
      } catch (error) {
        const failure = toRpcError(error);
        // A snapshot is older than the wait for a request of the same key, whose answer it does not show.
        const meanwhile = once && mode.isolation !== 'read committed' ? await answeredBefore(once, call) : undefined;
        if (meanwhile) return meanwhile;
        if (failure.code !== Code.ABORTED || attempt >= attempts) throw failure;
        database.observer?.again('conflict');
        // Those that collided must not meet again at the same moment.
        await sleep(failure.retryAfterMs! * attempt * Math.random(), undefined, {
          signal: abortSignalOf(call.signal),
        }).catch(() => {
          throw call.signal.reason;
        });
      }
    }
  };

  return { alone, inside };
};
