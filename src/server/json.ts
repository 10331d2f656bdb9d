import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { type FieldViolation, invalidArgument } from '../contract/errors.ts';
import { decimalOf } from '../database/decimal.ts';
import { MAX_ELEMENTS, tooManyElements } from './elements.ts';

/** What is expected at a place of a JSON text. */
type Expected =
  | { readonly kind: 'message'; readonly desc: DescMessage }
  | { readonly kind: 'scalar'; readonly scalar: ScalarType }
  | { readonly kind: 'enum'; readonly desc: DescEnum }
  /** A document: anything, and numbers in it are doubles. */
  | { readonly kind: 'document' }
  /** Not known to the contract, or of a wrong form: the reader of messages refuses it. */
  | { readonly kind: 'none' };

const NONE: Expected = { kind: 'none' };
const DOCUMENT: Expected = { kind: 'document' };
const DOCUMENTS = new Set(['google.protobuf.Value', 'google.protobuf.Struct', 'google.protobuf.ListValue']);

/** Levels after which the reader of messages refuses, too. */
const MAX_DEPTH = 200;

const singular = (field: DescField): Expected => {
  if (field.message) {
    return DOCUMENTS.has(field.message.typeName) ? DOCUMENT : { kind: 'message', desc: field.message };
  }
  if (field.enum) return { kind: 'enum', desc: field.enum };
  return field.scalar === undefined ? NONE : { kind: 'scalar', scalar: field.scalar };
};

interface Known {
  readonly field: DescField;
  readonly expected: Expected;
}

const keys = new WeakMap<DescMessage, Map<string, Known>>();

const keysOf = (desc: DescMessage): Map<string, Known> => {
  let known = keys.get(desc);
  if (!known) {
    known = new Map();
    for (const field of desc.fields) {
      const entry = { field, expected: singular(field) };
      known.set(field.name, entry).set(field.jsonName, entry);
    }
    keys.set(desc, known);
  }
  return known;
};

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WHOLE = /^-?(?:0|[1-9]\d*)$/;
const ANY_NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const SPECIAL = new Set(['NaN', 'Infinity', '-Infinity']);
/** Digits before the point beyond which no integer type goes, whatever the exponent says. */
const MAX_DIGITS = 40;

/** The integer that a number literal is, exactly; undefined when it is none. */
const integerOf = (literal: string): bigint | undefined => {
  const { sign, digits, power } = decimalOf(literal);
  if (digits === '') return 0n;
  if (power < 0 || digits.length + power > MAX_DIGITS) return undefined;
  return BigInt(`${sign}${digits}${'0'.repeat(power)}`);
};

const RANGES: Readonly<Partial<Record<ScalarType, readonly [bigint, bigint]>>> = {
  [ScalarType.INT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SINT32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.SFIXED32]: [-(2n ** 31n), 2n ** 31n - 1n],
  [ScalarType.UINT32]: [0n, 2n ** 32n - 1n],
  [ScalarType.FIXED32]: [0n, 2n ** 32n - 1n],
  [ScalarType.INT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SINT64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.SFIXED64]: [-(2n ** 63n), 2n ** 63n - 1n],
  [ScalarType.UINT64]: [0n, 2n ** 64n - 1n],
  [ScalarType.FIXED64]: [0n, 2n ** 64n - 1n],
};

const INSTANT = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:Z|[+-](\d\d):(\d\d))$/;
const SPAN = /^-?\d{1,12}(?:\.\d{1,9})?s$/;
const BASE64 = /^[\w+/-]*={0,2}$/;
const MASK = /^(?:\*|[a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)*(?:,[a-z][A-Za-z0-9]*(?:\.[a-z][A-Za-z0-9]*)*)*)?$/;

const daysIn = (year: number, month: number): number => new Date(Date.UTC(2000 + (year % 400), month, 0)).getUTCDate();

const instantProblem = (text: string): string | undefined => {
  const found = INSTANT.exec(text);
  if (!found) return 'must be an RFC 3339 instant such as 2026-01-31T23:59:59.5Z';
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0, offsetHour = 0, offsetMinute = 0] = found
    .slice(1)
    .map((part) => Number(part ?? 0));
  if (month < 1 || month > 12 || day < 1 || day > daysIn(year, month)) return 'names a day that does not exist';
  if (hour > 23 || minute > 59 || second > 59) return 'names a time of day that does not exist';
  return offsetHour > 23 || offsetMinute > 59 ? 'names an offset that does not exist' : undefined;
};

