import { describe, expect, test } from 'vitest';
import { migrateUp, migrationStatus } from '../../src/database/migrate/migrate.ts';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { firstText, statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { type Network, startNetwork } from '../support/network.ts';
import { createEmptyDatabase, createEncodedDatabase } from '../support/postgres.ts';
import { useDatabase, useStarted } from '../support/use.ts';

const database = useDatabase(createEmptyDatabase);
const network: Network = useStarted(
  () => startNetwork(database.url),
  ({ close }) => close(),
);

const show = (name: string) =>
  statement(`session_settings_test.${name}`, `select current_setting('${name}')`, firstText);

/** Opens what the program opens for its calls, for one piece of work. */
const opened = async <T>(url: string, work: (database: Database) => Promise<T>): Promise<T> => {
  const lane = { max: 1, queue: 1, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000 };
  const open = openDatabase(readTarget(url), { calls: lane, transactions: lane, ...clocks, pooler: 'none' });
  try {
    return await work(open);
  } finally {
    await open.end(1_000);
  }
};

const asked = (open: Database, name: string): Promise<string> =>
  new AutoCommitSession(open, { signal: undefined, notes: new CallNotes() }).one(show(name), []);

const INTERVAL = 'client_connection_check_interval';

/** What a server says on a system that cannot tell whether a client is there still. */
const REFUSED = (() => {
  const fields = ['SERROR', 'VERROR', 'C22023', `Minvalid value for parameter "${INTERVAL}": 2000`];
  const body = Buffer.from(`${fields.join('\0')}\0\0`);
  const head = Buffer.alloc(5);
  head.write('E');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body, Buffer.from('Z\0\0\0\u0005I', 'latin1')]);
})();

/** A row whose first value is that interval. */
const SET = Buffer.from('\0\0\0\u00022s', 'latin1');

// Story: on a system without it each connection failed, for ever, at a setting that nothing rests on.
test('a server that cannot look whether its client is there still serves as any other', async () => {
  let refused = 0;
  network.meddle((chunk) => {
    if (!chunk.includes('set_config\0') || !chunk.includes(SET)) return chunk;
    refused += 1;
    return REFUSED;
  });
  try {
    await opened(network.url, async (open) => {
      expect(await asked(open, 'lock_timeout')).toBe('5s');
      expect(await asked(open, 'IntervalStyle')).toBe('postgres');
    });
    expect(refused).toBeGreaterThan(0);
  } finally {
    network.meddle(undefined);
  }
  expect(await opened(network.url, (open) => asked(open, INTERVAL))).toBe('2s');
});

describe('a database without an encoding', () => {
  const bytes = useDatabase(() => createEncodedDatabase('SQL_ASCII'));

  // Story: it takes and brings any bytes, and an answer with them was one that no client could read.
  test('is refused by name', async () => {
    await expect(opened(bytes.url, (open) => asked(open, 'TimeZone'))).rejects.toMatchObject({
      reason: 'DATABASE_SETTINGS',
      metadata: { setting: 'server_encoding' },
    });
  });

  test('is not migrated', async () => {
    await expect(migrateUp(bytes.url)).rejects.toThrow(/^stop {4}database \S+: has the encoding SQL_ASCII/m);
    expect((await migrationStatus(bytes.url)).executed).toEqual([]);
  });
});

describe('a database in another encoding', () => {
  const latin = useDatabase(() => createEncodedDatabase('LATIN1'));
  const word = statement('session_settings_test.word', `select 'é' || octet_length('é')`, firstText);

  test('is served, since PostgreSQL converts', async () => {
    const read = (open: Database) =>
      new AutoCommitSession(open, { signal: undefined, notes: new CallNotes() }).one(word, []);
    expect(await opened(latin.url, read)).toBe('é1');
  });
});
