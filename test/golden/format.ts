import { readFileSync } from 'node:fs';
import type { Fixture, Rows } from './tables.ts';
import type { Json } from './values.ts';

/** How a call failed in the original. */
export interface GoldenError {
  /** Of the database, or of the client library that refused an argument. */
  readonly sqlstate?: string;
  /** Constraint that refused the row. */
  readonly constraint?: string;
  /** Class of a failure outside the database. */
  readonly exception?: string;
  readonly client_side?: boolean;
}

/** A driver call, and what it answered or how it failed. */
export interface Call {
  readonly method: string;
  readonly service_driver?: string;
  readonly args?: { readonly [name: string]: Json };
  readonly result?: Json;
  readonly error?: GoldenError;
  /** The list has no defined order. */
  readonly unordered?: boolean;
}

/** Calls of one transaction. */
export interface TransactionStep {
  readonly transaction: readonly Call[];
  readonly outcome: 'committed' | 'rolled back';
}

/** Plain work on a table's content: the test's own, not a driver's. */
export type TableStep =
  | {
      readonly op: 'dump';
      readonly table: string;
      readonly columns?: readonly string[];
      readonly where?: Rows[number];
      readonly result: Json;
    }
  | { readonly op: 'set'; readonly table: string; readonly values: Rows[number]; readonly where?: Rows[number] }
  | { readonly op: 'insert'; readonly table: string; readonly rows: Rows }
  | { readonly op: 'clear'; readonly table: string };

export type Step = Call | TransactionStep | TableStep;

/** One case: a single call, or a sequence of steps. */
export type DatabaseCase = { readonly id: string; readonly service_driver: string; readonly note?: string } & (
  | Call
  | { readonly sequence: readonly Step[] }
);

interface DatabaseFile {
  readonly fixture: Fixture;
  readonly cases: readonly DatabaseCase[];
}

const here = (name: string): URL => new URL(name, import.meta.url);

const TEXT_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/gs;
const FLOATS: ReadonlyMap<string, string> = new Map([
  ['NaN', 'nan'],
  ['Infinity', 'inf'],
  ['-Infinity', '-inf'],
]);

/** The `$float` form of a number that Python writes and JSON does not have. */
const floatForm = (token: string): string => (FLOATS.has(token) ? `{"$float":"${FLOATS.get(token)}"}` : token);

/** A golden file: the one the variable names, else the copy beside this module. */
export const readGolden = <T>(variable: string, name: string, reviver?: (key: string, value: Json) => unknown): T => {
  const text = readFileSync(process.env[variable] || here(name), 'utf8');
  return JSON.parse(text.replace(TEXT_OR_NUMBER, floatForm), reviver) as T;
};

/** The database cases and their fixture. */
export const databaseFile = (): DatabaseFile => readGolden('GOLDEN_DATABASE_FILE', 'database.json');

/** Steps of a case; a case without a sequence is one call. */
export const stepsOf = (golden: DatabaseCase): readonly Step[] => ('sequence' in golden ? golden.sequence : [golden]);

/** A row of the inventory: which RPC a driver method becomes. */
export interface InventoryRow {
  readonly driver: string;
  readonly class: string;
  readonly method: string;
  /** `Service/Rpc`, `Service/*`, or null when the service has no use for the method. */
  readonly rpc: string | null;
  readonly kind?: 'read' | 'write' | 'compute';
  readonly via?: string;
}

/** Every public method of the original drivers. */
export const inventory = (): readonly InventoryRow[] =>
  JSON.parse(readFileSync(here('inventory.json'), 'utf8')) as InventoryRow[];

/** A computed case: one operation, its input and what came out. */
export interface ComputedCase {
  readonly driver: string;
  readonly operation: string;
  readonly name: string;
  readonly input: Json;
  readonly output: Json;
  /** Parts of the output that have no defined order; they are stored sorted. */
  readonly unordered?: readonly string[];
  /** Every outcome seen, where the original is not deterministic; `output` is the one to prefer. */
  readonly output_any_of?: readonly Json[];
  readonly note?: string;
  /** For an arbitration, the hashed text. */
  readonly debug?: { readonly snapshot_json?: string };
}

/** A number in its `$float` form, where no reader of its own knows the form. */
const floatOf = (_key: string, value: Json): unknown => {
  const form = typeof value === 'object' && value !== null && !Array.isArray(value) ? value['$float'] : undefined;
  return form === undefined ? value : Number(String(form).replace('inf', 'Infinity'));
};

/** The computed cases. */
export const resolverCases = (): readonly ComputedCase[] => readGolden('GOLDEN_FILE', 'resolvers.json', floatOf);
