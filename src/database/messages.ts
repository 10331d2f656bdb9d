import type { Bytes } from './bytes.ts';
import type { Param } from './statement.ts';

/** Messages of PostgreSQL's protocol that a client sends. */

const framed = (type: string, ...parts: readonly (Uint8Array | string)[]): Buffer => {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`) : part)));
  const message = Buffer.allocUnsafeSlow(5 + body.length);
  message.write(type, 0, 'latin1');
  message.writeInt32BE(4 + body.length, 1);
  body.copy(message, 5);
  return message;
};

const int16 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(2);
  bytes.writeUInt16BE(value);
  return bytes;
};

const int32 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeInt32BE(value);
  return bytes;
};

/** One command or several, in text, with results in text. */
export const query = (text: string): Buffer => framed('Q', text);

/** Ends a group of messages: what they did takes effect, or nothing of it, unless a transaction is open. */
export const SYNC = framed('S');

/** Prepares a statement; the empty name is forgotten at the next use. */
export const parse = (name: string, text: string): Buffer => framed('P', name, text, int16(0));

/** Asks what the rows of a portal are. */
export const describePortal = (portal: string): Buffer => framed('D', Buffer.from('P'), portal);

/** Asks what the rows of a prepared statement are. */
export const describeStatement = (statement: string): Buffer => framed('D', Buffer.from('S'), statement);

/** Runs a portal: all of it, or so many rows more. */
export const execute = (portal: string, rows: number): Buffer => framed('E', portal, int32(rows));

/** Forgets a portal. */
export const closePortal = (portal: string): Buffer => framed('C', Buffer.from('P'), portal);

/** Forms of cells as Bind ends with them. */
export const formatCodes = (formats: readonly number[]): Buffer =>
  Buffer.concat([int16(formats.length), ...formats.map(int16)]);

const QUOTED = /["\\]/g;

const elementText = (element: string | number): string =>
  typeof element === 'string' ? `"${element.replace(QUOTED, '\\$&')}"` : numberText(element);

/** A number's own text loses the sign of a negative zero. */
const numberText = (value: number): string => (Object.is(value, -0) ? '-0' : String(value));

const paramText = (param: Exclude<Param, null | undefined>): string => {
  switch (typeof param) {
    case 'string':
      return param;
    case 'number':
      return numberText(param);
    case 'bigint':
    case 'boolean':
      return String(param);
    default:
      return param instanceof Uint8Array
        ? `\\x${Buffer.from(param.buffer, param.byteOffset, param.byteLength).toString('hex')}`
        : `{${param.map(elementText).join(',')}}`;
  }
};

/** Characters up to which three bytes for each cost less than counting them. */
const SHORT = 1_024;

/** Writes Bind: a portal of a prepared statement, with its parameters in text and the forms of its cells. */
export const bind = (
  out: Bytes,
  portal: Uint8Array,
  statement: Uint8Array,
  params: readonly Param[],
  formats: Uint8Array,
): void => {
  out.reserve(9 + portal.length + statement.length);
  const start = out.at;
  out.byte(0x42);
  out.at += 4;
  out.all(portal);
  out.all(statement);
  out.reserve(4);
  out.byte(0);
  out.byte(0);
  out.byte(params.length >>> 8);
  out.byte(params.length & 255);
  for (const param of params) {
    if (param === null || param === undefined) {
      out.reserve(4);
      out.int32(-1);
      continue;
    }
    const text = paramText(param);
    out.reserve(4 + (text.length <= SHORT ? text.length * 3 : Buffer.byteLength(text)));
    const length = out.buffer.write(text, out.at + 4);
    out.int32(length);
    out.at += length;
  }
  out.all(formats);
  out.buffer.writeInt32BE(out.at - start - 1, start + 1);
};
