import type { Statement } from './statement.ts';

/** Told of the end of what it was made for, and of the error where that failed. */
export type Ended = (error?: unknown) => void;

/** Why something is run a second time without its caller having to ask. */
export type Again = 'connection_lost' | 'displaced' | 'stale_plan' | 'conflict' | 'replica';

/** Watches over what is asked of PostgreSQL. Where nobody watches there is none. */
export interface DatabaseObserver {
  /** A statement or a command is sent now. */
  sent(what: Statement<unknown> | string): Ended;
  /** A connection of that lane is waited for from now on. */
  waiting(lane: string): Ended;
  /** Something is run again. */
  again(why: Again): void;
}

/** A replica as it is now. */
export interface ReplicaState {
  readonly lane: LaneState;
  /** Whether it is read. */
  readonly usable: boolean;
}

/** What a lane holds and who waits for it, as it is now. */
export interface LaneState {
  readonly name: string;
  readonly used: number;
  readonly idle: number;
  readonly pending: number;
  readonly max: number;
}
