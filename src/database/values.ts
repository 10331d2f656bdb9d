import type { Struct, Timestamp, Value } from '@bufbuild/protobuf/wkt';
import { decimalOf } from './decimal.ts';

/** How a stored value that its field cannot hold was carried: the words of the trailer `inexact-values`. */
export type How =
  /** An instant before the year 1: 0001-01-01T00:00:00Z. */
  | 'earliest'
  /** An instant after the year 9999: 9999-12-31T23:59:59.999999Z. */
  | 'latest'
  /** A NULL among texts: an empty text. */
  | 'null-as-empty'
  /** A list of lists: its elements one after the other. */
  | 'flattened'
  /** A text that the enum has no value for: its UNSPECIFIED. */
  | 'unspecified'
  /** A number that is no whole one of the field's size: the nearest that is, 0 for NaN. */
  | 'nearest'
  /** A document that is nested too deep to be read: its JSON text. */
  | 'as-text';

/** Is told that a value was not carried exactly. */
export type Note = (how: How) => void;

const ZERO = 48;

/** Number that the digits from one place of a text to another make. */
const digits = (text: string, from: number, to: number): number => {
  let number = 0;
  for (let at = from; at < to; at += 1) number = number * 10 + text.charCodeAt(at) - ZERO;
  return number;
};

/** Days from 1970-01-01 to a day of the Gregorian calendar; years are counted from March, so that leap days come last. */
const daysSinceEpoch = (year: number, month: number, day: number): number => {
  const years = month > 2 ? year : year - 1;
  const days = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1;
  return years * 365 + Math.floor(years / 4) - Math.floor(years / 100) + Math.floor(years / 400) + days - 719_468;
};

/** `2026-11-23 14:11:26.24501+00`: where the parts of an instant stand, if its year has four digits. */
const FRACTION_AT = 20;

/**
 * PostgreSQL's text of a `timestamptz` in a UTC session -> Timestamp, exact to the microsecond; undefined for an instant
 * outside the years 1 to 9999.
 */
export const timestampFromText = (text: string): Timestamp | undefined => {
  const end = text.length - '+00'.length;
  if (text[4] !== '-' || !text.endsWith('+00')) return undefined;
  const days = daysSinceEpoch(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10));
  const seconds = days * 86_400 + digits(text, 11, 13) * 3_600 + digits(text, 14, 16) * 60 + digits(text, 17, 19);
  const nanos = end > FRACTION_AT ? digits(text, FRACTION_AT, end) * 10 ** (FRACTION_AT + 9 - end) : 0;
  return { $typeName: 'google.protobuf.Timestamp', seconds: BigInt(seconds), nanos };
};

const FIRST_SECOND = -62_135_596_800n;
const LAST_SECOND = 253_402_300_799n;

/** As {@link timestampFromText}; outside the years 1 to 9999, the nearest instant within. */
export const nearestTimestamp = (text: string, note: Note): Timestamp => {
  const $typeName = 'google.protobuf.Timestamp';
  if (text === '-infinity' || text.endsWith('+00 BC')) {
    note('earliest');
    return { $typeName, seconds: FIRST_SECOND, nanos: 0 };
  }
  if (text === 'infinity' || /^\d{5,}-.*\+00$/.test(text)) {
    note('latest');
    return { $typeName, seconds: LAST_SECOND, nanos: 999_999_000 };
  }
  throw new Error('an instant that is not in UTC');
};

/** Timestamp -> text that PostgreSQL reads; digits below a microsecond are dropped. */
export const timestampToText = (instant: Timestamp): string => {
  const whole = new Date(Number(instant.seconds) * 1000).toISOString().slice(0, 19);
  const micros = String(Math.floor(instant.nanos / 1000)).padStart(6, '0');
  return `${whole}.${micros}+00`;
};

/** Seconds from 0001-01-01 to the end of 9999, the range of a Timestamp. */
export const isTimestampInRange = (instant: Timestamp): boolean =>
  instant.seconds >= FIRST_SECOND &&
  instant.seconds <= LAST_SECOND &&
  instant.nanos >= 0 &&
  instant.nanos <= 999_999_999;

