import type { Struct, Timestamp, Value } from '@bufbuild/protobuf/wkt';
import { Code, RpcError } from './errors.ts';

/** A stored value that its field cannot carry; never dropped in silence. */
const unrepresentable = (what: string): RpcError =>
  new RpcError(Code.DATA_LOSS, 'UNREPRESENTABLE_VALUE', `a stored value cannot be represented: ${what}`);

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

/** PostgreSQL's text of a `timestamptz` in a UTC session -> Timestamp, exact to the microsecond. */
export const timestampFromText = (text: string): Timestamp => {
  const end = text.length - '+00'.length;
  if (text[4] !== '-' || !text.endsWith('+00')) throw unrepresentable('an instant outside the years 1 to 9999');
  const days = daysSinceEpoch(digits(text, 0, 4), digits(text, 5, 7), digits(text, 8, 10));
  const seconds = days * 86_400 + digits(text, 11, 13) * 3_600 + digits(text, 14, 16) * 60 + digits(text, 17, 19);
  const nanos = end > FRACTION_AT ? digits(text, FRACTION_AT, end) * 10 ** (FRACTION_AT + 9 - end) : 0;
  return { $typeName: 'google.protobuf.Timestamp', seconds: BigInt(seconds), nanos };
};

/** Timestamp -> text that PostgreSQL reads; digits below a microsecond are dropped. */
export const timestampToText = (instant: Timestamp): string => {
  const whole = new Date(Number(instant.seconds) * 1000).toISOString().slice(0, 19);
  const micros = String(Math.floor(instant.nanos / 1000)).padStart(6, '0');
  return `${whole}.${micros}+00`;
};

/** Seconds from 0001-01-01 to the end of 9999, the range of a Timestamp. */
export const isTimestampInRange = (instant: Timestamp): boolean =>
  instant.seconds >= -62_135_596_800n &&
  instant.seconds <= 253_402_300_799n &&
  instant.nanos >= 0 &&
  instant.nanos <= 999_999_999;

const MAYBE_INEXACT = /\d{16}|\d[eE]|\.\d{15}/;
const DECIMAL = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

/** Sign, digits without leading and trailing zeros, and the power of ten of the first digit. */
const canonicalDecimal = (text: string): string => {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = DECIMAL.exec(text) ?? [];
  const digits = (whole + fraction).replace(/^0+/, '');
  if (digits === '') return '0';
  const magnitude = Number(exponent) + whole.length - ((whole + fraction).length - digits.length);
  return `${sign}${digits.replace(/0+$/, '')}e${magnitude}`;
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

/** `google.protobuf.Value` -> JSON text for a `jsonb` parameter; null for an unset field, which is SQL NULL. */
export const jsonText = (value: Value | undefined): string | null =>
  value === undefined ? null : JSON.stringify(valueToJson(value));

/** PostgreSQL's text of a one-dimensional array -> its elements. NULL elements cannot be carried. */
export const arrayFromText = (text: string): string[] => {
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
      if (element === 'NULL') throw unrepresentable('a NULL element of a text array');
      if (element.startsWith('{')) throw unrepresentable('a text array of more than one dimension');
      at = end;
    }
    elements.push(element);
    at += 1;
  }
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

export { unrepresentable };
