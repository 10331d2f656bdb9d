/** What every case is given. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Database } from './database.ts';
import type { Report } from './report.ts';
import type { Pace } from './rounds.ts';
import { type Command, type Served, serve } from './server.ts';

export interface Bench extends Pace {
  readonly database: Database;
  readonly report: Report;
  /** How the sidecar and the peers are started. */
  readonly sidecar: Command;
  readonly peers: readonly Command[];
  /** The servers that the calls are measured on, the sidecar first; the same ones for all cases. */
  fleet(): Promise<readonly Served[]>;
  /** Id of the violation that point reads ask for. */
  readonly id: string;
  /** How long a round is for each side, ms. */
  readonly roundMs: number;
  readonly quick: boolean;
  /** Rows of the largest table of the growth. */
  readonly largest: number;
  /** How long the soak takes, minutes. */
  readonly soak: number;
}

export interface Case {
  readonly name: string;
  run(bench: Bench): Promise<void>;
}

/** Runs `use` with a server of its own. */
export const alone = async <T>(command: Command, use: (served: Served) => Promise<T>): Promise<T> => {
  const served = await serve(command);
  try {
    return await use(served);
  } finally {
    await served.stop();
  }
};

/** How long a server that has started is left in peace before its memory is called idle. */
const SETTLE_MS = 2_000;

/** Resident memory of a server that does nothing, MB. */
export const idleRss = async (served: Served): Promise<number> => {
  await sleep(SETTLE_MS);
  return served.rss() ?? Number.NaN;
};

/** The most memory a server has while `work` is done, MB, and what `work` brings. */
export const peakRss = async <T>(served: Served, work: Promise<T>): Promise<[most: number, found: T]> => {
  let most = served.rss() ?? Number.NaN;
  const look = setInterval(() => {
    most = Math.max(most, served.rss() ?? Number.NaN);
  }, 20);
  try {
    const found = await work;
    return [most, found];
  } finally {
    clearInterval(look);
  }
};