/** More digits than any double holds, with a point among them or none; or an exponent. */
const MAYBE_INEXACT = /(?:\d\.?){16}|\d[eE]/;

/** The same text for the same number. */
const canonicalDecimal = (text: string): string => {
  const { sign, digits, power } = decimalOf(text);
  return digits === '' ? '0' : `${sign}${digits}e${power}`;
};

const isExact = (source: string): boolean => {
  const double = Number(source);
  return Number.isFinite(double) && canonicalDecimal(String(double)) === canonicalDecimal(source);
};

const exactNumbers = (_key: string, value: unknown, context?: { source?: string }): unknown =>
  typeof value === 'number' && context?.source !== undefined && !isExact(context.source) ? context.source : value;

/**
 * Stored JSON text -> JavaScript value. A number that a double cannot hold arrives as its decimal text, the way
 * protobuf's own JSON form writes 64-bit integers: digits are worth more than the type.
 */
export const parseJson = (text: string): unknown =>
  MAYBE_INEXACT.test(text) ? JSON.parse(text, exactNumbers) : JSON.parse(text);

/**
 * Levels of lists and objects that a document may have. A level of an object is three messages to a reader that counts
 * the entry of a map, too, and readers give up at a hundred, those around the document included.
 */
export const MAX_LEVELS = 30;

/** JavaScript JSON value -> `google.protobuf.Value`. What is nested deeper than the levels becomes its JSON text. */
export const jsonToValue = (json: unknown, levels = MAX_LEVELS): Value => {
  const $typeName = 'google.protobuf.Value';
  switch (typeof json) {
    case 'string':
      return { $typeName, kind: { case: 'stringValue', value: json } };
    case 'number':
      return { $typeName, kind: { case: 'numberValue', value: json } };
    case 'boolean':
      return { $typeName, kind: { case: 'boolValue', value: json } };
    default:
      if (json === null || json === undefined) return { $typeName, kind: { case: 'nullValue', value: 0 } };
      if (levels === 0) return { $typeName, kind: { case: 'stringValue', value: JSON.stringify(json) } };
      if (Array.isArray(json)) {
        const values = json.map((element) => jsonToValue(element, levels - 1));
        return { $typeName, kind: { case: 'listValue', value: { $typeName: 'google.protobuf.ListValue', values } } };
      }
      return { $typeName, kind: { case: 'structValue', value: jsonToStruct(json, levels - 1) } };
  }
};

const jsonToStruct = (json: object, levels: number): Struct => {
  const fields: Record<string, Value> = {};
  for (const [key, element] of Object.entries(json)) {
    // Assigning to `__proto__` would set the prototype instead of a member.
    if (key === '__proto__')
      Object.defineProperty(fields, key, { value: jsonToValue(element, levels), enumerable: true });
    else fields[key] = jsonToValue(element, levels);
  }
  return { $typeName: 'google.protobuf.Struct', fields };
};

/** `google.protobuf.Value` -> JavaScript JSON value. An empty Value reads as null. */
export const valueToJson = (value: Value): unknown => {
  switch (value.kind.case) {
    case 'listValue':
      return value.kind.value.values.map(valueToJson);
    case 'structValue': {
      const json: Record<string, unknown> = Object.create(null);
      for (const [key, element] of Object.entries(value.kind.value.fields)) json[key] = valueToJson(element);
      return json;
    }
    case 'nullValue':
    case undefined:
      return null;
    default:
      return value.kind.value;
  }
};

/** What a document's own text is, beside what it holds. */
const TEXT = Symbol('JSON text');

/** A string. */
export const textValue = (text: string): Value => ({
  $typeName: 'google.protobuf.Value',
  kind: { case: 'stringValue', value: text },
});

/** JSON text -> `google.protobuf.Value` that keeps it; undefined for what is none. */
export const documentOfText = (text: string, levels = MAX_LEVELS): Value | undefined => {
  try {
    return Object.assign(jsonToValue(parseJson(text), levels), { [TEXT]: text });
  } catch {
    return undefined;
  }
};

