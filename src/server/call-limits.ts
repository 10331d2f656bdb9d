import { refuse } from '../contract/errors.ts';
import { SymbolTableService } from '../gen/hoc/cus/policies/v1/symbol_table_pb.ts';
import { TransactionService } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { Endpoint } from './endpoint.ts';

/** How much one caller may ask for; undefined: any number. */
export interface CallerLimits {
  readonly perSecond: number | undefined;
  readonly atOnce: number | undefined;
}

const { commit, rollback, commitPrepared, rollbackPrepared, rollbackToSavepoint, releaseSavepoint } =
  TransactionService.method;

/**
 * What gives back what a caller holds is never kept from it, nor what undoes a part of a transaction: that may have failed for
 * this very limit, and the rest could not go on.
 */
const FREE: ReadonlySet<unknown> = new Set([
  commit,
  rollback,
  commitPrepared,
  rollbackPrepared,
  rollbackToSavepoint,
  releaseSavepoint,
  SymbolTableService.method.dropTable,
]);

interface Bucket {
  /** Calls that may come at this moment. */
  calls: number;
  filledAt: number;
}

const giveNothingBack = (): void => {};

/** Keeps one caller from taking what all share. Health, and what ends a transaction, a savepoint or a table of symbols, count nowhere. */
export class CallLimits {
  readonly #limits: CallerLimits;
  readonly #buckets = new Map<string, Bucket>();
  readonly #running = new Map<string, number>();

  constructor(limits: CallerLimits) {
    this.#limits = limits;
  }

  /**
   * Counts a call that arrives. After a pause a caller may make the calls of one second at once.
   *
   * @throws RESOURCE_EXHAUSTED `CALL_RATE_LIMIT`
   */
  arrive(caller: string, { open, method }: Endpoint): void {
    const { perSecond } = this.#limits;
    if (perSecond === undefined || open || FREE.has(method)) return;
    const now = performance.now();
    const bucket = this.#buckets.get(caller) ?? { calls: perSecond, filledAt: now };
    this.#buckets.set(caller, bucket);
    bucket.calls = Math.min(perSecond, bucket.calls + ((now - bucket.filledAt) * perSecond) / 1_000);
    bucket.filledAt = now;
    if (bucket.calls < 1) {
      throw refuse('CALL_RATE_LIMIT', `this caller may make ${perSecond} calls a second`, {
        metadata: { limit: String(perSecond) },
      });
    }
    bucket.calls -= 1;
  }

  /**
   * Counts a call that is about to run. `Hold` does not count: what it takes has a limit of its own, and its caller needs
   * other calls to end it.
   *
   * @returns what counts it out again when it has ended.
   * @throws RESOURCE_EXHAUSTED `CALL_LIMIT`
   */
  enter(caller: string, { open, method }: Endpoint): () => void {
    const { atOnce } = this.#limits;
    if (atOnce === undefined || open || FREE.has(method) || method === TransactionService.method.hold) {
      return giveNothingBack;
    }
    const running = this.#running.get(caller) ?? 0;
    if (running >= atOnce) {
      throw refuse('CALL_LIMIT', `this caller may have ${atOnce} calls under way`, {
        metadata: { limit: String(atOnce) },
      });
    }
    this.#running.set(caller, running + 1);
    return () => {
      const left = this.#running.get(caller)! - 1;
      if (left === 0) this.#running.delete(caller);
      else this.#running.set(caller, left);
    };
  }
}
