import {
  DaysSince,
  Decimal,
  Generated,
  type Golden,
  Instant,
  IsoText,
  isMap,
  JsonColumn,
  parseInstant,
} from './values.ts';

/** A message, or a row of a table: named values in field order. */
export class Row {
  readonly fields: ReadonlyMap<string, Actual>;

  constructor(fields: Iterable<readonly [string, Actual]>) {
    this.fields = new Map(fields);
  }

  get values(): Actual[] {
    return [...this.fields.values()];
  }
}

/** Text of an enum value, upper case: its letter case is that of what is stored. */
export class EnumText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What a call answered, in plain values. */
export type Actual =
  | null
  | boolean
  | number
  | bigint
  | string
  | Instant
  | EnumText
  | Row
  | readonly Actual[]
  | { readonly [key: string]: Actual };

/** How two values are compared. */
export interface Comparison {
  /** Instants set by the calls of this case lie in between. */
  readonly from: Instant;
  readonly to: Instant;
  /** Lists are multisets. */
  readonly unordered?: boolean;
  /** Keys that stand for generated ones, `$c1`; each is bound to the first value it meets. */
  readonly labels?: Labels;
  /** How far apart two numbers may be, relative to them; 1e-9 when left out. */
  readonly tolerance?: number;
}

/** Label -> key. */
export class Labels {
  readonly #bound = new Map<string, bigint>();

  /** Key behind a label; undefined for text that is none, or is not bound yet. */
  get(text: string): bigint | undefined {
    return this.#bound.get(text);
  }

