import pg from 'pg';
import type { Client } from './client.ts';
import { MARK, originOf } from './mark.ts';
import { type Judge, Question } from './question.ts';
import type { ServerState } from './server-state.ts';
import type { Signal } from './signal.ts';
import { commitUnknown, databaseError, databaseUnavailable } from './sqlstate.ts';
import { firstText, type Notes, type Param, type Query, type Row, type Statement, statement } from './statement.ts';
import type { Portal, Prepared, Queried, Sink, Step } from './step.ts';
import { BIND, type Bound } from './tenants.ts';
import { asRow, NO_ROWS, TextRows } from './text-rows.ts';
import { beginning, type TransactionMode } from './transaction-mode.ts';
import type { Done, Outcome } from './wire.ts';

/** How something is asked. */
export interface Manner {
  /** Ends it. */
  readonly signal?: Signal | undefined;
  /** How long it may take, milliseconds; left out: as long as any statement. */
  readonly limitMs?: number;
  /** True where it must not be cancelled: by then a commit would count that no standby has. */
  readonly isFinal?: boolean;
  /** What an error is where it says more of this than of others. */
  readonly judge?: Judge;
}

/** Rows and tag of a command. */
interface Commanded {
  readonly rows: Row[];
  readonly tag: string;
}

/** How a transaction was concluded. */
export interface Concluded {
  readonly committed: boolean;
  /** Whether evidence of it was left. */
  readonly evident: boolean;
}

const UNNOTED: Notes = { add: () => {} };

const lastCount = (outcomes: readonly Outcome[]): number => outcomes.at(-1)!.count;

/** Time in which a backend must answer what only tidies up, before its connection is given up, milliseconds. */
export const TIDY_MS = 1_000;

const STALE_PLAN = 'RevalidateCachedQuery';
const UNKNOWN_STATEMENT = '26000';
const DUPLICATE_STATEMENT = '42P05';

const COMMIT = statement('transaction.commit', 'commit');

/** How long this transaction may wait for a lock. */
const LOCK_TIMEOUT = statement('connection.lock_timeout', `select set_config('lock_timeout', $1, true)`);

/** One backend, lent to one piece of work at a time. It alone knows whether it may be lent again. */
export class Connection {
  readonly #client: Client;
  readonly #server: ServerState;
  readonly #giveBack: (broken: boolean) => void;
  /** Of the transaction that it is in. */
  #mode: TransactionMode | undefined;
  /** Whose rows alone what runs sees. */
  #bound: Bound | undefined;
  /** True when others use the same backend, before and behind what this one asks. */
  readonly isShared: boolean;
  #unusable = false;
  #released = false;
  /** What was asked last, where others use the backend, too. */
  #question: Question | undefined;

  /** True when the server has said that it had not begun with the write that it was asked for. */
  untouched = false;

  /** Where the log of the database stood after its last commit; undefined where nobody asks, or it could not be told. */
  mark: string | undefined;

  /** True when it has been lent before, or is to others, so that its backend may die without its user's doing. */
  readonly reused: boolean;

  constructor(
    client: Client,
    server: ServerState,
    reused: boolean,
    giveBack: (broken: boolean) => void,
    { isShared = false } = {},
  ) {
    this.#client = client;
    this.#server = server;
    this.reused = reused;
    this.#giveBack = giveBack;
    this.isShared = isShared;
  }

