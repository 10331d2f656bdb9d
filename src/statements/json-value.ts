import type { Bytes } from '../database/bytes.ts';
import { MAX_LEVELS, parseJson } from '../database/values.ts';

/** Field tags of `google.protobuf.Value`, of the entries of a Struct's map, and of a ListValue. */
const NULL = 0x08;
const NUMBER = 0x11;
const STRING = 0x1a;
const BOOL = 0x20;
const STRUCT = 0x2a;
const LIST = 0x32;
const ENTRY = 0x0a;
const KEY = 0x0a;
const VALUE = 0x12;
const ELEMENT = 0x0a;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const BRACE = 0x7b;
const BRACE_END = 0x7d;
const BRACKET = 0x5b;
const BRACKET_END = 0x5d;
const COMMA = 0x2c;
const BLANK = 0x20;

/** Powers of ten that a double holds exactly. */
const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent);

/** Digits of which a double holds any number exactly. */
const EXACT_DIGITS = 15;

/** Bytes of a text up to which its length takes one byte, and that are copied as they are read. */
const SHORT = 127;
/** Room for whatever stands before and behind what makes room itself. */
const ROOM = 32;

const afterBlanks = (source: Buffer, from: number): number => {
  let at = from;
  while (source[at]! <= BLANK) at += 1;
  return at;
};

const noJson = (): Error => new Error('a document that is no JSON');

/** Whether what ended before that place is the last of its list or object. */
const isLast = (source: Buffer, at: number, end: number): boolean => {
  const next = source[at];
  if (next !== COMMA && next !== end) throw noJson();
  return next === end;
};

/** Where a text ends: at its closing quote. */
const endOfString = (source: Buffer, from: number): number => {
  let at = from;
  while (source[at] !== QUOTE) {
    if (at >= source.length) throw noJson();
    at += source[at] === BACKSLASH ? 2 : 1;
  }
  return at;
};

/** Writes the text that begins with that quote, with its length before it; returns where it ends. */
const writeString = (out: Bytes, source: Buffer, at: number): number => {
  const from = at + 1;
  out.reserve(SHORT + 1);
  const { buffer, at: start } = out;
  let to = start + 1;
  let next = from;
  let code = source[next]!;
  while (code !== QUOTE && code !== BACKSLASH && next - from < SHORT) {
    buffer[to++] = code;
    code = source[++next]!;
  }
  if (code === QUOTE) {
    buffer[start] = next - from;
    out.at = to;
    return next + 1;
  }
  while (source[next] !== QUOTE && source[next] !== BACKSLASH) {
    if (next >= source.length) throw noJson();
    next += 1;
  }
  if (source[next] === QUOTE) {
    out.varint(next - from);
    out.copy(source, from, next - from);
  } else {
    next = endOfString(source, next);
    out.text(JSON.parse(source.toString('utf8', at, next + 1)) as string);
  }
  return next + 1;
};

const writeDouble = (out: Bytes, value: number): void => {
  out.byte(NUMBER);
  out.double(value);
};

/** Writes the number that begins there; returns where it ends, which may be where the document does. */
const writeNumber = (out: Bytes, source: Buffer, from: number, end: number): number => {
  let at = from;
  let whole = 0;
  let digits = 0;
  let scale = 0;
  let inFraction = false;
  let isPlain = true;
  if (source[at] === 0x2d) at += 1;
  for (; at < end; at += 1) {
    const code = source[at]!;
    if (code >= 48 && code <= 57) {
      whole = whole * 10 + code - 48;
      digits += 1;
      if (inFraction) scale += 1;
    } else if (code === 0x2e) inFraction = true;
    else if (code === 0x65 || code === 0x45 || code === 0x2b || code === 0x2d) isPlain = false;
    else break;
  }
  if (isPlain && digits <= EXACT_DIGITS) {
    const magnitude = whole / POWERS[scale]!;
    writeDouble(out, source[from] === 0x2d ? -magnitude : magnitude);
    return at;
  }
  const value = parseJson(source.toString('latin1', from, at));
  if (typeof value === 'number') writeDouble(out, value);
  else {
    out.byte(STRING);
    out.text(value as string);
  }
  return at;
};

