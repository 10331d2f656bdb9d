import pg from 'pg';

const NUL = 0;

export const DATA_ROW = 0x44;
export const COMMAND_COMPLETE = 0x43;
export const PORTAL_SUSPENDED = 0x73;
export const EMPTY_QUERY = 0x49;
export const CLOSE_COMPLETE = 0x33;
export const ROW_DESCRIPTION = 0x54;
export const NO_DATA = 0x6e;
export const PARSE_COMPLETE = 0x31;
export const ERROR_RESPONSE = 0x45;
export const READY_FOR_QUERY = 0x5a;

const ERROR_FIELDS: Readonly<Record<string, keyof pg.DatabaseError>> = {
  V: 'severity',
  C: 'code',
  D: 'detail',
  H: 'hint',
  P: 'position',
  q: 'internalQuery',
  W: 'where',
  s: 'schema',
  t: 'table',
  c: 'column',
  d: 'dataType',
  n: 'constraint',
  F: 'file',
  L: 'line',
  R: 'routine',
};

/** Reads the fields of an ErrorResponse. */
export const errorOf = (bytes: Buffer, start: number, end: number): pg.DatabaseError => {
  const fields = new Map<string, string>();
  for (let at = start; at < end && bytes[at] !== NUL; ) {
    const stop = bytes.indexOf(NUL, at + 1);
    if (stop === -1 || stop >= end) break;
    fields.set(String.fromCharCode(bytes[at]!), bytes.toString('utf8', at + 1, stop));
    at = stop + 1;
  }
  const error = new pg.DatabaseError(fields.get('M') ?? 'an error without a message', end - start, 'error');
  for (const [key, name] of Object.entries(ERROR_FIELDS)) {
    const value = fields.get(key);
    if (value !== undefined) Object.assign(error, { [name]: value });
  }
  return error;
};

/** `INSERT 0 5`, `SELECT 3`, `COMMIT`: what was done, and to how many rows. */
export const readTag = (bytes: Buffer, start: number, end: number): { tag: string; count: number } => {
  let count = 0;
  let power = 1;
  let at = end - 1;
  for (; at >= start; at -= 1) {
    const digit = bytes[at]! - 48;
    if (digit < 0 || digit > 9) break;
    count += digit * power;
    power *= 10;
  }
  const word = bytes.indexOf(32, start);
  return { tag: bytes.toString('latin1', start, word === -1 || word > end ? end : word), count };
};

/** Reads a RowDescription. */
export const columnsOf = (bytes: Buffer, start: number): { types: number[]; formats: number[] } => {
  const number = bytes.readUInt16BE(start);
  const types: number[] = [];
  const formats: number[] = [];
  let at = start + 2;
  for (let index = 0; index < number; index += 1) {
    at = bytes.indexOf(NUL, at) + 1;
    types.push(bytes.readUInt32BE(at + 6));
    formats.push(bytes.readUInt16BE(at + 16));
    at += 18;
  }
  return { types, formats };
};
