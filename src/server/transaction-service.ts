import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, durationFromMs, durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, invalidArgument, RpcError } from '../database/errors.ts';
import type { Database } from '../database/pool.ts';
import { requestOutcome, transactionStatus } from '../database/requests.ts';
import type { Session } from '../database/session.ts';
import { TransactionSession } from '../database/session.ts';
import type { Transaction, TransactionRegistry } from '../database/transactions.ts';
import { between, canonicalUuid, maxLength, nested, type Rule, required, unchecked, uuid } from '../drivers/rules.ts';
import {
  type BeginRequest,
  BeginRequestSchema,
  type CommitRequest,
  type ExecuteRequest,
  type GetOutcomeRequest,
  type HoldRequest,
  IsolationLevel,
  Outcome,
  type ReleaseSavepointRequest,
  type RollbackToSavepointRequest,
  type SavepointRequest,
  type TransactionSchema,
  TransactionService,
  TransactionState,
} from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type ControlCall, controlEndpoints, type Endpoint } from './endpoint.ts';
import { executeHandler, MAX_ATTEMPTS, MAX_OPERATIONS } from './execute.ts';
import { headerError, SINGLE_USE } from './headers.ts';
import { isolationLevelOf, isolationOf } from './isolation.ts';

const STATE = {
  open: TransactionState.OPEN,
  committing: TransactionState.OPEN,
  committed: TransactionState.COMMITTED,
  'rolled back': TransactionState.ROLLED_BACK,
  expired: TransactionState.EXPIRED,
  lost: TransactionState.LOST,
  unknown: TransactionState.UNKNOWN,
} as const;

const describe = (transaction: Transaction, caller: string): MessageInitShape<typeof TransactionSchema> => {
  const now = Date.now();
  const { mode, state, failed, waiting, running } = transaction;
  const busy = running || waiting > 0;
  return {
    ...(transaction.caller === caller ? { id: transaction.id } : {}),
    caller: transaction.caller,
    label: transaction.label,
    isolationLevel: isolationLevelOf(mode.isolation),
    readOnly: mode.readOnly,
    deferrable: mode.deferrable,
    state: state === 'open' && failed ? TransactionState.FAILED : STATE[state],
    beganAt: timestampFromMs(transaction.beganAt),
    idleLease: durationFromMs(transaction.idleLeaseMs),
    totalLease: durationFromMs(transaction.totalLeaseMs),
    expiresAt: timestampFromMs(
      Math.min(
        transaction.beganAt + transaction.totalLeaseMs,
        (busy ? now : transaction.lastUsedAt) + transaction.idleLeaseMs,
      ),
    ),
    age: durationFromMs(now - transaction.beganAt),
    idle: durationFromMs(busy ? 0 : now - transaction.lastUsedAt),
    lastMethod: transaction.lastMethod,
    calls: BigInt(transaction.calls),
    pendingCalls: waiting + (running ? 1 : 0),
  };
};

const lease: Rule = (value) => (durationMs(value as Duration) >= 1 ? undefined : 'must be at least 1 ms');
const savepointName: Rule = (value) =>
  /^[A-Za-z0-9_]{1,48}$/.test(value as string) ? undefined : 'must be 1 to 48 letters, digits and underscores';
const named = { name: savepointName };

/** Each operation is checked by the rules of its own RPC, all of them before any runs. */
const operationCount = unchecked(
  required((value) =>
    (value as unknown[]).length <= MAX_OPERATIONS ? undefined : `must have at most ${MAX_OPERATIONS} elements`,
  ),
);

/**
 * The most that a held transaction may be idle where nobody notices that its holder's machine has vanished: over
 * HTTP/1.1 a stream without news and one into the void look the same.
 */
const UNWATCHED_IDLE_MS = 40_000;

const beginRules = { idle_lease: lease, total_lease: lease, label: maxLength(128) };

/** The id a request names, in the field or in the header. */
const idOf = (request: { readonly transactionId: string }, { header }: ControlCall): string => {
  const inHeader = header('transaction');
  const { transactionId } = request;
  if (transactionId === '' && (inHeader === undefined || inHeader === SINGLE_USE)) {
    throw invalidArgument([{ field: 'transaction_id', description: 'must name a transaction' }]);
  }
  if (transactionId !== '' && inHeader !== undefined && inHeader !== transactionId) {
    throw invalidArgument([{ field: 'transaction_id', description: 'differs from the `transaction` header' }]);
  }
  return transactionId === '' ? inHeader! : transactionId;
};

const refuseHeader = ({ header }: ControlCall): void => {
  if (header('transaction') !== undefined) {
    throw headerError('transaction', 'must be absent');
  }
};

const heldIdleMs = ({ watched }: ControlCall, asked: number | undefined): number | 'none' =>
  watched ? 'none' : Math.min(asked ?? UNWATCHED_IDLE_MS, UNWATCHED_IDLE_MS);

