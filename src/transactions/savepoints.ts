import { refuse } from '../contract/errors.ts';
import type { Connection } from '../database/connection.ts';

/** The savepoints of one transaction, which its caller names; the same name may be set again, and then hides the earlier one. */
export class Savepoints {
  readonly #connection: Connection;
  /** Names, oldest first. */
  readonly #names: string[] = [];

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Sets one. */
  async set(name: string): Promise<void> {
    await this.#connection.command(`savepoint "u_${name}"`);
    this.#names.push(name);
  }

  /** Undoes everything since it was set; it stays. */
  async rollBackTo(name: string): Promise<void> {
    const index = this.#indexOf(name);
    await this.#connection.command(`rollback to savepoint "u_${name}"`);
    this.#names.length = index + 1;
  }

  /** Forgets it and those set after it; keeps what was done. */
  async release(name: string): Promise<void> {
    const index = this.#indexOf(name);
    await this.#connection.command(`release savepoint "u_${name}"`);
    this.#names.length = index;
  }

  #indexOf(name: string): number {
    const index = this.#names.lastIndexOf(name);
    if (index !== -1) return index;
    throw refuse('SAVEPOINT_UNKNOWN', `this transaction has no savepoint ${name}`);
  }
}
