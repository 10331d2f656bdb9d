import type { Bench, Case } from '../bench.ts';
import { list, noop, point, type Statement, statements, write } from '../calls.ts';
import type { Call } from '../channel.ts';
import { Rounds, type Side } from '../rounds.ts';
import { answerBytes, benched, loaded } from '../sides.ts';

const CALLERS = 16;

const NOOP = 'sidecar, call without database';
const PGBENCH = 'pgbench';

/** A call on every server, a call without database, the same statement from pgbench, and what these two would make together. */
const compare = async (bench: Bench, call: Call, statement: Statement): Promise<Rounds> => {
  const { database, roundMs: ms } = bench;
  const fleet = await bench.fleet();
  const sides = new Map<string, Side>();
  for (const served of fleet) {
    sides.set(
      served.name,
      loaded(served, { calls: [call], bytes: await answerBytes(served, call), callers: CALLERS, ms }),
    );
  }
  const bare = { calls: [noop], bytes: await answerBytes(fleet[0]!, noop), callers: CALLERS, ms };
  sides.set(NOOP, loaded(fleet[0]!, bare));
  const direct = benched(database.url, statement, CALLERS, ms);
  if (direct) sides.set(PGBENCH, direct);
  return (await Rounds.of(sides, bench)).inSeries('call without database, then pgbench', NOOP, PGBENCH);
};

export const pointRead: Case = {
  name: 'point',
  run: async (bench) => {
    const found = await compare(bench, point(bench.id), statements.point(bench.id));
    const { report } = bench;
    report.rates(`Point read by id, ${CALLERS} callers`, found);
    report.target('point read, of a call without database', found.ratio('sidecar', NOOP), '>=', 0.5);
    report.target('point read, of Go', found.ratio('sidecar', 'go'), '>=', 0.65);
    report.target('point read, of asyncpg', found.ratio('sidecar', 'asyncpg'), '>=', 3);
    report.target('point read, of SQLAlchemy', found.ratio('sidecar', 'sqlalchemy-core'), '>=', 6);
    report.target('point read, of MikroORM', found.ratio('sidecar', 'mikro-orm'), '>=', 8);
  },
};

export const listOfHundred: Case = {
  name: 'list',
  run: async (bench) => {
    const found = await compare(bench, list, statements.list);
    const { report } = bench;
    report.rates(`List of 100, ${CALLERS} callers`, found);
    report.target('list of 100, of Go', found.ratio('sidecar', 'go'), '>=', 2.5);
    report.target('list of 100, of pgbench', found.ratio('sidecar', PGBENCH), '>=', 0.4);
    report.target('list of 100, of asyncpg', found.ratio('sidecar', 'asyncpg'), '>=', 12);
  },
};

export const singleUseWrite: Case = {
  name: 'write',
  run: async (bench) => {
    const found = await compare(bench, write, statements.write);
    const { report } = bench;
    report.rates(`Single-use write, ${CALLERS} callers`, found);
    report.target('single-use write, of Go', found.ratio('sidecar', 'go'), '>=', 0.65);
    report.target('single-use write, of pgbench', found.ratio('sidecar', PGBENCH), '>=', 0.6);
  },
};