/** Where the list or object that begins there ends. */
const endOfNested = (source: Buffer, from: number): number => {
  let at = from;
  let depth = 0;
  do {
    const code = source[at++];
    if (code === QUOTE) at = endOfString(source, at) + 1;
    else if (code === BRACE || code === BRACKET) depth += 1;
    else if (code === BRACE_END || code === BRACKET_END) depth -= 1;
    else if (code === undefined) throw noJson();
  } while (depth > 0);
  return at;
};

/** Writes what is nested too deep, as its JSON text; returns where it ends. */
const writeNestedText = (out: Bytes, source: Buffer, from: number): number => {
  const end = endOfNested(source, from);
  out.byte(STRING);
  out.text(JSON.stringify(parseJson(source.toString('utf8', from, end))));
  return end;
};

const writeObject = (out: Bytes, source: Buffer, from: number, end: number, levels: number): number => {
  let at = afterBlanks(source, from + 1);
  out.byte(STRUCT);
  const struct = out.open();
  if (source[at] !== BRACE_END) {
    for (;;) {
      out.reserve(ROOM);
      out.byte(ENTRY);
      const entry = out.open();
      out.byte(KEY);
      at = afterBlanks(source, writeString(out, source, at));
      out.reserve(ROOM);
      out.byte(VALUE);
      const value = out.open();
      at = afterBlanks(source, writeValue(out, source, at + 1, end, levels));
      out.close(value);
      out.close(entry);
      if (isLast(source, at, BRACE_END)) break;
      at = afterBlanks(source, at + 1);
    }
  }
  out.close(struct);
  return at + 1;
};

const writeList = (out: Bytes, source: Buffer, from: number, end: number, levels: number): number => {
  let at = afterBlanks(source, from + 1);
  out.byte(LIST);
  const list = out.open();
  if (source[at] !== BRACKET_END) {
    for (;;) {
      out.reserve(ROOM);
      out.byte(ELEMENT);
      const element = out.open();
      at = afterBlanks(source, writeValue(out, source, at, end, levels));
      out.close(element);
      if (isLast(source, at, BRACKET_END)) break;
      at += 1;
    }
  }
  out.close(list);
  return at + 1;
};

/**
 * Writes a value, without its tag and length, as `jsonToValue(parseJson(text))` would be written.
 *
 * @param levels of lists and objects that may follow.
 * @returns where it ends.
 */
const writeValue = (out: Bytes, source: Buffer, from: number, end: number, levels: number): number => {
  const at = afterBlanks(source, from);
  out.reserve(ROOM);
  switch (source[at]) {
    case QUOTE:
      out.byte(STRING);
      return writeString(out, source, at);
    case 0x74:
      out.byte(BOOL);
      out.byte(1);
      return at + 'true'.length;
    case 0x66:
      out.byte(BOOL);
      out.byte(0);
      return at + 'false'.length;
    case 0x6e:
      out.byte(NULL);
      out.byte(0);
      return at + 'null'.length;
    case BRACE:
      return levels === 0 ? writeNestedText(out, source, at) : writeObject(out, source, at, end, levels - 1);
    case BRACKET:
      return levels === 0 ? writeNestedText(out, source, at) : writeList(out, source, at, end, levels - 1);
    default:
      return writeNumber(out, source, at, end);
  }
};

/**
 * Writes the JSON text of a document as the bytes of a `google.protobuf.Value`, without its tag and length. PostgreSQL has
 * checked that the text is JSON.
 *
 * @throws Error where even the text of what is nested too deep cannot be made.
 */
export const writeJsonValue = (out: Bytes, source: Buffer, at: number, length: number): void => {
  writeValue(out, source, at, at + length, MAX_LEVELS);
};
