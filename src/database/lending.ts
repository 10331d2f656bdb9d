import { Client, type ClientOptions } from './client.ts';
import { Connection } from './connection.ts';
import { Gate, type Leave } from './gate.ts';
import type { Share } from './kept-place.ts';
import type { Ended, LaneState } from './observer.ts';
import type { ServerState } from './server-state.ts';
import { earlier, LEFT, type Signal } from './signal.ts';
import { connectError, databaseUnavailable, shuttingDown } from './sqlstate.ts';

/** Limits of one share of the connections. */
export interface LaneOptions {
  /** Connections at most. */
  readonly max: number;
  /** Calls that may wait for one. */
  readonly queue: number;
  /** Longest wait, milliseconds. */
  readonly waitMs: number;
}

/** How long a connection lies idle before it is closed, and how often that is looked at, milliseconds. */
const IDLE_MS = 60_000;
const LOOK_MS = 10_000;

interface Idle {
  readonly client: Client;
  readonly since: number;
}

/** A share of the connections with a bounded queue in front of it: lends them one by one. */
export class Lending {
  readonly #name: string;
  readonly #options: LaneOptions;
  readonly #clientOptions: ClientOptions;
  protected readonly server: ServerState;
  readonly #gate: Gate<Connection>;
  /** All that are open or being made. */
  readonly #clients = new Set<Client>();
  /** Those that nobody uses; the one used last is lent first, so that those not needed grow old. */
  #idle: Idle[] = [];
  /** Those in use or being made. */
  #lent = 0;
  #making = 0;
  /** One for all: a function that is made for a property grows old at once. */
  readonly #onLost = (lost: Client): void => void this.#clients.delete(lost);
  #ended: (() => void) | undefined;
  #ending: Promise<void> | undefined;
  readonly #clock: NodeJS.Timeout;

