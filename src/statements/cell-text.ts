import { int32At } from '../database/bytes.ts';
import type { Row } from '../database/statement.ts';
import { cellsOf } from '../database/text-rows.ts';
import { timestampText } from './timestamp.ts';

/** PostgreSQL's numbers of types. */
export const BOOL = 16;
export const BYTEA = 17;
export const INT8 = 20;
export const INT2 = 21;
export const INT4 = 23;
export const JSON_TEXT = 114;
export const FLOAT8 = 701;
export const TIMESTAMPTZ = 1184;
export const JSONB = 3802;

/** The text that PostgreSQL would have sent. */
export const textOf = (type: number, binary: boolean, bytes: Buffer, at: number, length: number): string => {
  if (!binary) return bytes.toString('utf8', at, at + length);
  switch (type) {
    case BOOL:
      return bytes[at] === 0 ? 'f' : 't';
    case INT2:
      return String(bytes.readInt16BE(at));
    case INT4:
      return String(bytes.readInt32BE(at));
    case INT8:
      return String(bytes.readBigInt64BE(at));
    case FLOAT8:
      return String(bytes.readDoubleBE(at));
    case BYTEA:
      return `\\x${bytes.toString('hex', at, at + length)}`;
    case TIMESTAMPTZ:
      return timestampText(int32At(bytes, at), int32At(bytes, at + 4) >>> 0);
    default:
      throw new Error(`a cell of type ${type} in a form that nobody asked for`);
  }
};

/** All cells of a row as text, in whatever forms they came. */
export const textsOf = (types: readonly number[], formats: readonly number[], bytes: Buffer, start: number): Row =>
  cellsOf(bytes, start, (index, at, length) => textOf(types[index]!, formats[index] === 1, bytes, at, length));
