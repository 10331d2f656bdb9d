import type { ClientOptions } from './client.ts';
import type { Shared } from './connection.ts';
import { Gate } from './gate.ts';
import { Lane } from './lane.ts';
import type { LaneOptions } from './lending.ts';
import type { DatabaseObserver } from './observer.ts';
import { Overdue } from './overdue.ts';
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

/** Sizes of the lanes, and the clocks. */
export interface DatabaseOptions {
  readonly calls: LaneOptions;
  readonly transactions: LaneOptions;
  /** Longest time a statement may take, milliseconds. */
  readonly statementMs: number;
  /** Longest wait for a lock, milliseconds. */
  readonly lockMs: number;
  readonly pooler: ClientOptions['pooler'];
  readonly observer?: DatabaseObserver | undefined;
  /** True where commits are to tell where the log of the database stood after them. */
  readonly marks?: boolean;
}

const RESERVE: LaneOptions = { max: 3, queue: 1000, waitMs: 5_000 };

/** How often statements are looked at that may have taken too long, milliseconds. */
const LOOK_MS = 50;

/** Of ten connections for calls, those that writes leave to reads. */
const READ_SHARE = 0.3;

/** What the connections to one server have in common. */
export const sharedFor = ({ lockMs, statementMs, observer, marks = false }: DatabaseOptions): Shared => ({
  generation: 0,
  prepared: new Map(),
  bound: new Map(),
  named: true,
  forgotAt: Number.NEGATIVE_INFINITY,
  trustedSince: 0,
  statementMs,
  lockMs,
  marks,
  overdue: new Overdue(LOOK_MS),
  slow: new Map(),
  observer,
});

/** Opens the lanes; connections are made when they are first needed. */
export const openDatabase = (target: Target, options: DatabaseOptions): Database => {
  const { lockMs, pooler, observer } = options;
  const shared = sharedFor(options);
  const client = { target, pooler, lockMs };
  const reserve = new Lane('reserve', client, shared, RESERVE);
  const calls = new Lane('call', client, shared, options.calls);
  const transactions = new Lane('transaction', client, shared, options.transactions);
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
      shared.trustedSince = performance.now();
      for (const lane of lanes) lane.refresh(reason);
    },
    end: async (patienceMs) => {
      const cut = setTimeout(() => {
        for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
      }, patienceMs);
      await Promise.all(lanes.map((lane) => lane.end()));
      clearTimeout(cut);
      shared.overdue.end();
      // The end of a pool does not wait for its sockets, and a server that is gone never closes them.
      for (const lane of lanes) lane.destroy(new Error('the sidecar shut down'));
    },
  };
};
