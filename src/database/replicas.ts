import type { Connection } from './connection.ts';
import { Lane } from './lane.ts';
import { MARK, type Mark, readMark } from './mark.ts';
import type { CallNotes } from './notes.ts';
import type { ReplicaState } from './observer.ts';
import type { Database, DatabaseOptions } from './pool.ts';
import { type Primary, Replica, ReplicaSession, type Report } from './replica.ts';
import { ServerState } from './server-state.ts';
import { AutoCommitSession, type CallScope, type Session } from './session.ts';
import type { Signal } from './signal.ts';
import type { Target } from './target.ts';

/** What a read outside transactions may see: anything recent, or all that had been committed at a mark. */
export type Wanted = 'eventual' | Mark;

/** How replicas are used. */
export interface ReplicaOptions extends DatabaseOptions {
  /** Longest wait for one to replay what a read must see, milliseconds. */
  readonly waitMs: number;
  /** How far behind the primary one may be and still be read, milliseconds. */
  readonly maxLagMs: number;
  readonly report: Report;
}

/** How often the primary and its replicas are asked how far they are, and how often while reads wait; milliseconds. */
const LOOK_MS = 500;
const HURRY_MS = 5;
const SAMPLE_TIMEOUT_MS = 1_000;

/** A replica is looked at with one connection. */
const LOOKS = { max: 1, queue: 1, waitMs: 1_000 };

/** Where the primary was and when, so that lag is a time without comparing the clocks of two machines. */
class Progress implements Primary {
  readonly #maxLagMs: number;
  #samples: { readonly position: bigint; readonly at: number }[] = [];
  #since = 0;
  mark: Mark | undefined;

  constructor(maxLagMs: number) {
    this.#maxLagMs = maxLagMs;
  }

  note(mark: Mark, at: number): void {
    // What another server has said does not count beside it.
    const isSame = this.mark?.system === mark.system && this.mark.timeline === mark.timeline;
    if (!isSame) {
      this.#samples = [];
      this.#since = at;
    }
    this.mark = mark;
    this.#samples.push({ position: mark.position, at });
    this.#samples = this.#samples.filter((sample) => sample.at >= at - this.#maxLagMs);
  }

  /** Time stands still while the primary does not answer: then nobody can say that a replica lacks anything. */
  isRecent(position: bigint): boolean | undefined {
    if (this.#samples.some((sample) => sample.position <= position)) return true;
    const heardFor = (this.#samples.at(-1)?.at ?? 0) - this.#since;
    return heardFor >= this.#maxLagMs ? false : undefined;
  }
}

/** A read that waits for a replica to catch up. */
interface Waiting {
  readonly mark: Mark;
  readonly settle: (replica: Replica | undefined) => void;
}

/** The standbys of a database, and which of them a read may run at. Whatever befalls them, the primary answers. */
export class Replicas {
  readonly #database: Database;
  readonly #replicas: readonly Replica[];
  readonly #progress: Progress;
  readonly #waitMs: number;
  readonly #waiting = new Set<Waiting>();
  readonly #pauses = new Set<() => void>();
  #turn = 0;
  #isEnding = false;

  /** Connects when it has heard of the primary. */
  constructor(database: Database, targets: readonly Target[], options: ReplicaOptions) {
    const { pooler, lockMs, calls, maxLagMs, waitMs, report } = options;
    this.#database = database;
    this.#progress = new Progress(maxLagMs);
    this.#waitMs = waitMs;
    this.#replicas = targets.map((target, index) => {
      const client = { target, pooler, lockMs };
      const server = new ServerState({ ...options, marks: false });
      const name = `replica ${index + 1}`;
      const lanes = [new Lane(name, client, server, calls), new Lane(`${name} watch`, client, server, LOOKS)] as const;
      return new Replica(target.description, server, lanes, report);
    });
    void this.#watch();
  }

  /** How they are now. */
  get states(): ReplicaState[] {
    return this.#replicas.map(({ calls, usable }) => ({ lane: calls.state, usable }));
  }

