import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import type { Connection } from '../../src/database/connection.ts';
import { CallNotes } from '../../src/database/notes.ts';
import { type Database, openDatabase } from '../../src/database/pool.ts';
import { AutoCommitSession } from '../../src/database/session.ts';
import { Ending } from '../../src/database/signal.ts';
import { firstText, statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useClient, useDatabase } from '../support/use.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

/** Reads that may go together, as the lane has it. */
const TOGETHER = 8;
const CONNECTIONS = 4;

const database = useDatabase(createEmptyDatabase);
let open: Database;
/** A person at the database, who holds locks. */
const person = useClient(() => database.url);
const again: string[] = [];
let taken: Connection[] = [];
/** Statements that are under way, and the most that were at once. */
const under = { now: 0, most: 0 };
const sent = () => {
  under.now += 1;
  under.most = Math.max(under.most, under.now);
  return () => {
    under.now -= 1;
  };
};
beforeAll(() => {
  const lane = { max: CONNECTIONS, queue: 1_000, waitMs: 20_000 };
  open = openDatabase(readTarget(database.url), {
    calls: lane,
    transactions: lane,
    statementMs: 60_000,
    lockMs: 30_000,
    pooler: 'auto',
    observer: { sent, waiting: () => () => {}, again: (why) => again.push(why) },
  });
});
afterAll(() => open?.end(1_000));
// Nothing is left lent, whatever has happened.
afterEach(async () => {
  for (const each of taken.splice(0)) each.release();
  await vi.waitFor(() => expect(open.calls.state).toMatchObject({ used: 0, pending: 0 }));
  again.length = 0;
  under.most = 0;
});

const backend = statement('convoy_test.backend', 'select pg_backend_pid()::text', firstText);
const echo = statement('convoy_test.echo', 'select $1::text', firstText);
const inverse = statement('convoy_test.inverse', 'select (1 / $1::integer)::text', firstText);
const late = statement('convoy_test.late', 'select $1::text from pg_sleep($2::float8)', firstText);
/** Each of these keeps others waiting once, and goes alone for a while after that. */
const locked = ['leaves', 'stays', 'dies', 'waits'].map((name) =>
  statement(
    `convoy_test.locked_${name}`,
    `select pg_backend_pid()::text from (select pg_advisory_xact_lock($1)) locked /* ${name} */`,
    firstText,
  ),
);
const [leaves, stays, dies, waits] = locked as [typeof backend, typeof backend, typeof backend, typeof backend];

const session = (signal?: Ending) => new AutoCommitSession(open, { signal, notes: new CallNotes() });

/** There is a connection that has been used, so that the next reads find one. */
const warm = (): Promise<string> => session().one(backend, []);

const holding = async (work: (unlock: () => Promise<unknown>) => Promise<void>): Promise<void> => {
  await person.query('select pg_advisory_lock(1)');
  const unlock = () => person.query('select pg_advisory_unlock_all()');
  try {
    await work(unlock);
  } finally {
    await unlock();
  }
};

/** The backend that waits for the lock. */
const waiting = (): Promise<number> =>
  vi.waitFor(async () => {
    const { rows } = await person.query(WAITING_FOR_LOCK);
    expect(rows).toHaveLength(1);
    return rows[0].pid as number;
  });

test('reads of one turn share a connection, so many and no more', async () => {
  const pid = await warm();
  const together = await Promise.all(Array.from({ length: TOGETHER }, () => session().one(backend, [])));
  expect(new Set(together)).toEqual(new Set([pid]));
  const more = await Promise.all(Array.from({ length: TOGETHER + 1 }, () => session().one(backend, [])));
  expect(new Set(more).size).toBe(2);
});

/** Reads that come one after the other, so that none finds another that is about to set out. */
const oneByOne = async <T>(count: number, read: (index: number) => Promise<T>): Promise<Promise<T>[]> => {
  const reads: Promise<T>[] = [];
  for (let index = 0; index < count; index += 1) {
    reads.push(read(index));
    await setImmediate();
  }
  return reads;
};

/** Takes all connections; a test gives back what it needs, and the rest is given back after it. */
const takeAll = async (): Promise<Connection[]> => {
  taken = await Promise.all(Array.from({ length: CONNECTIONS }, () => open.calls.acquire()));
  return taken;
};

// Those that waited went one by one once, on whichever connection came free: many callers cost more than few.
test('reads that wait for a connection go together on the one that comes free, as many as come to each', async () => {
  const [first] = await takeAll();
  const waits = CONNECTIONS * 2 + 1;
  const reads = await oneByOne(waits, () => session().one(backend, []));
  expect(open.calls.state.pending).toBe(waits);
  first!.release();
  expect(new Set(await Promise.all(reads)).size).toBe(1);
  expect(under.most).toBe(3);
});

test('a connection that comes free takes no more reads along than may go together', async () => {
  const [first] = await takeAll();
  const reads = await oneByOne(CONNECTIONS * TOGETHER * 2, (index) => session().one(echo, [`${index}`]));
  first!.release();
  expect(await Promise.all(reads)).toEqual(reads.map((_, index) => `${index}`));
  expect(under.most).toBe(TOGETHER);
});

test('who must have a connection of its own keeps its turn between reads that go together', async () => {
  const [first] = await takeAll();
  const order: string[] = [];
  const noted = (name: string, done: Promise<unknown>) => done.then(() => order.push(name));
  const done = await oneByOne(CONNECTIONS * 2, (index) => noted('read', session().one(echo, [`${index}`])));
  const alone = noted(
    'alone',
    open.calls.use(undefined, (connection) => connection.command('select 1')),
  );
  const behind = await oneByOne(CONNECTIONS * 2, (index) => noted('read', session().one(echo, [`${index}`])));
  first!.release();
  await Promise.all([...done, alone, ...behind]);
  expect(order.indexOf('alone')).toBeGreaterThan(0);
  expect(order.indexOf('alone')).toBeLessThan(order.length - 1);
});

