import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, durationFromMs, durationMs, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { invalidArgument } from '../contract/errors.ts';
import { between, canonicalUuid, maxLength, nested, type Rule, required, unchecked, uuid } from '../contract/rules.ts';
import type { Database } from '../database/pool.ts';
import { type Session, TransactionSession } from '../database/session.ts';
import { untilAborted } from '../database/signal.ts';
import {
  type BeginRequest,
  BeginRequestSchema,
  Outcome,
  type TransactionSchema,
  TransactionService,
  TransactionState,
} from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import { endedError } from '../transactions/ended.ts';
import { requestOutcome } from '../transactions/once.ts';
import { outcomeOf } from '../transactions/outcomes.ts';
import { elsewhere, type TransactionRegistry } from '../transactions/registry.ts';
import type { Transaction } from '../transactions/transaction.ts';
import { type ControlCall, controlEndpoints, type DriverEndpoint, type Endpoint } from './endpoint.ts';
import { executeHandlers, MAX_ATTEMPTS, MAX_OPERATIONS } from './execute.ts';
import { headerError, SINGLE_USE } from './headers.ts';
import { isolationLevelOf, isolationOf } from './isolation.ts';
import { preparedRpcs } from './two-phase.ts';

const STATE = {
  open: TransactionState.OPEN,
  committing: TransactionState.OPEN,
  committed: TransactionState.COMMITTED,
  prepared: TransactionState.PREPARED,
  'rolled back': TransactionState.ROLLED_BACK,
  expired: TransactionState.EXPIRED,
  lost: TransactionState.LOST,
  unknown: TransactionState.UNKNOWN,
} as const;

/** States of which memory alone knows that nothing was written. */
const ROLLED_BACK: ReadonlySet<string> = new Set(['rolled back', 'expired', 'lost']);

const OUTCOME = {
  committed: Outcome.COMMITTED,
  aborted: Outcome.ABORTED,
  'in progress': Outcome.IN_PROGRESS,
  unknown: Outcome.UNKNOWN,
} as const;

/** How a transaction that another sidecar held is told to have ended. */
const ENDED_ELSEWHERE: ReadonlyMap<Outcome, TransactionState> = new Map([
  [Outcome.COMMITTED, TransactionState.COMMITTED],
  [Outcome.ABORTED, TransactionState.ROLLED_BACK],
  [Outcome.UNKNOWN, TransactionState.UNKNOWN],
]);

const describe = (transaction: Transaction, caller: string): MessageInitShape<typeof TransactionSchema> => {
  const now = Date.now();
  const { mode, state, failed, waiting, running, lease } = transaction;
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
    idleLease: durationFromMs(lease.idleMs),
    totalLease: durationFromMs(lease.totalMs),
    expiresAt: timestampFromMs(
      Math.min(transaction.beganAt + lease.totalMs, (busy ? now : lease.usedAt) + lease.restMs),
    ),
    age: durationFromMs(now - transaction.beganAt),
    idle: durationFromMs(busy ? 0 : now - lease.usedAt),
    lastMethod: transaction.lastMethod,
    calls: BigInt(transaction.calls),
    pendingCalls: waiting + (running ? 1 : 0),
  };
};

const lease: Rule<Duration> = (value) => (durationMs(value) >= 1 ? undefined : 'must be at least 1 ms');
const savepointName: Rule<string> = (value) =>
  /^[A-Za-z0-9_]{1,48}$/.test(value) ? undefined : 'must be 1 to 48 letters, digits and underscores';
const named = { name: savepointName };