  /**
   * Runs a read at a replica that has what is wanted. Whatever fails there is no failure of the call: it is run again,
   * at another or at the primary.
   */
  async read<T>(
    wanted: Wanted,
    call: CallScope & { readonly notes: CallNotes },
    work: (db: Session) => Promise<T>,
  ): Promise<T> {
    const mark = wanted === 'eventual' ? undefined : wanted;
    for await (const replica of this.#candidates(mark, call.signal)) {
      const needed = mark && { mark, timeline: this.#progress.mark!.timeline };
      const session = new ReplicaSession(replica, needed, call);
      try {
        const result = await work(session);
        if (!session.failure) return result;
      } catch (error) {
        if (!session.failure) throw error;
      }
      call.notes.clear();
      if (call.signal?.aborted) break;
      this.#database.observer?.again('replica');
      // What one that is there refuses, others would refuse, too.
      if (!session.behind && replica.usable) break;
    }
    return work(new AutoCommitSession(this.#database, call));
  }

  /** Those to be tried, one after the other. */
  async *#candidates(mark: Mark | undefined, signal: Signal | undefined): AsyncGenerator<Replica> {
    const tried = new Set<Replica>();
    this.#turn += 1;
    for (;;) {
      const usable = this.#replicas.filter((each) => each.usable && !tried.has(each) && (!mark || each.follows(mark)));
      const replica = mark ? this.#mostAdvanced(usable, mark) : usable[this.#turn % usable.length];
      if (!replica) break;
      tried.add(replica);
      yield replica;
      if (mark) break;
    }
    if (!mark || mark.system !== this.#progress.mark?.system) return;
    const late = await this.#caughtUp(mark, signal);
    if (late) yield late;
  }

  /** One of those that have it for sure; else the one that may have it soonest. */
  #mostAdvanced(usable: readonly Replica[], mark: Mark): Replica | undefined {
    if (mark.system !== this.#progress.mark?.system) return undefined;
    const having = usable.filter((each) => each.has(mark));
    if (having.length > 0) return having[this.#turn % having.length];
    return usable.toSorted((a, b) => (a.position < b.position ? 1 : -1))[0];
  }

  /** The first that catches up in time. */
  #caughtUp(mark: Mark, signal: Signal | undefined): Promise<Replica | undefined> {
    if (!this.#replicas.some((each) => each.usable)) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const settle = (replica: Replica | undefined): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', leave);
        this.#waiting.delete(waiting);
        resolve(replica);
      };
      const leave = (): void => settle(undefined);
      const waiting: Waiting = { mark, settle };
      const timer = setTimeout(leave, this.#waitMs);
      signal?.addEventListener('abort', leave);
      this.#waiting.add(waiting);
      this.#hurry();
    });
  }

  #hurry(): void {
    for (const goOn of this.#pauses) goOn();
  }

  /** Follows the primary, then all. */
  async #watch(): Promise<void> {
    await this.#sample();
    for (const replica of this.#replicas) void this.#follow(replica);
    while (!this.#isEnding) {
      await this.#pause(() => LOOK_MS);
      await this.#sample();
    }
  }

  async #follow(replica: Replica): Promise<void> {
    while (!this.#isEnding) {
      await replica.look(this.#progress);
      for (const { mark, settle } of this.#waiting) if (replica.usable && replica.has(mark)) settle(replica);
      await this.#pause(() => (replica.usable && this.#waiting.size > 0 ? HURRY_MS : LOOK_MS));
    }
  }

  async #sample(): Promise<void> {
    const signal = AbortSignal.timeout(SAMPLE_TIMEOUT_MS);
    const at = performance.now();
    const asked = async (connection: Connection): Promise<string | undefined> =>
      (await connection.rows(MARK.with(null), signal))[0];
    // Health tells of a primary that does not answer.
    const text = await this.#database.reserve.use(signal, asked).catch(() => undefined);
    const mark = text === undefined ? undefined : readMark(text);
    if (mark) this.#progress.note(mark, at);
  }

  /** Waits, unless there is reason to hurry. */
  async #pause(ms: () => number): Promise<void> {
    const until = performance.now();
    for (let left = ms(); left > 0 && !this.#isEnding; left = until + ms() - performance.now()) {
      await new Promise<void>((resolve) => {
        const goOn = (): void => {
          clearTimeout(timer);
          this.#pauses.delete(goOn);
          resolve();
        };
        const timer = setTimeout(goOn, left).unref();
        this.#pauses.add(goOn);
      });
    }
  }

  /** Looks at none of them any more and waits for what is lent, at most so long (milliseconds); then cuts it off. */
  async end(patienceMs: number): Promise<void> {
    this.#isEnding = true;
    this.#hurry();
    const cutOff = (): void => {
      for (const replica of this.#replicas) replica.destroy(new Error('the sidecar shut down'));
    };
    const cut = setTimeout(cutOff, patienceMs);
    await Promise.all(this.#replicas.map((replica) => replica.end()));
    clearTimeout(cut);
    cutOff();
  }
}