/** The service behind the `transaction` header. */
export const transactionEndpoints = (
  database: Database,
  transactions: TransactionRegistry,
  driverEndpoints: readonly Endpoint[],
  closing: AbortSignal,
): Endpoint[] => {
  const execute = executeHandler(database, driverEndpoints);
  const find = (request: { readonly transactionId: string }, call: ControlCall): Transaction =>
    transactions.find(idOf(request, call), call.caller);

  const begin = (request: BeginRequest, call: ControlCall, held: boolean): Promise<Transaction> => {
    refuseHeader(call);
    const isolation = isolationOf(request.isolationLevel ?? IsolationLevel.READ_COMMITTED);
    if (request.deferrable && !(request.readOnly && isolation === 'serializable')) {
      throw invalidArgument([{ field: 'deferrable', description: 'goes only with SERIALIZABLE and read_only' }]);
    }
    const idleLeaseMs = request.idleLease && durationMs(request.idleLease);
    return transactions.begin(
      {
        caller: call.caller,
        label: request.label,
        isolation,
        readOnly: request.readOnly,
        deferrable: request.deferrable,
        idleLeaseMs: held ? heldIdleMs(call, idleLeaseMs) : idleLeaseMs,
        totalLeaseMs: request.totalLease && durationMs(request.totalLease),
      },
      call.signal,
    );
  };

  /** Statements about transactions, on connections that open ones cannot take. */
  const reserve = <T>(work: (db: Session) => Promise<T>): Promise<T> =>
    database.reserve.use(undefined, (connection) => work(new TransactionSession(connection, undefined)));

  const outcomeOfTransaction = async (id: string, caller: string): Promise<Outcome> => {
    const xid = transactions.xidOf(id, caller);
    await transactions.remembered(id, caller)?.settled;
    if (xid === undefined) {
      return transactions.isOpen(id) ? Outcome.IN_PROGRESS : Outcome.ABORTED;
    }
    switch (await reserve((db) => transactionStatus(db, xid))) {
      case 'committed':
        return Outcome.COMMITTED;
      case 'aborted':
        return Outcome.ABORTED;
      case 'in progress':
        return Outcome.IN_PROGRESS;
      default:
        throw new RpcError(
          Code.FAILED_PRECONDITION,
          'OUTCOME_FORGOTTEN',
          'the database no longer knows how so old a transaction ended',
        );
    }
  };

  return controlEndpoints(TransactionService, {
    begin: {
      rules: beginRules,
      handle: async (request: BeginRequest, call) => ({
        transaction: describe(await begin(request, call, false), call.caller),
      }),
    },
    commit: {
      handle: async (request: CommitRequest, call) => {
        await find(request, call).commit(call.signal);
        return { committedAt: timestampFromMs(Date.now()) };
      },
    },
    rollback: {
      handle: async (request: CommitRequest, call) => {
        const id = idOf(request, call);
        const open = transactions.isOpen(id) ? transactions.find(id, call.caller) : undefined;
        await open?.rollback('rolled back by its caller').catch((error: unknown) => {
          // It ended while this call waited for its turn: the answer below says how.
          if (transactions.isOpen(id)) throw error;
        });
        const ended = transactions.remembered(id, call.caller);
        if (ended) {
          await ended.settled;
          return { state: STATE[ended.state] };
        }
        const outcome = await outcomeOfTransaction(id, call.caller);
        return {
          state: outcome === Outcome.COMMITTED ? TransactionState.COMMITTED : TransactionState.ROLLED_BACK,
        };
      },
    },
    savepoint: {
      rules: named,
      handle: async (request: SavepointRequest, call) => {
        await find(request, call).savepoint(request.name, call.signal);
        return {};
      },
    },
    rollbackToSavepoint: {
      rules: named,
      handle: async (request: RollbackToSavepointRequest, call) => {
        await find(request, call).rollBackTo(request.name, call.signal);
        return {};
      },
    },
    releaseSavepoint: {
      rules: named,
      handle: async (request: ReleaseSavepointRequest, call) => {
        await find(request, call).release(request.name, call.signal);
        return {};
      },
    },
    get: {
      handle: (request: CommitRequest, call) => ({ transaction: describe(find(request, call), call.caller) }),
    },
    list: {
      handle: (_request: unknown, call) => ({
        transactions: transactions.list().map((transaction) => describe(transaction, call.caller)),
      }),
    },
    hold: {
      rules: nested('begin', beginRules),
      async *handle({ begin: request = create(BeginRequestSchema) }: HoldRequest, call) {
        const transaction = await begin(request, call, true);
        try {
          yield { transaction: describe(transaction, call.caller) };
          await Promise.race([transaction.ended, aborted(call.signal), aborted(closing)]);
          if (call.signal.aborted) throw call.signal.reason;
          await transaction.abandon('the sidecar shut down');
          yield { transaction: describe(transaction, call.caller) };
        } finally {
          await transaction.abandon('the stream that held it ended');
        }
      },
    },
    execute: {
      rules: { operations: operationCount, max_attempts: between(1, MAX_ATTEMPTS) },
      handle: (request: ExecuteRequest, call) => {
        const transaction = call.header('transaction');
        if (transaction !== undefined && transaction !== SINGLE_USE) {
          throw headerError('transaction', 'must be absent or `single-use`');
        }
        return execute(request, call);
      },
    },
    getOutcome: {
      rules: { request_id: uuid },
      handle: async ({ subject }: GetOutcomeRequest, call) => {
        refuseHeader(call);
        switch (subject.case) {
          case 'transactionId':
            return { outcome: await outcomeOfTransaction(subject.value, call.caller) };
          case 'requestId': {
            const id = canonicalUuid(subject.value);
            const committed = await reserve((db) => requestOutcome(db, call.caller, id));
            if (committed === undefined) return { outcome: Outcome.IN_PROGRESS };
            return { outcome: committed ? Outcome.COMMITTED : Outcome.ABORTED };
          }
          default:
            throw invalidArgument([{ field: 'subject', description: 'must be set' }]);
        }
      },
    },
  });
};

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
