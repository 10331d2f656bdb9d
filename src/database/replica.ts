import { RpcError } from '../contract/errors.ts';
import type { Lane } from './lane.ts';
import { lsnOf, type Mark, positionOf } from './mark.ts';
import type { ServerState } from './server-state.ts';
import { type CallScope, type Collected, SeparateStatements } from './session.ts';
import { problemOf } from './sqlstate.ts';
import { firstFlag, type Param, type Row, type Statement, statement } from './statement.ts';
import type { Queried, Sink } from './step.ts';
import { TextRows } from './text-rows.ts';

/** How long a replica may take to say how far it is, milliseconds. */
const LOOK_TIMEOUT_MS = 1_000;

/** SQL: the timeline. The control file alone may be behind, never ahead; who replicates is not told to every role. */
const TIMELINE = `greatest((select timeline_id from pg_control_checkpoint()),
  (select min_recovery_end_timeline from pg_control_recovery()), (select received_tli from pg_stat_wal_receiver))`;

const LOOK = statement(
  'replica.look',
  `select pg_is_in_recovery(), (select system_identifier from pg_control_system()), ${TIMELINE}, pg_last_wal_replay_lsn()`,
);

/**
 * Whether a server has replayed so far, of a timeline that is not later; a primary that was a replica says so of what it
 * has replayed.
 */
const HAS = statement(
  'replica.has',
  `select coalesce(pg_last_wal_replay_lsn() >= $1::pg_lsn, false) and ${TIMELINE} <= $2::bigint`,
  firstFlag,
);

/** The server has not replayed far enough for a read that follows a write. */
class Behind extends Error {}

/** What a replica must have replayed for a read, and the timeline of the primary: what follows another has another history. */
export interface Needed {
  readonly mark: Mark;
  readonly timeline: number;
}

/** What goes before a read in the same round trip, and keeps its rows from being taken where the server is behind. */
const replayed = ({ mark, timeline }: Needed): Queried => {
  const judged = new TextRows((row: Row) => {
    if (!firstFlag(row)) throw new Behind('the replica has not replayed so far');
  });
  return { statement: HAS, params: [lsnOf(mark.position), String(timeline)], sink: judged };
};

/** Reasons by which a replica is left until it has been looked at again. */
const GONE: ReadonlySet<string | undefined> = new Set(['DATABASE_UNAVAILABLE', 'DATABASE_SESSION_TIMEOUT']);

const SILENT = 'it does not answer';

/** What is known of the primary that replicas are held against. */
export interface Primary {
  /** Where it was last; undefined while it has not been asked yet. */
  readonly mark: Mark | undefined;
  /** Whether a server that has replayed so far is recent enough to be read; undefined where that cannot be known yet. */
  isRecent(position: bigint): boolean | undefined;
}

/** Told when a replica is left out, and why, and when it is read (again): no problem then. */
export type Report = (replica: string, problem: string | undefined, cause?: string) => void;

/** A standby that reads may run at. */
export class Replica {
  /** Which one, for a person. */
  readonly name: string;
  readonly calls: Lane;
  /** Of its own, so that no call keeps it from being looked at. */
  readonly #looks: Lane;
  readonly #server: ServerState;
  readonly #report: Report;
  #problem: string | undefined;
  #isKnown = false;
  #timeline = 0;
  #position = 0n;

  constructor(name: string, server: ServerState, [calls, looks]: readonly [calls: Lane, looks: Lane], report: Report) {
    this.name = name;
    this.calls = calls;
    this.#server = server;
    this.#looks = looks;
    this.#report = report;
  }

  /** Whether it is read. */
  get usable(): boolean {
    return this.#isKnown && this.#problem === undefined;
  }

  /** Bytes of the log that it had replayed when that was last heard of. */
  get position(): bigint {
    return this.#position;
  }

  /** Whether it follows the timeline of a mark, so that its position says something of it. */
  follows({ timeline }: Mark): boolean {
    return this.#timeline >= timeline;
  }

  /** Whether it had all that a mark stands for when it was last heard of. */
  has(mark: Mark): boolean {
    return this.follows(mark) && this.#position >= mark.position;
  }

  /** A read has found it that far. */
  reached({ position }: Mark): void {
    if (position > this.#position) this.#position = position;
  }

  /** A read has failed there: where that means that the server is gone, it is left. */
  failed(error: unknown): void {
    if (error instanceof RpcError && GONE.has(error.reason)) this.#judge(SILENT, error.cause ?? error);
  }

  /** Asks it how far it is. */
  async look(primary: Primary): Promise<void> {
    const signal = AbortSignal.timeout(LOOK_TIMEOUT_MS);
    try {
      const rows = await this.#looks.use(signal, (connection) => connection.rows(LOOK.with(), signal));
      const [isStandby, system, timeline, lsn] = rows[0]!;
      this.#timeline = Number(timeline);
      this.#position = positionOf(lsn ?? '0/0');
      const { mark } = primary;
      if (!mark) return;
      if (isStandby !== 't') this.#judge('it is no standby');
      else if (system !== mark.system) this.#judge('it is of another database cluster than DATABASE_URL');
      else if (this.#timeline > mark.timeline) this.#judge('it follows another primary than DATABASE_URL');
      else {
        const isRecent = primary.isRecent(this.#position);
        if (isRecent !== undefined) this.#judge(isRecent ? undefined : 'it lags more than SIDECAR_REPLICA_MAX_LAG');
      }
    } catch (error) {
      this.#judge(SILENT, error);
      // What waits for its answers has them from elsewhere.
      this.calls.destroy(new Error(SILENT));
    }
  }

  #judge(problem: string | undefined, cause?: unknown): void {
    const isNews = !this.#isKnown || problem !== this.#problem;
    this.#isKnown = true;
    this.#problem = problem;
    if (isNews) this.#report(this.name, problem, cause === undefined ? undefined : problemOf(cause));
  }

  /** Lends nothing any more; settles when everything has come back. */
  async end(): Promise<void> {
    await Promise.all([this.calls.end(), this.#looks.end()]);
  }

  /** Cuts every connection off, after which it is of no use. */
  destroy(reason: Error): void {
    this.#server.overdue.end();
    for (const lane of [this.calls, this.#looks]) lane.destroy(reason);
  }
}

/** Statements of one call at one replica, each on a connection of its own. */
export class ReplicaSession extends SeparateStatements {
  readonly #replica: Replica;
  readonly #needed: Needed | undefined;

  /** The first thing that failed there, whatever the call has made of it. */
  failure: { readonly error: unknown } | undefined;

  /** @param needed undefined: anything. */
  constructor(replica: Replica, needed: Needed | undefined, call: CallScope) {
    super(replica.calls, call, needed && replayed(needed));
    this.#replica = replica;
    this.#needed = needed;
  }

  /** True when the replica is all right and only has to be waited for. */
  get behind(): boolean {
    return this.failure?.error instanceof Behind;
  }

  override async collect<S extends Sink>(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: () => S,
  ): Promise<Collected<S>> {
    try {
      const collected = await super.collect(statement, params, sink);
      if (this.#needed) this.#replica.reached(this.#needed.mark);
      return collected;
    } catch (error) {
      // As large everywhere.
      if (error instanceof RpcError && error.reason === 'RESPONSE_TOO_LARGE') throw error;
      this.failure ??= { error };
      this.#replica.failed(error);
      throw error;
    }
  }
}