const messageProblem = (typeName: string, text: string): string | undefined => {
  switch (typeName) {
    case 'google.protobuf.Timestamp':
      return instantProblem(text);
    case 'google.protobuf.Duration':
      return SPAN.test(text) ? undefined : 'must be seconds such as "1.5s", to the nanosecond';
    case 'google.protobuf.FieldMask':
      return MASK.test(text) ? undefined : 'must be names in lowerCamelCase, separated by commas, or *';
    default:
      return undefined;
  }
};

const doubleProblem = (literal: string): string | undefined => {
  const value = Number(literal);
  if (!Number.isFinite(value)) return 'is beyond the range of a double';
  // A fraction is the nearest double for every reader of JSON; a whole number is expected to stay what it is.
  return WHOLE.test(literal) && BigInt(literal) !== BigInt(value)
    ? 'is a whole number that no double holds exactly'
    : undefined;
};

/**
 * Holds a JSON text against the rules of ProtoJSON where the reader of messages would change a value in silence. It says
 * nothing of what that reader refuses by itself: syntax, unknown and duplicate keys, wrong types.
 *
 * @returns the text for that reader: integers that it would not take, or not exactly, are written as it takes them.
 * @throws INVALID_ARGUMENT naming every offending field; RESOURCE_EXHAUSTED when it holds too many values.
 */
