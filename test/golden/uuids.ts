import type { Golden } from './values.ts';

const UUID = /^(?:[0-9a-f]{4}-?){7}[0-9a-f]{4}$/i;
const BRACED = /^\{.*\}$/;
const PLAIN = /^[0-9a-f]{8}(?:(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{24})$/i;

/** A spelling that PostgreSQL reads. */
export const isUuid = (text: string): boolean => UUID.test(BRACED.test(text) ? text.slice(1, -1) : text);

/** A spelling that PostgreSQL reads and the client library of the asynchronous drivers refuses. */
export const isOddUuid = (value: Golden): value is string =>
  typeof value === 'string' && isUuid(value) && !PLAIN.test(value);

/** The spelling of answers. */
export const plainUuid = (text: string): string =>
  text
    .replace(/[{}-]/g, '')
    .toLowerCase()
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