/** A stored document with its text, also where that is nested too deep to be read. */
export const storedText = (text: string): Value =>
  documentOfText(text) ?? Object.assign(textValue(text), { [TEXT]: text });

/** `google.protobuf.Value` -> JSON text for a `jsonb` parameter; null for an unset field, which is SQL NULL. */
export const jsonText = (value: (Value & { readonly [TEXT]?: string }) | undefined): string | null =>
  value === undefined ? null : (value[TEXT] ?? JSON.stringify(valueToJson(value)));

/** PostgreSQL's text of an array -> its elements; undefined if one is NULL or a list, or if they do not count from 1. */
export const arrayFromText = (text: string): string[] | undefined => {
  if (text[0] !== '{') return undefined;
  const elements: string[] = [];
  let at = 1;
  while (at < text.length - 1) {
    let element = '';
    if (text[at] === '"') {
      at += 1;
      while (text[at] !== '"') {
        if (text[at] === '\\') at += 1;
        const next = nextSpecial(text, at + 1);
        element += text.slice(at, next);
        at = next;
      }
      at += 1;
    } else {
      const end = indexOrEnd(text, ',', at);
      element = text.slice(at, end);
      if (element === 'NULL' || element.startsWith('{')) return undefined;
      at = end;
    }
    elements.push(element);
    at += 1;
  }
  return elements;
};

const TOKEN = /[{},]|"((?:[^"\\]|\\.)*)"|[^{},"]+/gs;

/** As {@link arrayFromText}; a NULL is an empty text, a list of lists the elements of all of them in stored order. */
export const flatArray = (text: string, note: Note): string[] => {
  const elements: string[] = [];
  let lists = 0;
  let nulls = 0;
  // Bounds other than those counted from 1 stand in front: `[2:3]={a,b}`.
  for (const [token, inQuotes] of text.slice(text.indexOf('{')).matchAll(TOKEN)) {
    if (inQuotes !== undefined) elements.push(inQuotes.replace(/\\(.)/gs, '$1'));
    else if (token === '{') lists += 1;
    else if (token === 'NULL') {
      nulls += 1;
      elements.push('');
    } else if (token !== '}' && token !== ',') elements.push(token);
  }
  if (lists > 1) note('flattened');
  if (nulls > 0) note('null-as-empty');
  return elements;
};

const indexOrEnd = (text: string, character: string, from: number): number => {
  const index = text.indexOf(character, from);
  return index === -1 ? text.length - 1 : index;
};

const SPECIAL = /["\\]/g;

const nextSpecial = (text: string, from: number): number => {
  SPECIAL.lastIndex = from;
  return SPECIAL.exec(text)?.index ?? text.length - 1;
};

/** Text of an int32 -> number; undefined for any other number. */
export const int32FromText = (text: string): number | undefined => {
  const number = Number(text);
  return (number | 0) === number ? number | 0 : undefined;
};

/** Text of an int64 -> bigint; undefined for any other number. */
export const int64FromText = (text: string): bigint | undefined => {
  try {
    const number = BigInt(text);
    return text.length < 19 || number === BigInt.asIntN(64, number) ? number : undefined;
  } catch {
    return undefined;
  }
};

/** Fraction cut off; a number that is beyond doubles loses no digit. */
const wholeOf = (text: string): bigint | number => {
  if (/^-?\d+(\.\d*)?$/.test(text)) return BigInt(text.split('.', 1)[0]!);
  const number = Math.trunc(Number(text));
  if (Number.isNaN(number)) {
    if (text !== 'NaN') throw new Error('a text that is no number');
    return 0n;
  }
  return Number.isFinite(number) ? BigInt(number) : number;
};

/** Text of any number -> the nearest whole one of that many bits; 0 for NaN. */
export const nearestInteger = (text: string, bits: number, note: Note): bigint => {
  const whole = wholeOf(text);
  const most = 2n ** BigInt(bits - 1) - 1n;
  note('nearest');
  if (whole > most) return most;
  return whole < -most - 1n ? -most - 1n : (whole as bigint);
};
