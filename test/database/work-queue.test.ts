import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { openPool } from '../support/postgres.ts';
import { useDatabase } from '../support/use.ts';

const database = useDatabase();
let pool: pg.Pool;
beforeAll(() => {
  pool = openPool(database.url, 12);
});
afterAll(() => pool?.end());

const rows = async (sql: string, values: readonly unknown[] = []) => (await pool.query(sql, [...values])).rows;

const enqueue = async (candidate: number | null, priority: number | null = 0): Promise<number> =>
  (await rows('select m10_recovery.enqueue_work($1, null, $2) as id', [candidate, priority]))[0].id;

const item = async (id: number) => (await rows('select * from m10_recovery.work_queue where id = $1', [id]))[0];

const claim = (worker: string, size: number | null) =>
  rows('select * from m10_recovery.claim_work($1, $2) order by priority desc, work_id', [worker, size]);

describe('the queue of candidates', () => {
  beforeEach(() => rows('truncate m10_recovery.work_queue restart identity'));

  test('a candidate has one unprocessed item, which keeps its highest priority', async () => {
    const id = await enqueue(902, 9);
    expect(await enqueue(902, 3)).toBe(id);
    expect(await item(id)).toMatchObject({ priority: 9, retry_count: 1 });
    await rows('select m10_recovery.complete_work($1)', [id]);
    expect(await enqueue(902)).not.toBe(id);
  });

  test('no priority counts as 0 for a new item and changes none that is stored', async () => {
    expect(await item(await enqueue(1, null))).toMatchObject({ priority: 0 });
    const low = await enqueue(2, -5);
    await enqueue(2, null);
    expect(await item(low)).toMatchObject({ priority: -5, retry_count: 1 });
  });

  test('an item that is claimed still takes what is enqueued', async () => {
    const id = await enqueue(7);
    await claim('worker', 1);
    expect(await enqueue(7, 4)).toBe(id);
    expect(await item(id)).toMatchObject({ claimed_by: 'worker', priority: 4 });
  });

  test('claims go by priority and never hand out an item twice', async () => {
    for (let candidate = 0; candidate < 60; candidate += 1) await enqueue(candidate, candidate);
    expect((await claim('first', 2)).map(({ candidate_id }) => candidate_id)).toEqual([59, 58]);
    const claimed = await Promise.all(Array.from({ length: 12 }, (_, worker) => claim(`w${worker}`, 10)));
    const ids = claimed.flat().map(({ work_id }) => work_id);
    expect(new Set(ids).size).toBe(ids.length);
    const left = await claim('last', null);
    expect(ids.length + left.length).toBe(58);
  });

  test('a failure gives the item back, a stalled worker loses it', async () => {
    const id = await enqueue(5);
    await claim('worker', 1);
    await rows('select m10_recovery.complete_work($1, false, $2)', [id, 'broken']);
    expect(await item(id)).toMatchObject({ claimed_by: null, error_message: 'broken', retry_count: 1 });
    await claim('worker', 1);
    expect(await rows('select m10_recovery.release_stalled_work() as released')).toEqual([{ released: 0 }]);
    await rows(`update m10_recovery.work_queue set claimed_at = now() - interval '301 seconds'`);
    expect(await rows('select m10_recovery.release_stalled_work() as released')).toEqual([{ released: 1 }]);
    expect(await item(id)).toMatchObject({
      claimed_at: null,
      error_message: 'Released: worker stalled',
      retry_count: 1,
    });
    expect(await rows('select m10_recovery.complete_work(0) as known')).toEqual([{ known: false }]);
  });

  test('many may enqueue one candidate at once', async () => {
    const ids = await Promise.all(Array.from({ length: 200 }, () => enqueue(11)));
    expect(new Set(ids).size).toBe(1);
    expect(await item(ids[0]!)).toMatchObject({ retry_count: 199 });
  });
});

describe('the statistics of an action', () => {
  const execute = (candidate: number, status: string) =>
    rows('update public.recovery_candidates set execution_status = $2 where id = $1', [candidate, status]);

  test('count each end of an execution once, in double precision', async () => {
    const candidates: number[] = [];
    for (let i = 0; i < 5; i += 1) {
      const [row] = await rows(
        `insert into public.recovery_candidates (failure_match_id, suggestion, confidence, selected_action_id)
         values ($1, 's', 0.5, 1) returning id`,
        [randomUUID()],
      );
      candidates.push(row.id);
    }
    for (const [i, candidate] of candidates.entries()) {
      await execute(candidate, 'executing');
      await execute(candidate, i < 2 ? 'succeeded' : 'failed');
      await execute(candidate, i < 2 ? 'succeeded' : 'failed');
    }
    expect(
      await rows(`select total_applications, successful_applications, success_rate
        from m10_recovery.suggestion_action where id = 1`),
    ).toEqual([{ total_applications: 5, successful_applications: 2, success_rate: 0.4 }]);
  });
});
