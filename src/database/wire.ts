import type { Socket } from 'node:net';
import pg from 'pg';
import { Bytes } from './bytes.ts';
import { Incoming } from './incoming.ts';
import { bind, closePortal, describePortal, describeStatement, execute, formatCodes, query, SYNC } from './messages.ts';
import { columnsOf, errorOf, readTag } from './replies.ts';
import { unreplicated } from './sqlstate.ts';
import { firstOf, type Portal, type Prepared, type Sink, type Step, type Types } from './step.ts';

const NO_PORTAL = Buffer.from('\0');
/** All cells as text. */
export const AS_TEXT = formatCodes([]);
const EXECUTE_ALL = execute('', 0);
const DESCRIBE = describePortal('');

/** What came of a step or of a command. */
export interface Outcome {
  /** Rows returned or affected. */
  readonly count: number;
  /** Command tag without its numbers: `INSERT`, `COMMIT`; empty for a portal that has more rows. */
  readonly tag: string;
}

/**
 * Told once when the server has answered: outcomes of what succeeded, why the rest did not, and whether the server had
 * begun with any of it.
 */
export type Done = (error: Error | undefined, outcomes: readonly Outcome[], begun: boolean) => void;

/** What is asked and has not been answered yet; one ReadyForQuery ends it. */
interface Exchange {
  /** What is run that has to be prepared before. */
  readonly steps: readonly Step[];
  /** The sink of the step or command at that place. */
  readonly sinkAt: (index: number) => Sink | undefined;
  /** What is to be prepared, by step. */
  readonly preparing: readonly (Prepared | undefined)[];
  /** Whose rows the server is asked about, by step. */
  readonly describing: readonly (Prepared | undefined)[];
  readonly done: Done;
  readonly outcomes: Outcome[];
  /** Steps whose statements the server has prepared, or had. */
  parsed: number;
  /** The server has made a portal of it. */
  begun: boolean;
  error: Error | undefined;
}

/** The state of a connection's transaction: none, open, failed. */
export type TransactionStatus = 'I' | 'T' | 'E';

const DATA_ROW = 0x44;
const COMMAND_COMPLETE = 0x43;
const PORTAL_SUSPENDED = 0x73;
const EMPTY_QUERY = 0x49;
const CLOSE_COMPLETE = 0x33;
const ROW_DESCRIPTION = 0x54;
const NO_DATA = 0x6e;
const PARSE_COMPLETE = 0x31;
const BIND_COMPLETE = 0x32;
const ERROR_RESPONSE = 0x45;
const NOTICE_RESPONSE = 0x4e;
const READY_FOR_QUERY = 0x5a;

/** Where PostgreSQL waits for a standby after a commit; it says so when somebody has ended that wait. */
const SYNC_WAIT = 'SyncRepWaitForLSN';

const NOTHING: Outcome = { count: 0, tag: '' };

const isSame = (a: Types, b: Types): boolean => a.length === b.length && a.every((type, index) => type === b[index]);

/**
 * Statements over a connection that `pg` has opened and authenticated. A group of messages goes out in one piece; rows
 * are handed on where they lie; what a statement's rows are is asked whenever it is prepared. Several groups may be
 * under way.
 */
export class Wire {
  readonly #socket: Socket;
  readonly #prepared = new Set<Prepared>();
  /** Sent and not answered, oldest first. */
  readonly #queue: Exchange[] = [];
  readonly #incoming = new Incoming((type, bytes, start, end) => this.#message(type, bytes, start, end));
  #corked = false;

  /** Bytes that the server has sent. */
  received = 0;

  /** When the server was done with what was before that which it answers next; the clock of `performance.now()`. */
  since = 0;

  /** As the server said last. */
  status: TransactionStatus = 'I';

  /** Errors that say nothing of the server: the statement was to be prepared by something before it that failed. */
  readonly unprepared = new WeakSet<Error>();

  /** Told of an error that nothing that was asked has brought about. */
  onError: ((error: pg.DatabaseError) => void) | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** True while nothing is under way. */
  get idle(): boolean {
    return this.#queue.length === 0;
  }

  /** Whether that is what the server answers next. */
  isNext(done: Done): boolean {
    return this.#queue[0]?.done === done;
  }

  /** Whether this connection has prepared that, and what its rows are is known. */
  knows(prepared: Prepared): boolean {
    return prepared.types !== undefined && this.#prepared.has(prepared);
  }

  /** Runs steps one after the other; if one fails, those after it are not run. */
  run(steps: readonly Step[], done: Done): void {
    const out = new Bytes(512);
    const preparing: (Prepared | undefined)[] = [];
    const describing: (Prepared | undefined)[] = [];
    const sinks = steps.map(({ sink, portal }) => (portal ? firstOf(portal, sink) : sink));
    for (const [index, { prepared, params, portal }] of steps.entries()) {
      const sink = sinks[index]!;
      const { types } = prepared;
      const prepares = prepared.name === '' || !this.#prepared.has(prepared);
      preparing.push(prepares ? prepared : undefined);
      // One that failed after it had been prepared has not told.
      const describes = prepares || types === undefined;
      describing.push(describes ? prepared : undefined);
      if (prepares) {
        out.all(prepared.parse);
        this.#prepared.add(prepared);
      }
      const name = portal ? Buffer.from(`${portal.name}\0`) : NO_PORTAL;
      // What is new to this connection may bring other types by now than it did elsewhere.
      const isNew = prepares && prepared.name !== '';
      bind(out, name, prepared.nameBytes, params, types && !isNew ? sink.wanted(types) : AS_TEXT);
      if (describes) out.all(portal ? describePortal(portal.name) : DESCRIBE);
      else sink.expect(types);
      out.all(portal ? execute(portal.name, portal.rows) : EXECUTE_ALL);
    }
    out.all(SYNC);
    this.#send(out.written(), { steps, sinkAt: (index) => sinks[index], preparing, describing, done, begun: false });
  }