/** Each operation is checked by the rules of its own RPC, all of them before any runs. */
const operationCount = unchecked(
  required((value: readonly unknown[]) =>
    value.length <= MAX_OPERATIONS ? undefined : `must have at most ${MAX_OPERATIONS} elements`,
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
  driverEndpoints: readonly DriverEndpoint[],
  closing: AbortSignal,
): Endpoint[] => {
  const execute = executeHandlers(database, driverEndpoints);
  const find = (request: { readonly transactionId: string }, call: ControlCall): Transaction =>
    transactions.find(idOf(request, call), call.caller);

  const begin = (request: BeginRequest, call: ControlCall, held: boolean): Promise<Transaction> => {
    refuseHeader(call);
    const isolation = isolationOf(request.isolationLevel);
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
        bound: call.bound,
        idleLeaseMs: held ? heldIdleMs(call, idleLeaseMs) : idleLeaseMs,
        held,
        totalLeaseMs: request.totalLease && durationMs(request.totalLease),
      },
      call.signal,
    );
  };

  /** Statements about transactions, on connections that open ones cannot take. */
  const reserve = <T>(call: ControlCall, work: (db: Session) => Promise<T>): Promise<T> =>
    database.reserve.use(call.signal, (connection) => work(new TransactionSession(connection, call)));

  /** What memory knows first, where that is all there is to know; else what the database bears out. */
  const outcomeOfTransaction = async (id: string, call: ControlCall): Promise<Outcome> => {
    const { key, beganAt } = transactions.factsOf(id, call.caller);
    if (transactions.isOpen(id)) return Outcome.IN_PROGRESS;
    const ended = transactions.remembered(id, call.caller);
    await ended?.settled;
    if (ended && ROLLED_BACK.has(ended.state)) return Outcome.ABORTED;
    if (ended?.state === 'committed' && !ended.wrote) return Outcome.COMMITTED;
    return OUTCOME[await reserve(call, (db) => outcomeOf(db, key, beganAt))];
  };

  return controlEndpoints(TransactionService, {
    begin: {
      rules: beginRules,
      handle: async (request, call) => ({
        transaction: describe(await begin(request, call, false), call.caller),
      }),
    },
    commit: {
      handle: async (request, call) => {
        await find(request, call).commit(call);
        return { committedAt: timestampFromMs(Date.now()) };
      },
    },
    rollback: {
      handle: async (request, call) => {
        const id = idOf(request, call);
        const open = transactions.isOpen(id) ? transactions.find(id, call.caller) : undefined;
        await open?.rollback('rolled back by its caller').catch((error: unknown) => {
          // It ended while this call waited for its turn: the answer below says how.
          if (transactions.isOpen(id)) throw error;
        });
        const ended = transactions.remembered(id, call.caller);
        if (ended && ended.state !== 'prepared') {
          await ended.settled;
          return { state: STATE[ended.state] };
        }
        const state = ENDED_ELSEWHERE.get(await outcomeOfTransaction(id, call));
        if (state === undefined && ended) throw endedError(ended);
        if (state === undefined) throw elsewhere(transactions.factsOf(id, call.caller).holder);
        return { state };
      },
    },
    ...preparedRpcs(database, transactions, { idOf, outcomeOf: outcomeOfTransaction, lease }),
    savepoint: {
      rules: named,
      handle: async (request, call) => {
        await find(request, call).savepoint(request.name, call.signal);
        return {};
      },
    },
    rollbackToSavepoint: {
      rules: named,
      handle: async (request, call) => {
        await find(request, call).rollBackTo(request.name, call.signal);
        return {};
      },
    },
    releaseSavepoint: {
      rules: named,
      handle: async (request, call) => {
        await find(request, call).release(request.name, call.signal);
        return {};
      },
    },
    get: {
      handle: (request, call) => ({ transaction: describe(find(request, call), call.caller) }),
    },
    list: {
      handle: (_request, call) => ({
        transactions: transactions.list().map((transaction) => describe(transaction, call.caller)),
      }),
    },
    hold: {
      rules: nested('begin', beginRules),
      async *handle({ begin: request = create(BeginRequestSchema) }, call) {
        const transaction = await begin(request, call, true);
        try {
          yield { transaction: describe(transaction, call.caller) };
          await untilAborted([call.signal, closing], transaction.ended);
          if (call.signal.aborted) throw call.signal.reason;
          await transaction.abandon('shutdown', 'the sidecar shut down');
          yield { transaction: describe(transaction, call.caller) };
        } finally {
          await transaction.abandon('stream_ended', 'the stream that held it ended');
        }
      },
    },
    execute: {
      rules: { operations: operationCount, max_attempts: between(1, MAX_ATTEMPTS) },
      handle: (request, call) => {
        const id = call.header('transaction');
        if (id === undefined || id === SINGLE_USE) return execute.alone(request, call);
        return execute.inside(transactions.find(id, call.caller), request, call);
      },
    },
    getOutcome: {
      rules: { idempotency_key: uuid },
      handle: async ({ subject }, call) => {
        refuseHeader(call);
        switch (subject.case) {
          case 'transactionId':
            return { outcome: await outcomeOfTransaction(subject.value, call) };
          case 'idempotencyKey': {
            const id = canonicalUuid(subject.value);
            const committed = await reserve(call, (db) => requestOutcome(db, call.caller, id));
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
