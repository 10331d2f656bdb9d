import { fromBinary } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { ResetRiskCeilingResponseSchema } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { EncodedRows } from '../../src/statements/encoded-rows.ts';
import { rowsOf } from '../../src/statements/projection.ts';
import { createEmptyDatabase } from '../support/postgres.ts';

let database: Awaited<ReturnType<typeof createEmptyDatabase>>;
let open: Database;
beforeAll(async () => {
  database = await createEmptyDatabase();
  const lane = { max: 1, queue: 10, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000 };
  open = openDatabase(readTarget(database.url), { calls: lane, transactions: lane, ...clocks, pooler: 'auto' });
});
afterAll(async () => {
  await open?.end(1_000);
  await database?.drop();
});

const notes = new CallNotes();
const session = () => new AutoCommitSession(open, { signal: undefined, notes });
const reading = rowsOf(ResetRiskCeilingResponseSchema);
const whole = statement('wire_test.whole', 'select $1::bigint', reading);
const changed = statement('wire_test.changed', 'select value from public.wire_test', reading);

const read = async (asked: typeof whole, ...params: string[]): Promise<bigint> => {
  const rows = () => new EncodedRows(reading.encoder!, undefined, notes);
  const { sink } = await session().collect(asked, params, rows);
  return fromBinary(ResetRiskCeilingResponseSchema, sink.first()).rowsAffected;
};

// Story: the server prepares a statement before it looks at its parameters. One whose first parameters it did not take was
// taken for known, but nobody had told what its rows are, and the next use of it could not read them.
test('a statement whose first parameters are not taken serves the next', async () => {
  await expect(read(whole, 'no number')).rejects.toMatchObject({ reason: 'INVALID_VALUE' });
  expect(await read(whole, '9223372036854775807')).toBe(9_223_372_036_854_775_807n);
  expect(await read(whole, '-1')).toBe(-1n);
});

test('a column of another type than before is read as what it is', async () => {
  const sql = statement('wire_test.make', 'create table public.wire_test as select 7::bigint as value');
  await session().execute(sql, []);
  expect(await read(changed)).toBe(7n);
  expect(await read(changed)).toBe(7n);
  for (const [index, type] of ['integer', 'text', 'numeric', 'smallint'].entries()) {
    await session().execute(
      statement(
        `wire_test.to.${index}`,
        `alter table public.wire_test alter value type ${type} using value::text::${type}`,
      ),
      [],
    );
    expect(await read(changed), type).toBe(7n);
    expect(await read(changed), type).toBe(7n);
  }
});