  /** Whether a label stands for a key, binding it if neither has been seen. */
  binds(label: string, key: bigint): boolean {
    const bound = this.#bound.get(label);
    if (bound !== undefined) return bound === key;
    const kind = label.slice(0, 2);
    if ([...this.#bound].some(([other, value]) => other.startsWith(kind) && value === key)) return false;
    this.#bound.set(label, key);
    return true;
  }
}

const LABEL = /^\$[a-z]\d+$/;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const DAY = 86_400_000_000n;
const TOLERANCE = 1e-9;
/** Computed in single precision by the original. */
const COARSE: Readonly<Record<string, number>> = { success_rate: 1e-6 };

/** Text of an answer with everything in it: equal texts, equal answers. */
export const wholeText = (value: unknown): string =>
  String(
    JSON.stringify(value, (_key, each) => {
      if (each instanceof Row) return Object.fromEntries(each.fields);
      if (each instanceof Instant) return each.isoText;
      return typeof each === 'bigint' ? String(each) : each === undefined ? 'undefined' : each;
    }),
  );

const show = (value: unknown): string => {
  const text = wholeText(value);
  return text.length > 400 ? `${text.slice(0, 400)}…` : text;
};

const close = (expected: number, actual: number, tolerance: number): boolean =>
  Object.is(expected, actual) ||
  Math.abs(expected - actual) <= tolerance * Math.max(1, Math.abs(expected), Math.abs(actual));

const wholeDays = (since: Instant, now: Instant): bigint => {
  const elapsed = now.micros - since.micros;
  const days = elapsed / DAY;
  return elapsed < 0n && days * DAY !== elapsed ? days - 1n : days;
};

const matchesGenerated = (kind: Generated['kind'], actual: Actual, { from, to }: Comparison): boolean => {
  switch (kind) {
    case 'timestamp': {
      const instant = typeof actual === 'string' ? parseInstant(actual) : actual;
      return instant instanceof Instant && instant.micros >= from.micros && instant.micros <= to.micros;
    }
    case 'uuid':
      return typeof actual === 'string' && UUID.test(actual);
    case 'id':
      return (typeof actual === 'number' || typeof actual === 'bigint') && actual > 0;
    case 'size':
      return typeof actual === 'string' && actual !== '';
  }
};

const leafMatches = (expected: Golden, actual: Actual, comparison: Comparison, tolerance: number): boolean => {
  if (comparison.labels && typeof expected === 'string' && LABEL.test(expected)) {
    return (
      (typeof actual === 'number' || typeof actual === 'bigint') && comparison.labels.binds(expected, BigInt(actual))
    );
  }
  if (expected instanceof Generated) return matchesGenerated(expected.kind, actual, comparison);
  if (expected instanceof DaysSince) {
    const days = BigInt(actual as number | bigint);
    return days >= wholeDays(expected.instant, comparison.from) && days <= wholeDays(expected.instant, comparison.to);
  }
  if (expected instanceof IsoText) {
    return actual instanceof Instant ? actual.micros === expected.instant.micros : actual === expected.instant.isoText;
  }
  if (expected instanceof Instant) return actual instanceof Instant && actual.micros === expected.micros;
  if (expected instanceof Decimal) return actual === expected.text;
  if (actual instanceof Instant)
    return typeof expected === 'string' && parseInstant(expected)?.micros === actual.micros;
  if (actual instanceof EnumText) return typeof expected === 'string' && expected.toUpperCase() === actual.text;
  // A number of a JSON document is a double.
  if (typeof expected === 'bigint' && typeof actual === 'number') return close(Number(expected), actual, tolerance);
  if (typeof actual === 'bigint') {
    return (typeof expected === 'bigint' || Number.isInteger(expected)) && BigInt(expected as number) === actual;
  }
  if (typeof expected === 'number' && typeof actual === 'number') return close(expected, actual, tolerance);
  return expected === actual;
};

/**
 * Says where an answer differs from the golden value: nothing when they agree.
 *
 * A list agrees with a message too, value by value in field order. A message may hold more than the golden map; a JSON
 * object holds exactly the golden keys.
 */
export const mismatches = (expected: Golden, actual: Actual, comparison: Comparison, path = ''): string[] => {
  const here = path || 'the answer';
  const different = [`${here} is ${show(actual)}, expected ${show(expected)}`];
  if (expected instanceof JsonColumn) return mismatches(expected.json, actual, comparison, path);
  if (Array.isArray(expected)) {
    const values = actual instanceof Row ? actual.values : actual;
    if (!Array.isArray(values) || values.length !== expected.length) return different;
    return comparison.unordered && !(actual instanceof Row)
      ? multisetMismatches(expected, values, comparison, path)
      : expected.flatMap((each, index) => mismatches(each, values[index]!, comparison, `${path}[${index}]`));
  }
  if (isMap(expected)) {
    if (actual instanceof Row) {
      return Object.entries(expected).flatMap(([key, each]) => {
        const value = actual.fields.get(key);
        return value === undefined
          ? [`${here} has no field ${key}`]
          : mismatches(each, value, comparison, `${path}.${key}`);
      });
    }
    if (!isMap(actual)) return different;
    const keys = new Set([...Object.keys(expected), ...Object.keys(actual)]);
    const ordered = { ...comparison, unordered: false };
    return [...keys].flatMap((key) =>
      key in expected && key in actual
        ? mismatches(expected[key]!, actual[key] as Actual, ordered, `${path}.${key}`)
        : [`${here}: ${key} is on one side only`],
    );
  }
  if (expected === null) return actual === null ? [] : different;
  const tolerance = COARSE[path.slice(path.lastIndexOf('.') + 1)] ?? comparison.tolerance ?? TOLERANCE;
  return leafMatches(expected, actual, comparison, tolerance) ? [] : different;
};

const multisetMismatches = (
  expected: readonly Golden[],
  actual: readonly Actual[],
  comparison: Comparison,
  path: string,
): string[] => {
  // What a list holds is compared in order: only the list of answers has none.
  const ordered = { ...comparison, unordered: false };
  const left = [...actual];
  return expected.flatMap((each, index) => {
    const found = left.findIndex((candidate) => mismatches(each, candidate, ordered).length === 0);
    if (found < 0) return [`${path}[${index}] ${show(each)} is not among ${show(left)}`];
    left.splice(found, 1);
    return [];
  });
};
