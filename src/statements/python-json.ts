import { endOfText } from '../contract/json-text.ts';

/** What Python's `json` writes. A number is a float, a bigint an integer. */
export type PythonJson =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly PythonJson[]
  | { readonly [key: string]: PythonJson };

/** Order of texts by code point, as Python sorts them; JavaScript sorts by UTF-16 unit. */
export const byCodePoint = (left: string, right: string): number =>
  Buffer.compare(Buffer.from(left), Buffer.from(right));

/** A float as Python shows it: the shortest digits that read back the same, always with a point or an exponent. */
export const floatText = (value: number): string => {
  if (Number.isNaN(value)) return 'NaN';
  if (!Number.isFinite(value)) return value > 0 ? 'Infinity' : '-Infinity';
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const [mantissa, power] = Math.abs(value).toExponential().split('e') as [string, string];
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    const digits = String(Math.abs(exponent)).padStart(2, '0');
    return `${sign}${mantissa}e${exponent < 0 ? '-' : '+'}${digits}`;
  }
  const digits = mantissa.replace('.', '');
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`;
  const fraction = digits.slice(exponent + 1);
  return `${sign}${digits.slice(0, exponent + 1).padEnd(exponent + 1, '0')}.${fraction || '0'}`;
};

const asciiText = (text: string): string =>
  JSON.stringify(text).replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);

/**
 * JSON as Python's `json.dumps` writes it with sorted keys: ASCII only, a blank after each comma and colon. Texts stored
 * and hashes made by the original are over exactly these characters.
 */
export const pythonJson = (value: PythonJson): string => {
  switch (typeof value) {
    case 'string':
      return asciiText(value);
    case 'number':
      return floatText(value);
    case 'object': {
      if (value === null) return 'null';
      if (Array.isArray(value)) return `[${value.map(pythonJson).join(', ')}]`;
      const members = Object.entries(value as { [key: string]: PythonJson });
      const sorted = members.sort(([left], [right]) => byCodePoint(left, right));
      return `{${sorted.map(([key, each]) => `${asciiText(key)}: ${pythonJson(each)}`).join(', ')}}`;
    }
    default:
      return String(value);
  }
};

const QUOTE_OR_NUMBER = /"|-?\bInfinity\b|\bNaN\b/g;
/**
 * Reads JSON as Python's `json.loads` does: NaN and infinities are no errors; they read as null.
 *
 * @throws SyntaxError for anything else that is no JSON.
 */
export const parsePythonJson = (json: string): unknown => {
  let strict = '';
  let copied = 0;
  QUOTE_OR_NUMBER.lastIndex = 0;
  for (let found = QUOTE_OR_NUMBER.exec(json); found; found = QUOTE_OR_NUMBER.exec(json)) {
    if (found[0] === '"') QUOTE_OR_NUMBER.lastIndex = endOfText(json, found.index);
    else {
      strict += `${json.slice(copied, found.index)}null`;
      copied = QUOTE_OR_NUMBER.lastIndex;
    }
  }
  return JSON.parse(strict + json.slice(copied));
};
