import type { ClientOptions } from './client.ts';
import { Gate } from './gate.ts';
import { Lane } from './lane.ts';
import type { LaneOptions } from './lending.ts';
import type { DatabaseObserver } from './observer.ts';
import { type ServerOptions, ServerState } from './server-state.ts';
import type { Target } from './target.ts';

/** The database as the rest of the program sees it: three lanes that cannot starve each other. */
export interface Database {
  /** Auto-commit and single-use calls. */
  readonly calls: Lane;
  /** The share of `calls` that single-use writes have: those that wait for a lock leave connections to the reads. */
  readonly writes: Gate;
  /** Open transactions and streams. */
  readonly transactions: Lane;
  /** Health and outcomes. */
  readonly reserve: Lane;
  /** The share of `reserve` that ends of prepared transactions have: while they wait for a standby they leave one to health. */
  readonly ends: Gate;
  /** Who watches; undefined: nobody. */
  readonly observer: DatabaseObserver | undefined;
  /**
   * Leaves every connection, at once or when it comes back: after an outage nobody knows which still reach the server,
   * and after a failover, which server.
   */
  refresh(reason: Error): void;
  /** Lends nothing any more and waits for what is lent, at most so long (milliseconds); then cuts it off. */
  end(patienceMs: number): Promise<void>;
}

/** Sizes of the lanes, and what is set for all of their connections. */
export interface DatabaseOptions extends ServerOptions {
  readonly calls: LaneOptions;
  readonly transactions: LaneOptions;
  readonly pooler: ClientOptions['pooler'];
}

const RESERVE: LaneOptions = { max: 3, queue: 1000, waitMs: 5_000 };

/** Of ten connections for calls, those that writes leave to reads. */
const READ_SHARE = 0.3;

/** Opens the lanes; connections are made when they are first needed. */
export const openDatabase = (target: Target, options: DatabaseOptions): Database => {
  const { lockMs, pooler, observer } = options;
  const server = new ServerState(options);
  const client = { target, pooler, lockMs };
  const reserve = new Lane('reserve', client, server, RESERVE);
  const calls = new Lane('call', client, server, options.calls);
  const transactions = new Lane('transaction', client, server, options.transactions);
  const lanes = [calls, transactions, reserve];
  const { max, queue, waitMs } = options.calls;
  const writes = new Gate('call', { slots: Math.max(1, max - Math.ceil(max * READ_SHARE)), queue, waitMs });
  const ends = new Gate('reserve', { ...RESERVE, slots: RESERVE.max - 1 });
  return {
    calls,
    writes,
    transactions,
    reserve,
    ends,
    observer,
    refresh: (reason) => {
      server.distrust();
      for (const lane of lanes) lane.refresh(reason);
    },
    end: async (patienceMs) => {
      const cut = setTimeout(() => {
        for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
      }, patienceMs);
      await Promise.all(lanes.map((lane) => lane.end()));
      clearTimeout(cut);
      server.overdue.end();
      // The end of a pool does not wait for its sockets, and a server that is gone never closes them.
      for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
    },
  };
};
