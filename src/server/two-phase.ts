import { type Duration, durationFromMs, durationMs } from '@bufbuild/protobuf/wkt';
import { refuse } from '../contract/errors.ts';
import type { Rule } from '../contract/rules.ts';
import type { Database } from '../database/pool.ts';
import { TransactionSession } from '../database/session.ts';
import { timestampFromText } from '../database/values.ts';
import { Outcome, type TransactionService } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import { orUnknown } from '../transactions/commit-grace.ts';
import { endedError } from '../transactions/ended.ts';
import { endPrepared, preparedTransactions } from '../transactions/prepared.ts';
import type { TransactionRegistry } from '../transactions/registry.ts';
import type { ControlCall, ControlRpcs } from './endpoint.ts';

/** A request that names a transaction. */
interface Named {
  readonly transactionId: string;
}

/** What the handlers share with those of open transactions. */
interface Helpers {
  readonly idOf: (request: Named, call: ControlCall) => string;
  /** What memory and database know of how a transaction ended. */
  readonly outcomeOf: (id: string, call: ControlCall) => Promise<Outcome>;
  readonly lease: Rule<Duration>;
}

/** How a prepared transaction was ended, in the words of outcomes. */
const ENDS = {
  commit: { outcome: Outcome.COMMITTED, state: 'committed', how: 'CommitPrepared' },
  rollback: { outcome: Outcome.ABORTED, state: 'rolled back', how: 'RollbackPrepared' },
} as const;

/** RPCs of transactions that are prepared, and of what becomes of them. */
export const preparedRpcs = (
  database: Database,
  transactions: TransactionRegistry,
  { idOf, outcomeOf, lease }: Helpers,
): Pick<ControlRpcs<typeof TransactionService>, 'prepare' | 'commitPrepared' | 'rollbackPrepared' | 'listPrepared'> => {
  const ending = (how: 'commit' | 'rollback') => ({
    handle: async (request: Named, call: ControlCall) => {
      const id = idOf(request, call);
      // Refuses what was never issued to the caller.
      transactions.factsOf(id, call.caller);
      const { outcome, state, how: by } = ENDS[how];
      const ending = endPrepared(database, id, how, call.signal, (mark) => {
        if (how === 'commit') call.notes.mark = mark;
      });
      const ended = await orUnknown(ending, call.signal);
      if (ended) {
        transactions.settled(id, state, by);
        return {};
      }
      const found = await outcomeOf(id, call);
      if (found === outcome) return {};
      if (found === Outcome.IN_PROGRESS) {
        throw refuse('TRANSACTION_NOT_PREPARED', 'the transaction is open, and has not been prepared');
      }
      if (found === Outcome.UNKNOWN) {
        throw refuse('TRANSACTION_UNKNOWN', 'there is no such transaction any more, nor a trace of how it ended');
      }
      const other = ENDS[how === 'commit' ? 'rollback' : 'commit'];
      throw endedError({ caller: call.caller, state: other.state, how: 'ended before', endedAt: Date.now() });
    },
  });
  return {
    prepare: {
      rules: { lease },
      handle: async (request, call) => {
        const transaction = transactions.find(idOf(request, call), call.caller);
        return { lease: durationFromMs(await transaction.prepare(request.lease && durationMs(request.lease), call)) };
      },
    },
    commitPrepared: ending('commit'),
    rollbackPrepared: ending('rollback'),
    listPrepared: {
      handle: async (_request, call) => {
        const found = await database.reserve.use(call.signal, (connection) =>
          preparedTransactions(new TransactionSession(connection, call)),
        );
        return {
          transactions: found.map(({ id, preparedAt, expiresAt }) => ({
            ...(transactions.isOf(id, call.caller) ? { id } : {}),
            preparedAt: timestampFromText(preparedAt),
            expiresAt: timestampFromText(expiresAt),
          })),
        };
      },
    },
  };
};