test('each has its own answer, and what fails fails alone', async () => {
  const asked = fc.oneof(
    fc.record({ kind: fc.constant('echo' as const), text: fc.string({ maxLength: 3_000 }) }),
    fc.record({ kind: fc.constant('inverse' as const), of: fc.integer({ min: -1, max: 1 }) }),
    fc.record({ kind: fc.constant('unreadable' as const), text: fc.string() }),
  );
  const unreadable = new Error('nobody can read that');
  const run = async (each: unknown) => {
    const question = each as { kind: string; text: string; of: number };
    const db = session();
    if (question.kind === 'echo') return db.one(echo, [question.text.replaceAll('\0', '')]);
    if (question.kind === 'inverse') return db.one(inverse, [question.of]);
    const sink = () => ({
      ...db.texts(echo),
      wanted: () => db.texts(echo).wanted(),
      expect: () => {},
      row: () => {
        throw unreadable;
      },
    });
    return db.collect(echo, [question.text.replaceAll('\0', '')], sink);
  };
  await fc.assert(
    fc.asyncProperty(fc.array(asked, { minLength: 1, maxLength: 40 }), async (questions) => {
      const answers = await Promise.allSettled(questions.map(run));
      for (const [index, question] of questions.entries()) {
        const answer = answers[index]!;
        if (question.kind === 'echo') {
          expect(answer).toMatchObject({ status: 'fulfilled', value: question.text.replaceAll('\0', '') });
        } else if (question.kind === 'unreadable') {
          expect(answer).toMatchObject({ status: 'rejected', reason: unreadable });
        } else if (question.of === 0) {
          expect(answer).toMatchObject({ status: 'rejected', reason: { reason: 'UNUSABLE_VALUE' } });
        } else expect(answer).toMatchObject({ status: 'fulfilled', value: String(question.of) });
      }
    }),
    { numRuns: 60 },
  );
  expect(again).toEqual([]);
});

test('who is behind a slow one is answered by another connection, and the slow one goes alone after that', async () => {
  await warm();
  await holding(async (unlock) => {
    const first = session().one(waits, [1]);
    const others = Array.from({ length: 5 }, (_, index) => session().one(echo, [`${index}`]));
    expect(await Promise.all(others)).toEqual(['0', '1', '2', '3', '4']);
    expect(again).toEqual(Array(5).fill('displaced'));
    const pid = String(await waiting());
    // Nobody sets out with it now.
    const second = session().one(waits, [1]);
    const behind = await Promise.all([session().one(backend, []), session().one(backend, [])]);
    expect(behind).not.toContain(pid);
    await unlock();
    expect(await first).toBe(pid);
    expect(behind).not.toContain(await second);
  });
  expect(again).toHaveLength(5);
});

test('who is behind and leaves is let go at once, and who is before it does not notice', async () => {
  await warm();
  await holding(async (unlock) => {
    const leaving = new Ending();
    const first = session().one(stays, [1]);
    const second = session(leaving).one(echo, ['never']);
    const pid = await waiting();
    const reason = new Error('the caller has left');
    leaving.abort(reason);
    await expect(second).rejects.toBe(reason);
    await unlock();
    expect(await first).toBe(String(pid));
  });
});

test('who is first and leaves is stopped, and who is behind is answered', async () => {
  await warm();
  await holding(async () => {
    const leaving = new Ending();
    const first = session(leaving).one(leaves, [1]);
    const others = Array.from({ length: 5 }, (_, index) => session().one(echo, [`${index}`]));
    await waiting();
    const reason = new Error('the caller has left');
    leaving.abort(reason);
    await expect(first).rejects.toBe(reason);
    expect(await Promise.all(others)).toEqual(['0', '1', '2', '3', '4']);
    const { rows } = await person.query(WAITING_FOR_LOCK);
    expect(rows).toEqual([]);
  });
});

test('a backend that dies under them costs nobody an answer', async () => {
  await warm();
  await holding(async (unlock) => {
    const first = session().one(dies, [1]);
    const others = Array.from({ length: 5 }, (_, index) => session().one(echo, [`${index}`]));
    const pid = await waiting();
    await person.query('select pg_terminate_backend($1)', [pid]);
    expect(await Promise.all(others)).toEqual(['0', '1', '2', '3', '4']);
    await vi.waitFor(async () => expect(await waiting()).not.toBe(pid));
    await unlock();
    expect(await first).not.toBe(String(pid));
  });
});

// A request to stop that comes too late finds the next statement: nobody may be told of a stop that was meant for another.
test('whoever leaves and whenever, each is told its own answer or its own reason', async () => {
  await warm();
  const call = fc.record({
    takesMs: fc.integer({ min: 0, max: 3 }),
    leavesMs: fc.option(fc.integer({ min: 0, max: 4 })),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(call, { minLength: 2, maxLength: 24 }), async (calls) => {
      const answers = calls.map(async ({ takesMs, leavesMs }, index) => {
        const leaving = new Ending();
        const reason = new Error(`${index} has left`);
        if (leavesMs !== null) setTimeout(() => leaving.abort(reason), leavesMs);
        try {
          return (await session(leaving).one(late, [`${index}`, takesMs / 1_000])) === `${index}`;
        } catch (error) {
          return leavesMs === null ? error : error === reason;
        }
      });
      expect(await Promise.all(answers)).toEqual(calls.map(() => true));
    }),
    { numRuns: 60 },
  );
});
