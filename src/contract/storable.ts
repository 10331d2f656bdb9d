import { decimalOf } from '../database/decimal.ts';
import { endOfText } from './json-text.ts';
import { textProblem } from './rules.ts';

/** Digits that PostgreSQL keeps of a number, before its point and behind it. */
const WHOLE_DIGITS = 131_072;
const FRACTION_DIGITS = 16_383;
/** Characters of a number without an exponent up to which it has no more than those. */
const SHORT = FRACTION_DIGITS;

const TOO_LARGE = `must not contain a number of more than ${WHOLE_DIGITS} digits before its point or ${FRACTION_DIGITS} behind it`;

const QUOTE = 0x22;

const NUMBER = /-?\d[\d.eE+-]*/y;

const numberProblem = (literal: string): string | undefined => {
  const [, fraction = '', exponent = '0'] = /^[^.eE]*(?:\.(\d+))?(?:[eE](.*))?$/.exec(literal)!;
  const { digits, power } = decimalOf(literal);
  const scale = fraction.length - Number(exponent);
  const isTooLarge = digits !== '' && digits.length + power > WHOLE_DIGITS;
  // A zero has an exponent, too, which PostgreSQL reads.
  return isTooLarge || scale > FRACTION_DIGITS || -scale > 2 ** 30 ? TOO_LARGE : undefined;
};

/**
 * Why PostgreSQL does not take a JSON text, which is one, as a document: also for what reading it leaves out, such as the
 * first of two members of one name. A text of a million digits or quotes costs one look at each.
 */
export const storingProblem = (json: string): string | undefined => {
  for (let at = 0; at < json.length; ) {
    const code = json.charCodeAt(at);
    if (code === QUOTE) {
      const end = endOfText(json, at);
      const text = json.slice(at, end);
      const problem = text.includes('\\u') ? textProblem(JSON.parse(text) as string) : textProblem(text);
      if (problem) return problem;
      at = end;
    } else if (code === 0x2d || (code >= 0x30 && code <= 0x39)) {
      NUMBER.lastIndex = at;
      const [literal] = NUMBER.exec(json)!;
      const problem = literal.length > SHORT || /[eE]/.test(literal) ? numberProblem(literal) : undefined;
      if (problem) return problem;
      at += literal.length;
    } else at += 1;
  }
  return undefined;
};