  /**
   * Prepares a statement, and asks what its rows are, before it is run: then all of them come in the forms that cost least,
   * and not only those of the runs after the first.
   */
  learn(prepared: Prepared, done: Done): void {
    const prepares = prepared.name === '' || !this.#prepared.has(prepared);
    this.#prepared.add(prepared);
    this.#send(Buffer.concat([...(prepares ? [prepared.parse] : []), describeStatement(prepared.name), SYNC]), {
      steps: [],
      sinkAt: () => undefined,
      preparing: [prepares ? prepared : undefined],
      describing: [prepared],
      done,
      begun: false,
    });
  }

  /** Brings more rows of a portal. */
  fetch({ name, rows, cells }: Portal, sink: Sink, done: Done): void {
    if (cells) sink.expect(...cells);
    this.#plain([execute(name, rows), SYNC], () => sink, done);
  }

  /** Forgets a portal. */
  close(name: string, done: Done): void {
    this.#plain([closePortal(name), SYNC], () => undefined, done);
  }

  /** Runs a text of one command or several, whose rows come as text. */
  query(text: string, sinkAt: (index: number) => Sink, done: Done): void {
    this.#plain([query(text)], sinkAt, done);
  }

  #plain(messages: readonly Buffer[], sinkAt: Exchange['sinkAt'], done: Done): void {
    this.#send(Buffer.concat(messages), { steps: [], sinkAt, preparing: [], describing: [], done, begun: true });
  }

  /** What is asked within one turn of the event loop goes out together. */
  #send(bytes: Buffer, asked: Omit<Exchange, 'outcomes' | 'parsed' | 'error'>): void {
    this.#queue.push({ ...asked, outcomes: [], parsed: 0, error: undefined });
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      setImmediate(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(bytes);
  }

  /**
   * The connection is gone, and with it whatever was asked. What the server has said of that stands; what rows were found
   * to be does not, since the last of them may be the bytes of something else.
   */
  fail(error: Error): void {
    for (const { error: found, outcomes, begun, done } of this.#queue.splice(0)) {
      done(found instanceof pg.DatabaseError ? found : error, outcomes, begun);
    }
  }

  /** Takes what the server has sent; the bytes are only lent. */
  take(bytes: Buffer): void {
    this.received += bytes.length;
    this.#incoming.take(bytes);
  }

  #message(type: number, bytes: Buffer, start: number, end: number): void {
    const exchange = this.#queue[0];
    switch (type) {
      case DATA_ROW:
        if (exchange?.error === undefined) this.#row(exchange, bytes, start);
        break;
      case COMMAND_COMPLETE:
        exchange?.outcomes.push(readTag(bytes, start, end - 1));
        break;
      case PORTAL_SUSPENDED:
      case EMPTY_QUERY:
      case CLOSE_COMPLETE:
        exchange?.outcomes.push(NOTHING);
        break;
      case ROW_DESCRIPTION:
        if (exchange) this.#describe(exchange, bytes, start);
        break;
      case PARSE_COMPLETE:
        if (exchange) exchange.parsed = exchange.outcomes.length + 1;
        break;
      case BIND_COMPLETE:
        if (exchange) exchange.begun = true;
        break;
      case NO_DATA: {
        const prepared = exchange?.describing[exchange.outcomes.length];
        if (prepared) prepared.types = [];
        break;
      }
      case ERROR_RESPONSE:
        this.#error(exchange, errorOf(bytes, start, end));
        break;
      case NOTICE_RESPONSE:
        if (exchange && errorOf(bytes, start, end).routine === SYNC_WAIT) exchange.error ??= unreplicated();
        break;
      case READY_FOR_QUERY:
        this.status = String.fromCharCode(bytes[start]!) as TransactionStatus;
        this.#queue.shift();
        if (!this.idle) this.since = performance.now();
        exchange?.done(exchange.error, exchange.outcomes, exchange.begun);
        break;
    }
  }

  /** A row that nobody can read spoils what was asked, and nothing else. */
  #row(exchange: Exchange | undefined, bytes: Buffer, start: number): void {
    if (!exchange) return;
    try {
      exchange.sinkAt(exchange.outcomes.length)?.row(bytes, start);
    } catch (error) {
      exchange.error = error as Error;
    }
  }

  #describe(exchange: Exchange, bytes: Buffer, start: number): void {
    const { types, formats } = columnsOf(bytes, start);
    const index = exchange.outcomes.length;
    const prepared = exchange.describing[index];
    if (prepared && !(prepared.types && isSame(prepared.types, types))) prepared.types = types;
    exchange.sinkAt(index)?.expect(prepared?.types ?? types, formats);
  }

  #error(exchange: Exchange | undefined, error: pg.DatabaseError): void {
    if (!exchange) {
      this.onError?.(error);
      return;
    }
    exchange.error ??= error;
    const step = exchange.steps[exchange.outcomes.length];
    if (step && !this.#prepared.has(step.prepared)) this.unprepared.add(error);
    // The statements of the steps that are left out now have not been prepared with them.
    for (const prepared of exchange.preparing.slice(Math.max(exchange.parsed, exchange.outcomes.length))) {
      if (prepared) this.#prepared.delete(prepared);
    }
  }
}