  constructor(
    name: string,
    client: Omit<ClientOptions, 'applicationName' | 'connectMs'>,
    server: ServerState,
    options: LaneOptions,
  ) {
    this.#name = name;
    this.#options = options;
    this.server = server;
    this.#clientOptions = { ...client, connectMs: options.waitMs, applicationName: `policy-sidecar ${name}` };
    this.#gate = new Gate(name, {
      slots: options.max,
      queue: options.queue,
      waitMs: options.waitMs,
      late: () => (this.#making > 0 ? databaseUnavailable(new Error('the database does not answer')) : undefined),
    });
    this.#clock = setInterval(() => this.#closeOld(), LOOK_MS).unref();
  }

  /** What it holds now. */
  get state(): LaneState {
    const { max } = this.#options;
    return { name: this.#name, used: this.#lent, idle: this.#idle.length, pending: this.#gate.pending, max };
  }

  /** Most connections this lane may hold. */
  get max(): number {
    return this.#options.max;
  }

  /**
   * Lends a connection. A full queue or too long a wait is RESOURCE_EXHAUSTED; a database that cannot be reached is
   * UNAVAILABLE; an ended call gets its signal's reason.
   *
   * @param share lets in those who may have only so many of the connections: passed first, left with the connection.
   */
  acquire(signal?: Signal, share?: Share): Promise<Connection> {
    const now = signal?.aborted ? undefined : this.acquireNow(share);
    if (now) return Promise.resolve(now);
    return this.#waited(() => (share ? this.#enterBoth(share, signal) : this.#gate.enter(signal)), signal);
  }

  /** As {@link acquire}, for someone who takes a seat on another's connection, too, if that is offered first. */
  protected acquireOrSit(signal: Signal | undefined): Promise<Connection> {
    return this.#waited(() => this.#gate.enterOrSit(signal), signal);
  }

  /**
   * Offers seats to those who wait for a connection and take one: to no more than come to each connection, so that those
   * that are free next have something to do.
   */
  protected offer(seat: () => Connection | undefined): void {
    let share = Math.floor(this.#gate.pending / this.#options.max);
    this.#gate.offer(() => {
      share -= 1;
      return share < 0 ? undefined : seat();
    });
  }

  async #enterBoth(share: Share, signal: Signal | undefined): Promise<Leave> {
    const leaveShare = await share.enter(signal);
    try {
      return both(await this.#gate.enter(signal), leaveShare);
    } catch (error) {
      leaveShare();
      throw error;
    }
  }

  #tryEnterBoth(share: Share): Leave | undefined {
    const leaveShare = share.tryEnter();
    if (!leaveShare) return undefined;
    const leave = this.#gate.tryEnter();
    if (leave) return both(leave, leaveShare);
    leaveShare();
    return undefined;
  }

  /** The one place that a wait for a connection is told from: all of it, whatever is waited for on the way to one. */
  #waited(entering: () => Promise<Leave | Connection>, signal: Signal | undefined): Promise<Connection> {
    if (this.#ending) return Promise.reject(shuttingDown());
    const { observer } = this.server;
    return observer
      ? observed(observer.waiting(this.#name), this.#taken(entering(), signal))
      : this.#taken(entering(), signal);
  }

  async #taken(entering: Promise<Leave | Connection>, signal: Signal | undefined): Promise<Connection> {
    const entered = await entering;
    return entered instanceof Connection ? entered : this.#take(entered, signal);
  }

  /** As {@link acquire}, where that needs no waiting; undefined where it does. */
  protected acquireNow(share?: Share): Connection | undefined {
    if (this.#ending || this.#idle.length === 0) return undefined;
    const leave = share ? this.#tryEnterBoth(share) : this.#gate.tryEnter();
    if (!leave) return undefined;
    const idle = this.#takeIdle();
    if (!idle) {
      leave();
      return undefined;
    }
    this.#lent += 1;
    this.server.observer?.waiting(this.#name)();
    return this.#lend(idle, true, leave);
  }

  /** Lends one to who has a place: one that is open, or a new one. */
  #take(leave: Leave, signal: Signal | undefined): Connection | Promise<Connection> {
    if (this.#ending) {
      leave();
      throw shuttingDown();
    }
    this.#lent += 1;
    const idle = this.#takeIdle();
    return idle ? this.#lend(idle, true, leave) : this.#make(leave, signal);
  }

  async #make(leave: Leave, signal: Signal | undefined): Promise<Connection> {
    const client = new Client(this.#clientOptions);
    this.#clients.add(client);
    this.#making += 1;
    const made = client.connect().then(
      () => undefined,
      (error: unknown) => connectError(error),
    );
    void made.then(() => {
      this.#making -= 1;
    });
    const problem = await (signal ? earlier(made, signal) : made);
    if (problem === LEFT) {
      // A connection that is still being made is of use to the next.
      void made.then((failed) => this.#giveBack(client, failed !== undefined, leave));
      throw signal!.reason;
    }
    if (problem) {
      this.#giveBack(client, true, leave);
      throw problem;
    }
    return this.#lend(client, false, leave);
  }

  /** One that still reaches the server, as far as anybody knows. */
  #takeIdle(): Client | undefined {
    for (let idle = this.#idle.pop(); idle; idle = this.#idle.pop()) {
      const { client } = idle;
      if (!client.lost && this.server.trusts(client.bornAt)) return client;
      this.#close(client);
    }
    return undefined;
  }

  #lend(client: Client, reused: boolean, leave: Leave): Connection {
    return new Connection(client, this.server, reused, (broken) => this.#giveBack(client, broken, leave));
  }

  #giveBack(client: Client, broken: boolean, leave: Leave): void {
    this.#lent -= 1;
    if (broken || client.lost) this.#close(client);
    else if (this.#ending) this.#dismiss(client);
    else {
      client.onLost = this.#onLost;
      this.#idle.push({ client, since: performance.now() });
    }
    leave();
    if (this.#lent === 0) this.#ended?.();
  }

  #close(client: Client): void {
    this.#clients.delete(client);
    client.destroy(new Error('left'));
  }

  /** Says farewell, so that the server does not log a lost client. */
  #dismiss(client: Client): void {
    void client.end().catch(() => {});
  }

  #closeOld(): void {
    const oldest = performance.now() - IDLE_MS;
    for (const { client } of this.#idle.filter(({ since }) => since < oldest)) {
      this.#clients.delete(client);
      this.#dismiss(client);
    }
    this.#idle = this.#idle.filter(({ since }) => since >= oldest);
  }

  /** Closes what lies idle. */
  refresh(reason: Error): void {
    for (const { client } of this.#idle.splice(0)) client.destroy(reason);
  }

  /** Lends nothing any more; settles when everything has come back. */
  async end(): Promise<void> {
    this.#ending ??= new Promise((resolve) => {
      this.#ended = resolve;
      if (this.#lent === 0) resolve();
    });
    clearInterval(this.#clock);
    for (const { client } of this.#idle.splice(0)) this.#dismiss(client);
    await this.#ending;
  }

  /** Cuts every connection off, whatever it does. */
  destroy(reason: Error): void {
    for (const client of this.#clients) client.destroy(reason);
  }
}

const both =
  (one: Leave, other: Leave): Leave =>
  () => {
    one();
    other();
  };

/** Tells how it ends. */
const observed = async <T>(told: Ended, work: Promise<T>): Promise<T> => {
  try {
    const result = await work;
    told();
    return result;
  } catch (error) {
    told(error);
    throw error;
  }
};
