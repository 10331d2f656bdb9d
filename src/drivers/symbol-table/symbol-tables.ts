import { randomBytes } from 'node:crypto';
import { Room, SymbolTable } from './symbols.ts';

/** Why a handle is refused. */
export type HandleReason = 'TABLE_UNKNOWN' | 'TABLE_NOT_YOURS' | 'TABLE_LIMIT';

/** A refused handle. */
export class HandleError extends Error {
  readonly reason: HandleReason;

  constructor(reason: HandleReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

interface Entry<V> {
  readonly caller: string;
  readonly table: SymbolTable<V>;
  readonly idleLeaseMs: number;
  readonly timer: NodeJS.Timeout;
}

const MAX_TABLES = 1_000;
/** Bytes of all tables. */
const MAX_BYTES = 128 * 1024 * 1024;

/** The symbol tables of this process, behind unguessable handles that are bound to their caller and leased. */
export class SymbolTables<V = unknown> {
  readonly #entries = new Map<string, Entry<V>>();
  readonly #room = new Room(MAX_BYTES);

  /** Makes a table; it is dropped when it is not used for its lease. */
  create(caller: string, idleLeaseMs: number): string {
    if (this.#entries.size >= MAX_TABLES)
      throw new HandleError('TABLE_LIMIT', `there are ${MAX_TABLES} tables already`);
    const handle = randomBytes(16).toString('base64url');
    const timer = setTimeout(() => this.#remove(handle), idleLeaseMs).unref();
    this.#entries.set(handle, { caller, table: new SymbolTable(this.#room), idleLeaseMs, timer });
    return handle;
  }

  /** The caller's table; renews its lease. */
  find(handle: string, caller: string): SymbolTable<V> {
    const { table, timer } = this.#own(handle, caller);
    timer.refresh();
    return table;
  }

  drop(handle: string, caller: string): void {
    clearTimeout(this.#own(handle, caller).timer);
    this.#remove(handle);
  }

  #remove(handle: string): void {
    this.#entries.get(handle)?.table.close();
    this.#entries.delete(handle);
  }

  #own(handle: string, caller: string): Entry<V> {
    const entry = this.#entries.get(handle);
    if (!entry) throw new HandleError('TABLE_UNKNOWN', 'there is no such table, or its lease ran out');
    if (entry.caller !== caller) throw new HandleError('TABLE_NOT_YOURS', 'the table belongs to another caller');
    return entry;
  }
}
