import { all, decimal, maxLength, type Rule, uuid } from '../contract/rules.ts';
import { type ColumnOf, type Table, tableName } from '../database/table.ts';
import { columnProperties } from './parameters.ts';

const PARTS = /^[+-]?(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?$/;

const withoutSpacesAtEnd = (text: string): string => {
  let end = text.length;
  while (text[end - 1] === ' ') end -= 1;
  return text.slice(0, end);
};

/** A decimal that has at most so many digits once it is rounded to so many of them behind the point. */
const roundsInto =
  (precision: number, scale: number): Rule<string> =>
  (text) => {
    const [, whole = '', fraction = '', exponent = '0'] = PARTS.exec(text)!;
    const digits = (whole + fraction).replace(/^0+/, '');
    const before = digits.length - fraction.length + Number(exponent);
    const room = precision - scale;
    // As many digits as there is room for overflow only if all are nines, and what follows rounds them up.
    const fitting = digits === '' || before < room || (before === room && !isRoundedUp(digits, precision));
    return fitting
      ? undefined
      : `must be less than ${10 ** room} once it is rounded to ${scale} digits behind the point`;
  };

const isRoundedUp = (digits: string, precision: number): boolean =>
  digits.startsWith('9'.repeat(precision)) && (digits[precision] ?? '0') >= '5';

/** As {@link fits}; undefined for a column that takes all that a text can be. */
export const fitting = (entity: Table, name: string): Rule<string> | undefined => {
  const { columnType } = columnProperties(entity, name);
  if (columnType === 'uuid') return uuid;
  const numeric = /^numeric\((\d+),(\d+)\)$/.exec(columnType);
  if (numeric) return all(decimal, roundsInto(Number(numeric[1]), Number(numeric[2])));
  const length = /^character varying\((\d+)\)$/.exec(columnType)?.[1];
  if (length === undefined) return undefined;
  const atMost = maxLength(Number(length));
  // Spaces at the end that are too many are cut by the column itself.
  return (text) => atMost(text) && atMost(withoutSpacesAtEnd(text));
};

/**
 * What the column takes: a UUID for `uuid`, an exact decimal that there is room for in `numeric`, at most its length for
 * `varchar(n)`, not counting spaces at the end.
 */
export const fits = <E extends Table>(entity: E, name: ColumnOf<E>): Rule<string> => {
  const rule = fitting(entity, name);
  if (!rule) throw new Error(`${tableName(entity)}.${name} has no rule to derive`);
  return rule;
};