export const strictJson = (desc: DescMessage, text: string): string => {
  const problems: FieldViolation[] = [];
  const pieces: string[] = [];
  let copied = 0;
  let at = 0;
  let left = MAX_ELEMENTS;

  const problem = (path: string, description: string | undefined): void => {
    if (description !== undefined) problems.push({ field: path || 'request', description });
  };

  /** Thrown where the text is no JSON: its reader says what is wrong. */
  const broken = new Error('no JSON');

  const blanks = (): void => {
    for (;;) {
      const code = text.charCodeAt(at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      at += 1;
    }
  };

  const string = (): string => {
    const start = at;
    let end = start;
    do {
      end = text.indexOf('"', end + 1);
      if (end === -1) throw broken;
    } while (isEscaped(start, end));
    at = end + 1;
    const raw = text.slice(start, at);
    if (!raw.includes('\\')) return raw.slice(1, -1);
    try {
      return JSON.parse(raw) as string;
    } catch {
      throw broken;
    }
  };

  const isEscaped = (start: number, end: number): boolean => {
    let slashes = 0;
    while (end - slashes - 1 > start && text[end - slashes - 1] === '\\') slashes += 1;
    return slashes % 2 === 1;
  };

  /** Writes the integer that stands from there to here as that reader takes any. */
  const quote = (start: number, literal: string): void => {
    pieces.push(text.slice(copied, start), `"${integerOf(literal)}"`);
    copied = at;
  };

  const onString = (expected: Expected, path: string, value: string, start: number): void => {
    if (!value.isWellFormed()) problem(path, 'holds half of a surrogate pair');
    else if (expected.kind === 'message') problem(path, messageProblem(expected.desc.typeName, value));
    else if (expected.kind === 'scalar') {
      const wrong = textProblem(expected.scalar, value);
      problem(path, wrong);
      if (wrong === undefined && RANGES[expected.scalar] && !WHOLE.test(value)) quote(start, value);
    }
  };

  const textProblem = (scalar: ScalarType, value: string): string | undefined => {
    if (scalar === ScalarType.DOUBLE || scalar === ScalarType.FLOAT) {
      if (SPECIAL.has(value)) return undefined;
      return ANY_NUMBER.test(value) ? doubleProblem(value) : 'must be a number';
    }
    if (scalar === ScalarType.BYTES) return BASE64.test(value) ? undefined : 'must be base64';
    const range = RANGES[scalar];
    return range ? integerProblem(range, value, ANY_NUMBER.test(value)) : undefined;
  };

  const integerProblem = (range: readonly [bigint, bigint], literal: string, isNumber: boolean): string | undefined => {
    const value = isNumber ? integerOf(literal) : undefined;
    return value !== undefined && value >= range[0] && value <= range[1]
      ? undefined
      : `must be a whole number from ${range[0]} to ${range[1]}`;
  };

  const onNumber = (expected: Expected, path: string, literal: string, start: number): void => {
    if (expected.kind === 'document') {
      problem(path, doubleProblem(literal));
    } else if (expected.kind === 'enum') {
      problem(path, integerProblem(RANGES[ScalarType.INT32]!, literal, true));
    } else if (expected.kind === 'scalar') {
      const range = RANGES[expected.scalar];
      if (!range) {
        if (expected.scalar === ScalarType.DOUBLE || expected.scalar === ScalarType.FLOAT) {
          problem(path, doubleProblem(literal));
        }
        return;
      }
      const wrong = integerProblem(range, literal, true);
      problem(path, wrong);
      if (wrong === undefined && !Number.isSafeInteger(Number(literal))) quote(start, literal);
    }
  };

  const object = (expected: Expected, path: string, depth: number, mapOf: Expected | undefined): void => {
    at += 1;
    blanks();
    if (text[at] === '}') {
      at += 1;
      return;
    }
    for (;;) {
      if (text[at] !== '"') throw broken;
      const key = string();
      if (!key.isWellFormed()) problem(path, 'has a key that holds half of a surrogate pair');
      blanks();
      if (text[at] !== ':') throw broken;
      at += 1;
      if (mapOf) {
        value(mapOf, path, depth);
      } else if (expected.kind === 'message') {
        const known = keysOf(expected.desc).get(key);
        const name = known ? (path ? `${path}.${known.field.name}` : known.field.name) : path;
        value(known?.expected ?? NONE, name, depth, known?.field);
      } else {
        value(expected.kind === 'document' ? DOCUMENT : NONE, path, depth);
      }
      blanks();
      if (text[at] === '}') break;
      if (text[at] !== ',') throw broken;
      at += 1;
      blanks();
    }
    at += 1;
  };

  const array = (element: Expected, path: string, depth: number, numbered: boolean): void => {
    at += 1;
    blanks();
    if (text[at] === ']') {
      at += 1;
      return;
    }
    for (let index = 0; ; index += 1) {
      value(element, numbered ? `${path}[${index}]` : path, depth);
      blanks();
      if (text[at] === ']') break;
      if (text[at] !== ',') throw broken;
      at += 1;
    }
    at += 1;
  };

  const value = (expected: Expected, path: string, depth: number, field?: DescField): void => {
    left -= 1;
    if (left < 0) throw tooManyElements();
    if (depth > MAX_DEPTH) throw broken;
    blanks();
    const start = at;
    switch (text[at]) {
      case '"':
        onString(field && field.fieldKind !== 'message' && isPlural(field) ? NONE : expected, path, string(), start);
        return;
      case '{':
        if (field?.fieldKind === 'map') object(NONE, path, depth + 1, expected);
        else object(field?.fieldKind === 'list' ? NONE : expected, path, depth + 1, undefined);
        return;
      case '[':
        if (field?.fieldKind === 'list') array(expected, path, depth + 1, true);
        else array(expected.kind === 'document' ? DOCUMENT : NONE, path, depth + 1, false);
        return;
      case 't':
      case 'n':
        at += 4;
        return;
      case 'f':
        at += 5;
        return;
      default: {
        NUMBER.lastIndex = at;
        const literal = NUMBER.exec(text)?.[0];
        if (literal === undefined) throw broken;
        at += literal.length;
        onNumber(field && isPlural(field) ? NONE : expected, path, literal, start);
      }
    }
  };

  try {
    value({ kind: 'message', desc }, '', 0);
  } catch (error) {
    if (error !== broken) throw error;
    // What was found before that place is not told: the text as a whole is malformed.
    return text;
  }
  if (problems.length > 0) throw invalidArgument(problems);
  return copied === 0 ? text : pieces.join('') + text.slice(copied);
};

const isPlural = ({ fieldKind }: DescField): boolean => fieldKind === 'list' || fieldKind === 'map';
