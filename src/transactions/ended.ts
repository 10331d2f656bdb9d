import { type RpcError, refuse } from '../contract/errors.ts';
import type { Reason } from '../contract/reasons.ts';

/** Where a transaction is in its life. */
export type TransactionState =
  | 'open'
  | 'committing'
  | 'committed'
  | 'prepared'
  | 'rolled back'
  | 'expired'
  | 'lost'
  | 'unknown';

/** Why the sidecar ends a transaction that neither its caller nor PostgreSQL has ended. */
export const END_CAUSES = [
  'idle_lease',
  'total_lease',
  'stream_ended',
  'caller_left',
  'caller_removed',
  'shutdown',
] as const;

export type EndCause = (typeof END_CAUSES)[number];

/** How an ended transaction is remembered. */
export interface EndedTransaction {
  readonly caller: string;
  readonly state: TransactionState;
  /** Why it ended, for the caller: `idle for 30000 ms`. */
  readonly how: string;
  readonly endedAt: number;
  /** Settles when PostgreSQL has ended it too. */
  readonly settled: Promise<void>;
  /** True when its commit left evidence in the database, which is asked then. */
  readonly wrote: boolean;
}

const stateReason = {
  committed: 'TRANSACTION_COMMITTED',
  prepared: 'TRANSACTION_PREPARED',
  'rolled back': 'TRANSACTION_ROLLED_BACK',
  expired: 'TRANSACTION_EXPIRED',
  lost: 'TRANSACTION_LOST',
  unknown: 'TRANSACTION_OUTCOME_UNKNOWN',
} as const satisfies Readonly<Record<Exclude<TransactionState, 'open' | 'committing'>, Reason>>;

/** How an ended transaction is refused. */
export const endedError = (ended: Omit<EndedTransaction, 'settled' | 'wrote'>): RpcError =>
  refuse(
    stateReason[ended.state as keyof typeof stateReason],
    `the transaction ${ended.state === 'prepared' ? 'is' : 'has ended:'} ${ended.state} (${ended.how}) at ${new Date(ended.endedAt).toISOString()}`,
    {
      metadata: {
        state: ended.state,
        how: ended.how,
        ended_at: new Date(ended.endedAt).toISOString(),
      },
    },
  );

export const abortedError = (): RpcError =>
  refuse(
    'TRANSACTION_ABORTED',
    'an earlier statement of this transaction failed; roll back, or roll back to a savepoint',
  );
