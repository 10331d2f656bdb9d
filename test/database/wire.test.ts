import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { fromBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { asRow, TextRows } from '../../src/database/text-rows.ts';
import { ResetRiskCeilingResponseSchema } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { EncodedRows } from '../../src/statements/encoded-rows.ts';
import { rowsOf } from '../../src/statements/projection.ts';
import { startNetwork } from '../support/network.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useDatabase } from '../support/use.ts';

const database = useDatabase(createEmptyDatabase);
let open: Database;
const openAt = (url: string, max = 1): Database => {
  const lane = { max, queue: 10, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000 };
  return openDatabase(readTarget(url), { calls: lane, transactions: lane, ...clocks, pooler: 'auto' });
};
beforeAll(() => {
  open = openAt(database.url);
});
afterAll(() => open?.end(1_000));

const notes = new CallNotes();
const session = (at = open) => new AutoCommitSession(at, { signal: undefined, notes });
const reading = rowsOf(ResetRiskCeilingResponseSchema);
const whole = statement('wire_test.whole', 'select $1::bigint', reading);
const changed = statement('wire_test.changed', 'select value from public.wire_test', reading);

const read = async (asked: typeof whole, params: string[] = [], at = open): Promise<bigint> => {
  const rows = () => new EncodedRows(reading.encoder!, undefined, notes);
  const { sink } = await session(at).collect(asked, params, rows);
  return fromBinary(ResetRiskCeilingResponseSchema, sink.first()).rowsAffected;
};

// Story: the server prepares a statement before it looks at its parameters. One whose first parameters it did not take was
// taken for known, but nobody had told what its rows are, and the next use of it could not read them.
test('a statement whose first parameters are not taken serves the next', async () => {
  await expect(read(whole, ['no number'])).rejects.toMatchObject({ reason: 'INVALID_VALUE' });
  expect(await read(whole, ['9223372036854775807'])).toBe(9_223_372_036_854_775_807n);
  expect(await read(whole, ['-1'])).toBe(-1n);
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

// Story: it asked for the form that another connection had learned to be cheapest, and got one that nobody could read.
test('a connection that is new reads a column of another type than others have met', async () => {
  const two = openAt(database.url, 2);
  const make = statement('wire_test.make_again', 'create table public.wire_test_two as select 7::bigint as value');
  const alter = statement('wire_test.alter_again', 'alter table public.wire_test_two alter value type numeric');
  const asked = statement('wire_test.asked_again', 'select value from public.wire_test_two', reading);
  await session(two).execute(make, []);
  for (let count = 0; count < 2; count += 1) expect(await read(asked, [], two)).toBe(7n);
  const old = await two.calls.acquire();
  await session(two).execute(alter, []);
  expect(await read(asked, [], two)).toBe(7n);
  old.release();
  await two.end(1_000);
});

/** Hands on what comes from the server in pieces of these sizes, over and over, each by itself. */
const cutInto = (sizes: readonly number[]) => {
  let written = Promise.resolve();
  let piece = 0;
  return (chunk: Buffer, _at: number, client: Socket): Buffer => {
    written = written.then(async () => {
      for (let from = 0; from < chunk.length && !client.destroyed; piece += 1) {
        const size = sizes[piece % sizes.length]!;
        client.write(chunk.subarray(from, from + size));
        from += size;
        await turn();
      }
    });
    return Buffer.alloc(0);
  };
};

/** What a server can say: rows of every length, none, NULL, notices, settings that change, errors of every moment. */
const SAYINGS: readonly (readonly [sql: string, params: readonly string[]])[] = [
  ["select n, repeat('\u00e4', n * n), null from generate_series(0, 60) n", []],
  ["select repeat('x', 200000)", []],
  ['select where false', []],
  ["do $$ begin raise notice 'heard %', repeat('n', 300); end $$", []],
  ["select set_config('application_name', repeat('a', 50), false)", []],
  ['select 1 / $1::int', ['0']],
  ['select $1::int', ['none']],
  ['select 10 / (5 - n) from generate_series(1, 9) n', []],
  ['select wire_test_unknown', []],
  ['', []],
];

const ASKED = SAYINGS.map(([sql, params], index) => ({
  asked: statement(`wire_test.said.${index}`, sql, asRow),
  params,
}));

/** What is understood of all of it, asked at once over one connection. */
const understood = async (at: Database): Promise<unknown> => {
  const connection = await at.calls.acquire();
  const running = ASKED.map(async ({ asked, params }) => {
    const sink = new TextRows(asRow);
    const count = await connection.run(asked, params, sink);
    return { count, rows: sink.rows };
  });
  try {
    return await Promise.all(running.map((each) => each.catch(({ reason, message }) => ({ reason, message }))));
  } finally {
    connection.release();
  }
};

test('what the server says is understood wherever the network cuts it', async () => {
  const network = await startNetwork(database.url);
  const expected = await understood(open);
  const size = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 40_000 }));
  await fc.assert(
    fc.asyncProperty(fc.array(size, { minLength: 1, maxLength: 12 }), async (sizes) => {
      // Not a byte at a time through hundreds of kilobytes.
      network.meddle(cutInto([...sizes, 20_000]));
      const at = openAt(network.url);
      try {
        expect(await understood(at)).toEqual(expected);
      } finally {
        await at.end(1_000);
      }
    }),
    { numRuns: 25 },
  );
  await network.close();
});
