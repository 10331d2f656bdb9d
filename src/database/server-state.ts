import type { DatabaseObserver } from './observer.ts';
import { Overdue } from './overdue.ts';
import type { Statement } from './statement.ts';
import { Prepared } from './step.ts';

/** What is set for all connections to a server. */
export interface ServerOptions {
  /** Longest time a statement may take, milliseconds, whoever waits for it. */
  readonly statementMs: number;
  /** Longest wait for a lock, milliseconds. */
  readonly lockMs: number;
  /** True where commits are to tell where the log of the database stood after them. */
  readonly marks?: boolean;
  /** Who watches; undefined: nobody. */
  readonly observer?: DatabaseObserver | undefined;
}

/** How often statements are looked at that may have taken too long, milliseconds. */
const LOOK_MS = 50;

/** A server that forgets statements twice within this time, on new connections, keeps none; milliseconds. */
const FORGETFUL_MS = 60_000;

/** How a statement is to be prepared. */
export interface Preparing {
  /** Seen by somebody who sees the rows of some tenants alone: a plan holds for one role, and would be made anew at every change. */
  readonly isBound: boolean;
  /** False where sessions are shared, and keep no statements. */
  readonly isKept: boolean;
}

/** What the connections to one server have in common. */
export class ServerState {
  readonly statementMs: number;
  readonly lockMs: number;
  readonly marks: boolean;
  readonly observer: DatabaseObserver | undefined;
  /** Statements under way, and when they have taken too long. */
  readonly overdue = new Overdue(LOOK_MS);
  /** Statements that have kept others waiting, and until when they go alone for that; the clock of `performance.now()`. */
  readonly slow = new Map<Statement<unknown>, number>();
  /** Part of the names of prepared statements: raised when a plan turns out to be of an older schema. */
  #generation = 0;
  /** The statements of this generation, as connections prepare them; those of bound callers apart. */
  readonly #prepared = new Map<Statement<unknown>, Prepared>();
  readonly #bound = new Map<Statement<unknown>, Prepared>();
  /** False once the server turned out not to keep prepared statements for a connection. */
  #keeps = true;
  /** When a server last turned out to have forgotten a prepared statement, by the clock of `performance.now()`. */
  #forgotAt = Number.NEGATIVE_INFINITY;
  #trustedSince = 0;

  constructor({ statementMs, lockMs, marks = false, observer }: ServerOptions) {
    this.statementMs = statementMs;
    this.lockMs = lockMs;
    this.marks = marks;
    this.observer = observer;
  }

  /** The statement as connections prepare it: without a name where servers do not keep it. */
  prepared(statement: Statement<unknown>, { isBound, isKept }: Preparing): Prepared {
    const prepared = isBound ? this.#bound : this.#prepared;
    const known = prepared.get(statement);
    if (known) return known;
    const name = isBound ? `${statement.name}~tenants` : statement.name;
    const base = this.#keeps && isKept ? name : '';
    const made = new Prepared(
      this.#generation === 0 || base === '' ? base : `${base}~${this.#generation}`,
      statement.text,
    );
    prepared.set(statement, made);
    return made;
  }

  /** A plan was of an older schema: every connection prepares anew, before it, too, meets an old one. */
  renew(): void {
    this.#generation += 1;
    this.#forget();
  }

  /**
   * A connection made at that time has forgotten a statement. Whoever makes a session do that (`discard all`) makes it forget
   * its settings, too, and others with it.
   */
  forgotten(bornAt: number): void {
    const now = performance.now();
    if (bornAt > this.#forgotAt && now - this.#forgotAt < FORGETFUL_MS) {
      this.#keeps = false;
      this.#forget();
    }
    // Of those that find out together, one is enough.
    if (!this.trusts(bornAt)) return;
    this.#forgotAt = now;
    this.#trustedSince = now;
  }

  #forget(): void {
    this.#prepared.clear();
    this.#bound.clear();
  }

  /** Whether a connection made at that time is still what it was; by the clock of `performance.now()`. */
  trusts(bornAt: number): boolean {
    return bornAt >= this.#trustedSince;
  }

  /** Connections made until now are used no more, for nobody knows what they are. */
  distrust(): void {
    this.#trustedSince = performance.now();
  }
}
