import type { Connection } from './connection.ts';

/** Reads that go together at most: enough for a write to the socket to cost little, few enough for the last not to wait long. */
const MOST = 8;

/**
 * Reads that are asked for in one turn of the event loop, on one connection: they go out in one piece, one behind the other,
 * each a transaction of its own. The connection is given back when the last has its answer.
 */
export class Convoy {
  readonly #connection: Connection;
  #joined = 0;
  #under = 0;
  #isOpen = true;

  constructor(connection: Connection) {
    this.#connection = connection;
    setImmediate(() => {
      this.#isOpen = false;
    });
  }

  /** Whether another may join: what is asked for now still goes out with it. */
  get open(): boolean {
    return this.#isOpen && this.#joined < MOST;
  }

  /** Lends the connection to one more. */
  join(): Connection {
    this.#joined += 1;
    this.#under += 1;
    return this.#connection.seat((broken) => this.#leave(broken));
  }

  #leave(broken: boolean): void {
    this.#under -= 1;
    if (broken) this.#connection.markUnusable();
    if (this.#under > 0) return;
    this.#isOpen = false;
    this.#connection.release();
  }
}
