import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config.ts';
import type { TransactionRegistry } from '../transactions/registry.ts';

/** What is left to do gets so long after the drain time: rolling back, the last calls, the last commands to the database. */
const ROLL_BACK_MS = 200;
const LAST_CALLS_MS = 200;
const LAST_COMMANDS_MS = 100;

/** Without a connection for so long, callers are taken to be gone: some connect anew for each call. */
const GONE_MS = 1_000;
const LOOK_MS = 50;

/** Closes something; what it is at may take so long (milliseconds). */
type Closer = (patienceMs: number) => unknown;

/** What a server has opened, and how all of that is closed, however far it has come. */
export class Opened {
  readonly #serving: Closer[] = [];
  readonly #below: Closer[] = [];
  readonly #closing = new AbortController();

  /** Fires when it begins to close. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Something that serves. */
  serving(closer: Closer): void {
    this.#serving.push(closer);
  }

  /** Something that what serves stands on, and that is closed after it. */
  below(closer: Closer): void {
    this.#below.push(closer);
  }

  /** Closes all of it; calls under way may take so long (milliseconds). */
  async close(callsMs: number): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#serving.map((closer) => closer(callsMs)));
    await Promise.all(this.#below.map((closer) => closer(LAST_COMMANDS_MS)));
  }
}

/** Waits until there has been no connection for a while, or until the time is over (milliseconds since 1970). */
const unused = async (open: () => number, deadline: number): Promise<void> => {
  for (let usedAt = Date.now(); Date.now() < Math.min(deadline, usedAt + GONE_MS); ) {
    await sleep(LOOK_MS);
    if (open() > 0) usedAt = Date.now();
  }
};

/**
 * Gives callers their time to go, and open transactions what is left of it.
 *
 * @param connections how many callers have open.
 * @returns how long the last calls may take, milliseconds.
 */
export const drained = async (
  { drain, drainTimeoutMs }: Pick<Config, 'drain' | 'drainTimeoutMs'>,
  transactions: TransactionRegistry,
  connections: () => number,
): Promise<number> => {
  const deadline = Date.now() + drainTimeoutMs;
  if (drain === 'linger') await unused(connections, deadline);
  const rollBackMs = Math.max(0, deadline - Date.now());
  // A database that does not answer rolls back by itself when it sees that its connections are gone.
  await Promise.race([transactions.drain(rollBackMs), sleep(rollBackMs + ROLL_BACK_MS, undefined, { ref: false })]);
  return Math.max(LAST_CALLS_MS, deadline - Date.now());
};
