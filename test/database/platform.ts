import { expect } from 'vitest';
import { connected, rowsOf, tables } from './catalog.ts';
import { ORIGINAL_REST, ORIGINAL_SHAPE, originalRows } from './original-shape.ts';

type Row = Readonly<Record<string, unknown>>;

/** Rows of each table of {@link makePlatform}. */
export const ROWS = 30;

/**
 * Puts a database far from UTC: whatever reads a zone-less instant in a session's zone is off by hours. A copy of a
 * database does not have the settings of what it was copied from.
 */
export const setZone = (url: string): Promise<unknown> =>
  connected(url, (client) =>
    client.query(`alter database ${new URL(url).pathname.slice(1)} set timezone to 'America/New_York'`),
  );

/** Makes the platform's database, in its zone. */
export const makePlatform = async (url: string): Promise<void> => {
  await setZone(url);
  await connected(url, async (client) => {
    await client.query("set timezone to 'UTC'");
    for (const statement of [...ORIGINAL_SHAPE, ...originalRows(ROWS), ...ORIGINAL_REST]) await client.query(statement);
    await client.query('refresh materialized view m10_recovery.mv_top_pending');
  });
};

/** All rows of the tables, or of those named, as JSON text. */
export const allRows = async (url: string, names?: readonly string[]): Promise<Record<string, string[]>> =>
  connected(url, async (client) => {
    await client.query("set timezone to 'UTC'");
    const found: Record<string, string[]> = {};
    for (const name of names ?? (await tables(client))) found[name] = await rowsOf(client, name);
    return found;
  });

const ZONELESS = /^\d{4}-\d\d-\d\dT[\d:.]+$/;

/** What a value of the original has to be after adoption: zone-less instants are UTC, quoted defaults are words. */
const adopted = (value: unknown): unknown => {
  if (typeof value !== 'string') return value;
  if (/^'\w+'$/.test(value)) return value.slice(1, -1);
  return ZONELESS.test(value) ? `${value}+00:00` : value;
};

const only = (row: Row, names: readonly string[]): Row => Object.fromEntries(names.map((name) => [name, row[name]]));

/** Expects each row to be there still, with every value it had, and no other. */
export const expectKept = (before: Record<string, string[]>, after: Record<string, string[]>): void => {
  for (const [table, rows] of Object.entries(before)) {
    const expected = rows.map((row): Row => JSON.parse(row));
    const names = Object.keys(expected[0] ?? {});
    const known = new Set(expected.map(({ id }) => id));
    const found = after[table]!.map((row): Row => only(JSON.parse(row), names));
    const sorted = (list: readonly Row[]): string[] => list.map((row) => JSON.stringify(row)).sort();
    const kept = expected.map((row) => Object.fromEntries(names.map((name) => [name, adopted(row[name])])));
    expect(sorted(found.filter(({ id }) => known.has(id))), table).toEqual(sorted(kept));
  }
};
