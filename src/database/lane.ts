import type { Connection } from './connection.ts';
import { Convoy } from './convoy.ts';
import { KeptPlace, type Share } from './kept-place.ts';
import { Lending } from './lending.ts';
import type { Again } from './observer.ts';
import type { Signal } from './signal.ts';
import { isStalePlan } from './sqlstate.ts';
import type { Statement } from './statement.ts';

/** What a share of the connections is used for: work that may be done again, work that must not, and reads that go together. */
export class Lane extends Lending {
  /** Of the turn, if reads have set out in it. */
  #convoy: Convoy | undefined;

  /**
   * Lends a connection that has done a first piece of work, which changes nothing if it fails. A backend that died while
   * its connection lay idle, or whose plan is of an older schema, is noticed only by that work; then it is done again.
   *
   * @param share as {@link Lending.acquire} has it.
   */
  async acquireWith<T>(
    signal: Signal | undefined,
    first: (connection: Connection) => Promise<T>,
    share?: Share,
  ): Promise<{ connection: Connection; result: T }> {
    const place = share && new KeptPlace(share);
    try {
      for (let before: Again | undefined; ; ) {
        const connection = await this.acquire(signal, place);
        try {
          const result = await first(connection);
          place?.letGo();
          return { connection, result };
        } catch (error) {
          before = this.#again(error, connection, connection.release(), signal, before);
        }
      }
    } catch (error) {
      place?.leave();
      throw error;
    }
  }

  /**
   * Why what has failed is done again.
   *
   * @param undone it has certainly done nothing.
   * @param before why it was done again before.
   * @throws the error where it is not.
   */
  #again(error: unknown, connection: Connection, undone: boolean, signal: Signal | undefined, before?: Again): Again {
    let why: Again | undefined;
    if (connection.displaced) why = 'displaced';
    else if (before !== 'stale_plan' && isStalePlan(error)) why = 'stale_plan';
    else if (undone && connection.reused && !signal?.aborted) why = 'connection_lost';
    if (!why) throw error;
    this.server.observer?.again(why);
    return before === 'stale_plan' ? before : why;
  }

  /**
   * Lends a connection for one piece of work that must not be done again, unless it has certainly done nothing: its plan
   * was of an older schema, or its backend had died before.
   */
  async useOnce<T>(
    signal: Signal | undefined,
    work: (connection: Connection) => Promise<T>,
    share?: Share,
  ): Promise<T> {
    const place = share && new KeptPlace(share);
    try {
      for (let before: Again | undefined; ; ) {
        const connection = this.acquireNow(place) ?? (await this.acquire(signal, place));
        try {
          return await work(connection);
        } catch (error) {
          before = this.#again(error, connection, connection.untouched, signal, before);
        } finally {
          connection.release();
        }
      }
    } finally {
      place?.leave();
    }
  }

  /** Lends a connection for one piece of work that may be done again: see {@link acquireWith}. */
  async use<T>(signal: Signal | undefined, work: (connection: Connection) => Promise<T>, share?: Share): Promise<T> {
    const { connection, result } = await this.acquireWith(signal, work, share);
    connection.release();
    return result;
  }

  /**
   * Lends a connection for one read, which may be done again. It goes together with others that are asked for in the same
   * turn, or wait for a connection, unless it is known to keep others waiting; what those did to it is made up for by doing it
   * again, alone.
   */
  async read<T>(
    statement: Statement<unknown>,
    signal: Signal | undefined,
    work: (connection: Connection) => Promise<T>,
  ): Promise<T> {
    if (this.#goesAlone(statement)) return this.use(signal, work);
    const connection = this.#joinNow() ?? (await this.#joinLater(signal));
    try {
      return await work(connection);
    } catch (error) {
      this.#again(error, connection, connection.lost, signal);
    } finally {
      connection.release();
    }
    return this.use(signal, work);
  }

  #goesAlone(statement: Statement<unknown>): boolean {
    const { slow } = this.server;
    const until = slow.size === 0 ? undefined : slow.get(statement);
    if (until === undefined) return false;
    if (performance.now() < until) return true;
    slow.delete(statement);
    return false;
  }

  #joinNow(): Connection | undefined {
    if (this.#convoy?.open) return this.#convoy.join();
    const connection = this.acquireNow();
    return connection && this.#setOut(connection);
  }

  async #joinLater(signal: Signal | undefined): Promise<Connection> {
    const connection = await this.acquireOrSit(signal);
    if (connection.isShared) return connection;
    if (!this.#convoy?.open) return this.#setOut(connection);
    // Another has set out meanwhile.
    connection.release();
    return this.#convoy.join();
  }

  #setOut(connection: Connection): Connection {
    const convoy = new Convoy(connection);
    this.#convoy = convoy;
    const own = convoy.join();
    this.offer(() => (convoy.open ? convoy.join() : undefined));
    return own;
  }
}
