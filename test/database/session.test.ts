import { expect, test } from 'vitest';
import type { Connection, Database } from '../../src/database/pool.ts';
import { firstText } from '../../src/database/projection.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import type { Row, Statement } from '../../src/database/statement.ts';
import { statement } from '../../src/database/statement.ts';

const insert = statement('session_test.insert', 'insert into somewhere default values returning id', firstText);

/** A database whose every statement brings the given rows. */
const bringing = (...rows: Row[]): Database => {
  const run = async <T>({ map }: Statement<T>) => ({ rows: rows.map((row) => map(row)), count: rows.length });
  const connection = { run } as unknown as Connection;
  return {
    calls: { use: (_signal: unknown, work: (lent: Connection) => unknown) => work(connection) },
  } as unknown as Database;
};

test('the row that a statement always has', async () => {
  expect(await new AutoCommitSession(bringing(['a'], ['b']), undefined).one(insert, [])).toBe('a');
});

test.each([
  ['no row', []],
  ['a row of nothing', [[null]]],
])('%s where one must come is an error that names the statement', async (_what, rows) => {
  const db = new AutoCommitSession(bringing(...rows), undefined);
  await expect(db.one(insert, [])).rejects.toThrow('statement session_test.insert brought no row');
});
