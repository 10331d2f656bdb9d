import type { Session, StreamingSession } from './session.ts';
import type { Notes, Param, Statement } from './statement.ts';

/** Places that a call names; the others are counted. A header has to hold them. */
const NAMED = 10;

/** The stored values of a call that were not carried exactly, in a form that fits a header and a line of the log. */
export class CallNotes implements Notes {
  readonly #named: string[] = [];
  #count = 0;

  add(place: string, how: string): void {
    this.#count += 1;
    if (this.#named.length < NAMED) this.#named.push(`${place}=${how}`);
  }

  /** Forgets what an attempt that is made again has noted. */
  clear(): void {
    this.#named.length = 0;
    this.#count = 0;
  }

  /** `schema.table.column[key]=how, …, +17`; undefined if all was exact. */
  get text(): string | undefined {
    if (this.#count === 0) return undefined;
    const more = this.#count - this.#named.length;
    return [...this.#named, ...(more === 0 ? [] : [`+${more}`])].join(', ');
  }
}

/** A session that has a call's notes taken of what its statements read. */
class NotingSession implements StreamingSession {
  readonly #db: Session;
  readonly #notes: Notes;

  constructor(db: Session, notes: Notes) {
    this.#db = db;
    this.#notes = notes;
  }

  get rowCount(): bigint {
    return this.#db.rowCount;
  }

  rows<T>(statement: Statement<T>, params: readonly Param[]): Promise<T[]> {
    return this.#db.rows(this.#noting(statement), params);
  }

  row<T>(statement: Statement<T>, params: readonly Param[]): Promise<T | undefined> {
    return this.#db.row(this.#noting(statement), params);
  }

  one<T>(statement: Statement<T>, params: readonly Param[]): Promise<NonNullable<T>> {
    return this.#db.one(this.#noting(statement), params);
  }

  execute(statement: Statement<unknown>, params: readonly Param[]): Promise<bigint> {
    return this.#db.execute(statement, params);
  }

  stream<T>(statement: Statement<T>, params: readonly Param[]): AsyncIterable<T> {
    // Only one that streams is ever asked to: see the signature of `noting`.
    return (this.#db as StreamingSession).stream(this.#noting(statement), params);
  }

  attempt<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return this.#db.attempt((db) => work(new NotingSession(db, this.#notes)));
  }

  aside<T>(work: (db: Session) => Promise<T>): Promise<T> {
    return this.#db.aside((db) => work(new NotingSession(db, this.#notes)));
  }

  #noting<T>(statement: Statement<T>): Statement<T> {
    const { mapNoting } = statement;
    return { ...statement, map: (row) => mapNoting(row, this.#notes) };
  }
}

/** The session, with notes taken of stored values that its statements cannot carry exactly. */
export const noting = <S extends Session>(db: S, notes: Notes): S => new NotingSession(db, notes) as Session as S;