  /** Lends its backend to one of several at once, for one statement outside any transaction. */
  seat(giveBack: (broken: boolean) => void): Connection {
    // Any of them may be hit by what the others do to the backend.
    return new Connection(this.#client, this.#server, true, giveBack, { isShared: true });
  }

  /** True when others have kept what was asked from being answered: it is to be done again, alone. */
  get displaced(): boolean {
    return this.#question?.displaced ?? false;
  }

  /** Told when the backend goes away. */
  set onLost(listener: Client['onLost']) {
    this.#client.onLost = listener;
  }

  /** True when the backend is gone. */
  get lost(): boolean {
    return this.#client.lost !== undefined;
  }

  /** True while a failed statement keeps the transaction from going on. */
  get aborted(): boolean {
    return this.#mode !== undefined && this.#client.wire.status === 'E';
  }

  /**
   * Runs a prepared statement. When the signal fires, or the statement takes too long, the backend is told to stop; one
   * that does not is left behind. Either way the call goes on within {@link CANCEL_MS}.
   *
   * @returns rows returned or affected, as PostgreSQL counts them.
   * @throws RpcError as the SQLSTATE table has it, or the signal's reason.
   */
  run(statement: Statement<unknown>, params: readonly Param[], sink: Sink, signal?: Signal): Promise<number> {
    return this.#group(statement, [this.#step(statement, params, sink)], { signal });
  }

  /** Rows of a statement that is none of a call's, and so notes nothing; as {@link Connection.run}. */
  async rows<T>({ statement, params }: Query<T>, signal?: Signal): Promise<T[]> {
    const sink = new TextRows((row) => statement.map(row, UNNOTED));
    await this.run(statement, params, sink, signal);
    return sink.rows;
  }

  /**
   * As {@link Connection.run}, outside any transaction, for a caller who sees the rows of some tenants alone, or behind
   * another statement in the same round trip, whose sink keeps it from bringing anything by throwing.
   */
  runAfter(
    { bound, first }: { readonly bound: Bound | undefined; readonly first?: Queried | undefined },
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: Sink,
    signal?: Signal,
  ): Promise<number> {
    this.#bound = bound;
    const steps: Step[] = [];
    if (first) steps.push(this.#step(first.statement, first.params, first.sink));
    if (bound !== undefined) steps.push(this.#step(BIND, [bound], NO_ROWS));
    steps.push(this.#step(statement, params, sink));
    return this.#group(statement, steps, { signal });
  }

  /**
   * Begins a transaction.
   *
   * @param first what runs in the same round trip; there is no transaction if that fails.
   * @returns as {@link Connection.run}, of that.
   */
  async begin(mode: TransactionMode, signal: Signal | undefined, first?: Queried): Promise<number> {
    this.#mode = mode;
    this.#bound = mode.bound;
    const begins = beginning(mode);
    const steps = [this.#step(begins, [], NO_ROWS), ...this.#preamble()];
    if (first) steps.push(this.#step(first.statement, first.params, first.sink));
    try {
      return await this.#group(first?.statement ?? begins, steps, { signal });
    } catch (error) {
      await this.rollback();
      throw error;
    }
  }

  /** Runs a statement behind what has to go before it, in one round trip; how many rows came or were changed. */
  #group(statement: Statement<unknown>, steps: readonly Step[], manner: Manner): Promise<number> {
    const ask = (done: Done): void => this.#client.wire.run(steps, done);
    return this.#asked(statement, statement.reads, ask, manner).then(lastCount);
  }

  #step(statement: Statement<unknown>, params: readonly Param[], sink: Sink): Step {
    return { prepared: this.#prepared(statement), params, sink };
  }

  /** What a transaction has to be told that the session could not be. */
  #preamble(): Step[] {
    const { lockMs } = this.#server;
    const steps: Step[] = [];
    if (this.#client.pooler === 'transaction') {
      steps.push(this.#step(LOCK_TIMEOUT, [`${lockMs}ms`], NO_ROWS));
    }
    if (this.#bound !== undefined) steps.push(this.#step(BIND, [this.#bound], NO_ROWS));
    return steps;
  }

  /**
   * Runs a write as a transaction of its own, in one round trip.
   *
   * @returns as {@link Connection.run}.
   * @throws COMMIT_OUTCOME_UNKNOWN when the connection is lost, unless the server has said that nothing was done.
   */
  runAlone(
    statement: Statement<unknown>,
    params: readonly Param[],
    sink: Sink,
    signal?: Signal,
    bound?: Bound,
  ): Promise<number> {
    this.#bound = bound;
    const steps = [...this.#preamble(), this.#step(statement, params, sink)];
    const judge: Judge = (error, found, begun) => {
      // A server that ends a backend says so instead of the command's completion: then it has rolled back. A pooler that has
      // lost the server says so, too, and knows nothing; it does not say how grave that is in the words of the protocol.
      const isKnown = error instanceof pg.DatabaseError && error.severity !== undefined && found.length < steps.length;
      this.untouched = this.lost && isKnown && !begun;
      return this.lost && !isKnown ? commitUnknown(error) : error;
    };
    const running = this.#group(statement, steps, { signal, judge });
    return this.#server.marks ? this.#marked(running) : running;
  }

  /** Asks in the same round trip where the log stands after that commit; not to know it does no harm. */
  async #marked<T>(committing: Promise<T>): Promise<T> {
    const sink = new TextRows(firstText);
    // A backend takes writes for one primary all its life, unless there are several behind a pooler.
    const origin = this.#client.pooler === 'transaction' ? null : this.#client.origin;
    const steps = [this.#step(MARK, [origin], sink)];
    const told = this.#asked(MARK, true, (done) => this.#client.wire.run(steps, done), { limitMs: TIDY_MS }).then(
      () => sink.rows[0],
      () => undefined,
    );
    try {
      return await committing;
    } finally {
      this.mark = await told;
      if (this.mark !== undefined) this.#client.origin = originOf(this.mark);
    }
  }

  /**
   * Opens a portal of a statement and brings its first rows. It lasts as long as the transaction, unless it is closed.
   *
   * @returns whether there may be more.
   */
  async open(
    statement: Statement<unknown>,
    params: readonly Param[],
    portal: Portal,
    sink: Sink,
    signal?: Signal,
  ): Promise<boolean> {
    const step: Step = { ...this.#step(statement, params, sink), portal };
    const { prepared } = step;
    if (!this.#client.wire.knows(prepared)) {
      await this.#asked(statement, true, (done) => this.#client.wire.learn(prepared, done), { signal });
    }
    const [outcome] = await this.#asked(statement, true, (done) => this.#client.wire.run([step], done), { signal });
    return outcome!.tag === '';
  }

  /** Bytes that its server has sent. */
  get received(): number {
    return this.#client.wire.received;
  }

  /** Brings more rows of a portal; returns whether there may be more still. */
  async fetch(portal: Portal, sink: Sink, signal?: Signal): Promise<boolean> {
    const [outcome] = await this.#asked('fetch', true, (done) => this.#client.wire.fetch(portal, sink, done), {
      signal,
    });
    return outcome!.tag === '';
  }

  /** Closes a portal. */
  async close({ name }: Portal): Promise<void> {
    await this.#asked('close', true, (done) => this.#client.wire.close(name, done), { limitMs: TIDY_MS });
  }

  #prepared(statement: Statement<unknown>): Prepared {
    return this.#server.prepared(statement, {
      isBound: this.#bound !== undefined,
      isKept: this.#client.pooler !== 'transaction',
    });
  }

  /**
   * Runs an unprepared command (`savepoint`, `rollback`, …), or several in one round trip.
   *
   * @returns rows and tag of the last of them.
   */
  async command(text: string, manner?: Manner): Promise<Commanded> {
    return (await this.commands(text, manner)).at(-1)!;
  }

  /** As {@link Connection.command}: rows and tags of all of them. */
  async commands(text: string, manner?: Manner): Promise<Commanded[]> {
    const sinks: TextRows<Row>[] = [];
    const sinkAt = (index: number): Sink => {
      sinks[index] ??= new TextRows(asRow);
      return sinks[index];
    };
    const outcomes = await this.#asked(text, true, (done) => this.#client.wire.query(text, sinkAt, done), manner);
    return outcomes.map(({ tag }, index) => ({ rows: sinks[index]?.rows ?? [], tag }));
  }

  /**
   * Commits. Not cancelled by anybody once begun.
   *
   * @param evidence a statement that runs before the commit in the same round trip.
   * @returns whether it is committed (a failed transaction is rolled back instead), and whether the evidence is there.
   */
  async commit(evidence?: Query<unknown>): Promise<Concluded> {
    const steps = [this.#step(COMMIT, [], NO_ROWS)];
    if (evidence) steps.unshift(this.#step(evidence.statement, evidence.params, NO_ROWS));
    const running = this.#asked(COMMIT, true, (done) => this.#client.wire.run(steps, done), { isFinal: true });
    const outcomes = await (this.#server.marks ? this.#marked(running) : running);
    this.#mode = undefined;
    return { committed: outcomes.at(-1)!.tag === 'COMMIT', evident: evidence !== undefined && outcomes[0]!.count > 0 };
  }

  /**
   * Prepares the transaction under a name, in the role of the session: whoever ends it need not be what it was for.
   *
   * @param evidence SQL that runs before in the same round trip.
   * @returns as {@link Connection.commit}.
   */
  async prepare(name: string, evidence: string): Promise<Concluded> {
    const results = await this.commands(`${evidence}; set local role none; prepare transaction '${name}'`, {
      isFinal: true,
    });
    this.#mode = undefined;
    return { committed: results.at(-1)!.tag === 'PREPARE', evident: true };
  }

  /** Runs SQL that commits by itself, such as the commit of a prepared transaction. */
  async finish(text: string): Promise<void> {
    const running = this.command(text, { isFinal: true });
    await (this.#server.marks ? this.#marked(running) : running);
  }

  /** Rolls back, whatever the state; a backend that does not answer is left behind and does so by itself. */
  async rollback(): Promise<void> {
    if (this.#mode && !this.lost) await this.command('rollback', { limitMs: TIDY_MS }).catch(() => {});
    this.#mode = undefined;
  }

  /** Asks the server for something, and sees to it that the wait for its answer ends. */
  #asked(
    what: Statement<unknown> | string,
    reads: boolean,
    ask: (done: Done) => void,
    { signal, limitMs = this.#server.statementMs, isFinal = false, judge }: Manner = {},
  ): Promise<readonly Outcome[]> {
    const explain = (error: Error, tookMs: number): unknown => this.#explain(error, reads, tookMs);
    const question = new Question(this.#client, this.#server, {
      what,
      signal,
      limitMs,
      isFinal,
      judge,
      isShared: this.isShared,
      explain,
    });
    if (this.isShared) this.#question = question;
    return question.ask(ask);
  }

  /** What became of the connection, and what the caller sees. */
  #explain(error: unknown, reads: boolean, tookMs: number): unknown {
    const client = this.#client;
    if (!(error instanceof pg.DatabaseError)) {
      return client.lost ? databaseUnavailable(error) : error;
    }
    const { code, routine, severity } = error;
    if (severity === 'FATAL' || severity === 'PANIC') {
      client.destroy(error);
      return databaseError(error, { reads });
    }
    if (code === '0A000' && routine === STALE_PLAN) {
      this.#server.renew();
      return databaseError(error, { stalePlan: true });
    }
    if (code === UNKNOWN_STATEMENT || code === DUPLICATE_STATEMENT) {
      if (!client.wire.unprepared.has(error)) this.#server.forgotten(client.bornAt);
      return databaseError(error, { stalePlan: true });
    }
    const readOnlyDatabase = code === '25006' && !this.#mode?.readOnly;
    // Where this server was followed to, another may be the one to write to by now.
    if (readOnlyDatabase) this.#unusable = true;
    const { statementTimeoutMs } = client;
    return databaseError(error, {
      reads,
      readOnlyDatabase,
      bound: this.#bound !== undefined,
      ownLimit: statementTimeoutMs > 0 && tookMs >= statementTimeoutMs,
    });
  }

  /** It is not lent again: where it leads, such as to a database that takes no writes any more, others must not follow. */
  markUnusable(): void {
    this.#unusable = true;
  }

  /** Gives the connection back; one that is lost, or in the middle of something, is closed. Returns whether it was lost. */
  release(): boolean {
    const { lost } = this;
    if (this.#released) return lost;
    this.#released = true;
    if (this.#question) {
      this.#question.settle((answered) => this.#giveBack(!answered || this.#unusable));
      return lost;
    }
    this.#client.onLost = undefined;
    const isIdle = this.#mode === undefined && !lost && this.#client.wire.idle && this.#client.wire.status === 'I';
    const trusted = this.#server.trusts(this.#client.bornAt);
    const clean = isIdle && trusted && !this.#unusable;
    this.#giveBack(!clean);
    return lost;
  }
}
