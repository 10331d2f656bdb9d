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

/** Writes JSON text as a `google.protobuf.Value`, as `jsonToValue(parseJson(text))` would be written. */
class Transcoder {
  readonly #out: Bytes;
  readonly #source: Buffer;
  readonly #end: number;
  #at: number;

  constructor(out: Bytes, source: Buffer, at: number, length: number) {
    this.#out = out;
    this.#source = source;
    this.#at = at;
    this.#end = at + length;
  }

  value(levels: number): void {
    const out = this.#out;
    out.reserve(32);
    this.#skipBlanks();
    switch (this.#source[this.#at]) {
      case QUOTE:
        out.byte(STRING);
        this.#string();
        return;
      case 0x74:
        out.byte(BOOL);
        out.byte(1);
        this.#at += 'true'.length;
        return;
      case 0x66:
        out.byte(BOOL);
        out.byte(0);
        this.#at += 'false'.length;
        return;
      case 0x6e:
        out.byte(NULL);
        out.byte(0);
        this.#at += 'null'.length;
        return;
      case BRACE:
        if (levels === 0) this.#nestedText();
        else this.#object(levels - 1);
        return;
      case BRACKET:
        if (levels === 0) this.#nestedText();
        else this.#list(levels - 1);
        return;
      default:
        this.#number();
    }
  }

  #skipBlanks(): void {
    while (this.#source[this.#at]! <= BLANK) this.#at += 1;
  }

  /** Whether what was just read is the last of its list or object; moves on to what follows. */
  #isLast(end: number): boolean {
    this.#skipBlanks();
    const next = this.#source[this.#at++];
    if (next !== COMMA && next !== end) throw new Error('a document that is no JSON');
    return next === end;
  }

  /** Whether a list or an object is empty; moves into it. */
  #isEmpty(end: number): boolean {
    this.#at += 1;
    this.#skipBlanks();
    if (this.#source[this.#at] !== end) return false;
    this.#at += 1;
    return true;
  }

  #object(levels: number): void {
    const out = this.#out;
    out.byte(STRUCT);
    const struct = out.open();
    if (!this.#isEmpty(BRACE_END)) {
      do {
        out.reserve(16);
        out.byte(ENTRY);
        const entry = out.open();
        this.#skipBlanks();
        out.byte(KEY);
        this.#string();
        this.#skipBlanks();
        this.#at += 1;
        out.reserve(16);
        out.byte(VALUE);
        const value = out.open();
        this.value(levels);
        out.close(value);
        out.close(entry);
      } while (!this.#isLast(BRACE_END));
    }
    out.close(struct);
  }

  #list(levels: number): void {
    const out = this.#out;
    out.byte(LIST);
    const list = out.open();
    if (!this.#isEmpty(BRACKET_END)) {
      do {
        out.reserve(16);
        out.byte(ELEMENT);
        const element = out.open();
        this.value(levels);
        out.close(element);
      } while (!this.#isLast(BRACKET_END));
    }
    out.close(list);
  }

  /** A string with its length before it; one without escapes is copied. */
  #string(): void {
    const source = this.#source;
    const from = this.#at + 1;
    let at = from;
    while (source[at] !== QUOTE && source[at] !== BACKSLASH) at += 1;
    if (source[at] === QUOTE) {
      this.#out.reserve(5);
      this.#out.varint(at - from);
      this.#out.copy(source, from, at - from);
    } else {
      while (source[at] !== QUOTE) at += source[at] === BACKSLASH ? 2 : 1;
      this.#out.text(JSON.parse(source.toString('utf8', from - 1, at + 1)) as string);
    }
    this.#at = at + 1;
  }

  #number(): void {
    const source = this.#source;
    const from = this.#at;
    let at = from;
    let whole = 0;
    let digits = 0;
    let scale = 0;
    let inFraction = false;
    let isPlain = true;
    if (source[at] === 0x2d) at += 1;
    for (; at < this.#end; at += 1) {
      const code = source[at]!;
      if (code >= 48 && code <= 57) {
        whole = whole * 10 + code - 48;
        digits += 1;
        if (inFraction) scale += 1;
      } else if (code === 0x2e) inFraction = true;
      else if (code === 0x65 || code === 0x45 || code === 0x2b || code === 0x2d) isPlain = false;
      else break;
    }
    this.#at = at;
    if (isPlain && digits <= EXACT_DIGITS) {
      const magnitude = whole / POWERS[scale]!;
      this.#double(source[from] === 0x2d ? -magnitude : magnitude);
      return;
    }
    const value = parseJson(source.toString('latin1', from, at));
    if (typeof value === 'number') this.#double(value);
    else {
      this.#out.byte(STRING);
      this.#out.text(value as string);
    }
  }

  #double(value: number): void {
    const out = this.#out;
    out.byte(NUMBER);
    out.buffer.writeDoubleLE(value, out.at);
    out.at += 8;
  }

  /** What is nested too deep, as its JSON text. */
  #nestedText(): void {
    const from = this.#at;
    this.#skipNested();
    this.#out.byte(STRING);
    this.#out.text(JSON.stringify(parseJson(this.#source.toString('utf8', from, this.#at))));
  }

  #skipNested(): void {
    const source = this.#source;
    let depth = 0;
    do {
      const code = source[this.#at++];
      if (code === QUOTE) {
        while (source[this.#at] !== QUOTE) this.#at += source[this.#at] === BACKSLASH ? 2 : 1;
        this.#at += 1;
      } else if (code === BRACE || code === BRACKET) depth += 1;
      else if (code === BRACE_END || code === BRACKET_END) depth -= 1;
      else if (code === undefined) throw new Error('a document that is no JSON');
    } while (depth > 0);
  }
}

/**
 * Writes the JSON text of a document as the bytes of a `google.protobuf.Value`, without its tag and length. PostgreSQL has
 * checked that the text is JSON.
 *
 * @throws Error where even the text of what is nested too deep cannot be made.
 */
export const writeJsonValue = (out: Bytes, source: Buffer, at: number, length: number): void => {
  new Transcoder(out, source, at, length).value(MAX_LEVELS);
};
