const LITERAL = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;
const ZERO = '0'.charCodeAt(0);

/** What a decimal literal says, however it is spelt. */
export interface Decimal {
  readonly sign: '' | '-';
  /** Its digits without zeros at either end; empty: it is zero. */
  readonly digits: string;
  /** The power of ten that the last of them counts. */
  readonly power: number;
}

/** Reads a number as JSON spells it, in a time that grows with its length alone: it may have millions of digits. */
export const decimalOf = (literal: string): Decimal => {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = LITERAL.exec(literal) ?? [];
  const all = whole + fraction;
  let end = all.length;
  while (end > 0 && all.charCodeAt(end - 1) === ZERO) end -= 1;
  let start = 0;
  while (start < end && all.charCodeAt(start) === ZERO) start += 1;
  return {
    sign: sign as Decimal['sign'],
    digits: all.slice(start, end),
    power: Number(exponent) - fraction.length + (all.length - end),
  };
};
