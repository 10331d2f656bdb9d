import type { Bench, Case } from '../bench.ts';
import { noop, point, statements } from '../calls.ts';
import { addViolations, VIOLATIONS } from '../database.ts';
import { Rounds, type Side } from '../rounds.ts';
import { answerBytes, benched, loaded } from '../sides.ts';

const CALLERS = 16;
const IDS = 1_000;
const OURS = 'sidecar';
const NOOP = 'sidecar, call without database';

/** Indexes that no point read uses make a large table slow to fill; nothing that runs later needs them. */
const dropIndexes = async ({ client }: Bench['database']): Promise<void> => {
  const { rows } = await client.query<{ name: string }>(
    `select indexrelid::regclass::text as name from pg_index where indrelid = 'policy.violations'::regclass and not indisprimary`,
  );
  for (const { name } of rows) await client.query(`drop index ${name}`);
};

/** Rows spread over the table. */
const someIds = async ({ client }: Bench['database'], size: number): Promise<string[]> => {
  const share = (2 * IDS) / size;
  const { rows } = await client.query<{ id: string }>(
    `select id from policy.violations where random() < ${share} limit ${IDS}`,
  );
  return rows.map(({ id }) => id);
};

/** Point reads of ever larger tables, and of ever more callers. */
export const growth: Case = {
  name: 'growth',
  run: async (bench) => {
    const { database, report, roundMs: ms, largest } = bench;
    const [ours] = await bench.fleet();
    await dropIndexes(database);
    const load = async (callers: number, ids: readonly string[]) => {
      const calls = ids.map(point);
      return { calls, bytes: await answerBytes(ours!, calls[0]!), callers, ms };
    };

    const shares: number[] = [];
    const table: string[][] = [];
    let ids: string[] = [];
    for (let size = VIOLATIONS; size <= largest; size *= 10) {
      if (size > VIOLATIONS) await database.client.query(addViolations(size / 10 + 1, size));
      await database.client.query('vacuum analyze policy.violations');
      ids = await someIds(database, size);
      const sides = new Map<string, Side>([
        [OURS, loaded(ours!, await load(CALLERS, ids))],
        [NOOP, loaded(ours!, { calls: [noop], bytes: await answerBytes(ours!, noop), callers: CALLERS, ms })],
      ]);
      const direct = benched(database.url, statements.point(ids[0]!), CALLERS, ms);
      if (direct) sides.set('pgbench', direct);
      const found = await Rounds.of(sides, bench);
      shares.push(found.ratio(OURS, NOOP)!);
      const rate = (name: string): string => found.summary(name)?.rps.toFixed(0) ?? '';
      table.push([
        size.toLocaleString('en'),
        rate(OURS),
        rate(NOOP),
        found.ratio(OURS, NOOP)!.toFixed(2),
        rate('pgbench'),
      ]);
    }
    report.table(
      `Point reads of a growing table, ${CALLERS} callers`,
      ['rows', `${OURS}, a second`, `${NOOP}, a second`, 'ratio', 'pgbench (one row), a second'],
      table,
    );
    const most = largest.toLocaleString('en');
    const flat = shares.length > 1 ? shares.at(-1)! / shares[0]! : undefined;
    report.target(`point reads at ${most} rows, of those at ${VIOLATIONS.toLocaleString('en')}`, flat, '>=', 0.9);

    const few = '64 callers';
    const many = '256 callers';
    const sides = new Map([
      [few, loaded(ours!, await load(64, ids))],
      [many, loaded(ours!, await load(256, ids))],
    ]);
    const found = await Rounds.of(sides, bench);
    report.rates('Point reads of many callers', found);
    report.target('point reads of 256 callers together, of 64', found.ratio(many, few), '>=', 0.95);
  },
};
