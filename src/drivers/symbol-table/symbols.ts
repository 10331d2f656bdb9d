import { CATEGORIES, type Category } from '../conflict-resolver/grammar.ts';

export const SYMBOL_TYPES = ['POLICY', 'RULE', 'VARIABLE', 'PARAMETER', 'FUNCTION', 'CONSTANT', 'IMPORT'] as const;
export type SymbolType = (typeof SYMBOL_TYPES)[number];

/** A symbol; `V` is the caller's form of a value. */
export interface PolicySymbol<V = unknown> {
  readonly name: string;
  readonly symbolType: SymbolType;
  readonly category: Category | undefined;
  readonly priority: number;
  readonly valueType: string | undefined;
  readonly value: V | undefined;
  readonly definedAt: string | undefined;
  readonly referencedBy: string[];
  readonly requiresApproval: boolean;
  readonly auditLevel: number;
}

/** What a table refuses. */
export type SymbolTableReason = 'SYMBOL_DEFINED' | 'GLOBAL_SCOPE' | 'SYMBOL_LIMIT' | 'SCOPE_LIMIT' | 'SIZE_LIMIT';

/** A refused operation; the table is as it was. */
export class SymbolTableError extends Error {
  readonly reason: SymbolTableReason;

  constructor(reason: SymbolTableReason, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** Bytes that what is kept may take, inside the room of all tables if there is one. */
export class Room {
  readonly #bytes: number;
  readonly #around: Room | undefined;
  #taken = 0;

  constructor(bytes: number, around?: Room) {
    this.#bytes = bytes;
    this.#around = around;
  }

  take(bytes: number): void {
    if (this.#taken + bytes > this.#bytes) {
      throw new SymbolTableError('SIZE_LIMIT', `there is no room for ${bytes} more bytes within ${this.#bytes}`);
    }
    this.#around?.take(bytes);
    this.#taken += bytes;
  }

  give(bytes: number): void {
    this.#around?.give(bytes);
    this.#taken -= bytes;
  }

  /** Gives everything back that was taken. */
  leave(): void {
    this.give(this.#taken);
  }
}

/** A scope with its own symbols. */
export class Scope<V = unknown> {
  readonly name: string;
  readonly parent: Scope<V> | undefined;
  readonly category: Category | undefined;
  readonly symbols = new Map<string, PolicySymbol<V>>();

  constructor(name: string, parent: Scope<V> | undefined, category: Category | undefined) {
    this.name = name;
    this.parent = parent;
    this.category = category;
  }

  /** This scope, then those around it. */
  *outwards(): Generator<Scope<V>> {
    for (let scope: Scope<V> | undefined = this; scope; scope = scope.parent) yield scope;
  }

  /** @param room told the bytes that the symbol takes before it is there. */
  define(symbol: PolicySymbol<V>, room: () => void): void {
    if (this.symbols.has(symbol.name)) {
      throw new SymbolTableError('SYMBOL_DEFINED', `Symbol '${symbol.name}' already defined in scope '${this.name}'`);
    }
    room();
    this.symbols.set(symbol.name, symbol);
  }

  lookup(name: string, localOnly = false): PolicySymbol<V> | undefined {
    for (const scope of this.outwards()) {
      const symbol = scope.symbols.get(name);
      if (symbol || localOnly) return symbol;
    }
    return undefined;
  }

  /** Innermost first; hidden symbols too. */
  lookupByCategory(category: Category): PolicySymbol<V>[] {
    return [...this.outwards()].flatMap((scope) =>
      [...scope.symbols.values()].filter((symbol) => symbol.category === category),
    );
  }

  /** In the order of the outermost scope, an inner symbol in the place of the one it hides. */
  allSymbols(): PolicySymbol<V>[] {
    const visible = new Map<string, PolicySymbol<V>>();
    for (const scope of [...this.outwards()].reverse()) {
      for (const [name, symbol] of scope.symbols) visible.set(name, symbol);
    }
    return [...visible.values()];
  }
}

const BUILTINS: readonly (readonly [SymbolType, readonly string[]])[] = [
  ['FUNCTION', ['contains', 'startswith', 'endswith', 'len', 'lower', 'upper', 'matches', 'in_list', 'is_empty']],
  ['VARIABLE', ['ctx', 'agent', 'user', 'request', 'budget']],
];

const BUILTIN = 'builtin';

const MAX_SYMBOLS = 100_000;
const MAX_DEPTH = 1_000;
/** Bytes of one table. */
const MAX_BYTES = 32 * 1024 * 1024;
/** Bytes that each takes in memory besides its texts and values. */
const SYMBOL_BYTES = 256;
const REFERENCE_BYTES = 32;
const SCOPE_BYTES = 256;

const shown = ({ name, symbolType, category }: PolicySymbol): string =>
  `Symbol(${name}, ${symbolType}${category ? `[${category}]` : ''})`;

/** Nested scopes with the current one innermost, and an index of symbols by category that outlives its scopes. */
export class SymbolTable<V = unknown> {
  readonly #global = new Scope<V>('global', undefined, undefined);
  readonly #open: Scope<V>[] = [this.#global];
  readonly #index = new Map<Category, PolicySymbol<V>[]>(CATEGORIES.map((category) => [category, []]));
  readonly #room: Room;
  #size = 0;

  /** @param around the room of all tables; left out for a table of its own. */
  constructor(around?: Room) {
    this.#room = new Room(MAX_BYTES, around);
    for (const [symbolType, names] of BUILTINS) {
      for (const name of names) {
        this.define(
          {
            name,
            symbolType,
            category: undefined,
            priority: 50,
            valueType: undefined,
            value: undefined,
            definedAt: BUILTIN,
            referencedBy: [],
            requiresApproval: false,
            auditLevel: 0,
          },
          { scopeOnly: true },
        );
      }
    }
  }

  /** Symbols ever defined, builtins included. */
  get size(): number {
    return this.#size;
  }

  /** Open scopes, the global one first. */
  get openScopes(): readonly Scope<V>[] {
    return this.#open;
  }

  get current(): Scope<V> {
    return this.#open.at(-1)!;
  }

  enterScope(name: string, category: Category | undefined): Scope<V> {
    if (this.#open.length >= MAX_DEPTH) {
      throw new SymbolTableError('SCOPE_LIMIT', `scopes are at most ${MAX_DEPTH} deep`);
    }
    this.#room.take(SCOPE_BYTES + name.length);
    const scope = new Scope(name, this.current, category ?? this.current.category);
    this.#open.push(scope);
    return scope;
  }

  exitScope(): Scope<V> {
    if (this.#open.length === 1) throw new SymbolTableError('GLOBAL_SCOPE', 'Cannot exit global scope');
    const scope = this.#open.pop()!;
    this.#room.give(SCOPE_BYTES + scope.name.length);
    return scope;
  }

  /** `scopeOnly` leaves the symbol out of the index by category; `bytes` is what its texts and its value take. */
  define(symbol: PolicySymbol<V>, { scopeOnly = false, bytes = 0 } = {}): void {
    if (this.#size >= MAX_SYMBOLS) {
      throw new SymbolTableError('SYMBOL_LIMIT', `a table holds at most ${MAX_SYMBOLS} symbols`);
    }
    this.current.define(symbol, () => this.#room.take(SYMBOL_BYTES + bytes));
    this.#size += 1;
    if (symbol.category && !scopeOnly) this.#index.get(symbol.category)!.push(symbol);
  }

  lookupPolicy(name: string): PolicySymbol<V> | undefined {
    const symbol = this.#global.lookup(name);
    return symbol?.symbolType === 'POLICY' ? symbol : undefined;
  }

  lookupRule(name: string, policy: string | undefined): PolicySymbol<V> | undefined {
    const visible = this.current.lookup(name);
    if (visible?.symbolType === 'RULE') return visible;
    if (!policy || !this.lookupPolicy(policy)) return undefined;
    for (const scope of this.#open) {
      const symbol = scope.name === policy ? scope.lookup(name, true) : undefined;
      if (symbol?.symbolType === 'RULE') return symbol;
    }
    return undefined;
  }

  /** Highest priority first, then as defined. */
  symbolsByCategory(category: Category, symbolType: SymbolType | undefined): PolicySymbol<V>[] {
    return this.#index
      .get(category)!
      .filter((symbol) => symbolType === undefined || symbol.symbolType === symbolType)
      .sort((a, b) => b.priority - a.priority);
  }

  policies(): PolicySymbol<V>[] {
    return [...this.#global.symbols.values()].filter(({ symbolType }) => symbolType === 'POLICY');
  }

  rules(): PolicySymbol<V>[] {
    return [...this.#index.values()].flat().filter(({ symbolType }) => symbolType === 'RULE');
  }

  /** @returns false when there is no such symbol. */
  addReference(name: string, from: string): boolean {
    const symbol = this.current.lookup(name);
    if (!symbol) return false;
    this.#room.take(REFERENCE_BYTES + from.length);
    symbol.referencedBy.push(from);
    return true;
  }

  /** Gives its room back; it is not used any more. */
  close(): void {
    this.#room.leave();
  }

  /** Of the open scopes only. */
  unreferenced(): PolicySymbol<V>[] {
    return this.#open.flatMap((scope) =>
      [...scope.symbols.values()].filter(
        ({ referencedBy, definedAt }) => referencedBy.length === 0 && definedAt !== BUILTIN,
      ),
    );
  }

  toString(): string {
    return [
      'SymbolTable:',
      ...this.#open.flatMap((scope) => [
        `  Scope '${scope.name}':`,
        ...[...scope.symbols.values()].map((symbol) => `    ${shown(symbol)}`),
      ]),
    ].join('\n');
  }
}
