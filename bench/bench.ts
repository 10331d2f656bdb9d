/** What every case is given. */
import type { Database } from './database.ts';
import type { Report } from './report.ts';
import type { Command, Served } from './server.ts';

export interface Bench {
  readonly database: Database;
  readonly report: Report;
  /** How the sidecar and the peers are started. */
  readonly sidecar: Command;
  readonly peers: readonly Command[];
  /** The servers that the calls are measured on, the sidecar first; the same ones for all cases. */
  fleet(): Promise<readonly Served[]>;
  /** Id of the violation that point reads ask for. */
  readonly id: string;
  readonly rounds: number;
  /** How long a round is for each side, ms. */
  readonly roundMs: number;
  readonly quick: boolean;
}

export interface Case {
  readonly name: string;
  run(bench: Bench): Promise<void>;
}
