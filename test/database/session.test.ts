import { afterAll, beforeAll, expect, test } from 'vitest';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { firstText, statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useDatabase } from '../support/use.ts';

const database = useDatabase(createEmptyDatabase);
let open: Database;
beforeAll(() => {
  const lane = { max: 1, queue: 1, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000 };
  open = openDatabase(readTarget(database.url), { calls: lane, transactions: lane, ...clocks, pooler: 'auto' });
});
afterAll(() => open?.end(1_000));

const two = statement('session_test.two', `select * from (values ('a'), ('b')) as r order by 1`, firstText);
const none = statement('session_test.none', `select 'a' where false`, firstText);
const nothing = statement('session_test.nothing', 'select null', firstText);

test('the row that a statement always has', async () => {
  expect(await new AutoCommitSession(open, { signal: undefined, notes: new CallNotes() }).one(two, [])).toBe('a');
});

test.each([none, nothing])('no row where one must come is an error that names the statement', async (empty) => {
  const db = new AutoCommitSession(open, { signal: undefined, notes: new CallNotes() });
  await expect(db.one(empty, [])).rejects.toThrow(`statement ${empty.name} brought no row`);
});
