import { refuse } from '../contract/errors.ts';

interface Rest {
  readonly value: string;
  /** Other values that do as well, where another has set it. */
  readonly accepted?: RegExp;
  /** True where nothing of ours depends on it behind a pooler. */
  readonly optional?: boolean;
}

/** What the text of a value, and what a statement sees, rest on. The user's own settings are made before, never after. */
const REQUIRED = Object.entries({
  TimeZone: { value: 'UTC' },
  DateStyle: { value: 'ISO, MDY', accepted: /^ISO,/ },
  IntervalStyle: { value: 'postgres' },
  bytea_output: { value: 'hex' },
  extra_float_digits: { value: '1', accepted: /^[123]$/ },
  standard_conforming_strings: { value: 'on' },
  default_transaction_isolation: { value: 'read committed' },
  default_transaction_deferrable: { value: 'off' },
  // Our statements name every schema; triggers of an adopted database may not.
  search_path: { value: 'pg_catalog, public', optional: true },
} satisfies Readonly<Record<string, Rest>>) as readonly (readonly [name: string, rest: Rest])[];

/** A setting of a session and its value. */
export type SessionSetting = readonly [name: string, value: string];

/** What answers rest on, as it is set. */
export const MADE: readonly SessionSetting[] = REQUIRED.map(([name, { value }]) => [name, value]);

/** Of these, what a pooler knows and keeps apart for each of its clients: told with the start of a session. */
export const AT_START: Readonly<Record<string, string>> = Object.fromEntries(
  MADE.filter(([name]) => name === 'TimeZone' || name === 'DateStyle'),
);

/** What is wanted of a session besides, where it is ours alone. Not every server can do it: it says 22023 (invalid value). */
export const WANTED: readonly SessionSetting[] = [
  // A killed sidecar must not leave its statements running.
  ['client_connection_check_interval', '2s'],
];

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** SQL that sets all of them, or none. */
export const setAll = (settings: readonly SessionSetting[]): string =>
  `select ${settings.map(([name, value]) => `set_config(${literal(name)}, ${literal(value)}, false)`).join(', ')}`;

/** The encoding of a database that holds bytes of any meaning: what it would answer need be no UTF-8. */
export const NO_ENCODING = 'SQL_ASCII';
/** What to do about it. */
export const ENCODE = `make it anew (create database … encoding 'UTF8' template template0) and load a dump of it`;

/** SQL: one row of texts for {@link judgeSession}. */
export const SESSION = `select current_setting('server_encoding'),
  (extract(epoch from current_setting('statement_timeout')::interval) * 1000)::int8, ${REQUIRED.map(([name]) => `current_setting('${name}')`).join(', ')}`;

/**
 * Looks whether a session does what answers rest on.
 *
 * @param shared behind a pooler that shares sessions, where nothing can be set.
 * @returns the server's own limit of a statement, milliseconds; 0: none.
 * @throws RpcError DATABASE_SETTINGS, which names the setting and what mends it.
 */
export const judgeSession = ([encoding, timeout, ...found]: readonly string[], shared: boolean): number => {
  const wrong = (setting: string, what: string): Error => refuse('DATABASE_SETTINGS', what, { metadata: { setting } });
  if (encoding === NO_ENCODING) {
    const wanted = `must be "UTF8", or another that PostgreSQL converts: ${ENCODE}`;
    throw wrong('server_encoding', `the database's server_encoding is "${NO_ENCODING}" and ${wanted}`);
  }
  for (const [index, [name, { value, accepted, optional }]] of REQUIRED.entries()) {
    const is = found[index]!;
    if (is === value || accepted?.test(is) || (shared && optional)) continue;
    throw wrong(
      name,
      `the database's ${name} is "${is}" and must be "${value}": behind a pooler that shares sessions it cannot be set, so set it for the role (alter role … set ${name} = '${value}'), or tell SIDECAR_POOLER=session`,
    );
  }
  return Number(timeout);
};
