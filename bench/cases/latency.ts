import type { Case } from '../bench.ts';
import { point, statements } from '../calls.ts';
import { Rounds, type Side } from '../rounds.ts';
import { answerBytes, loaded, prepared, repeated } from '../sides.ts';

/** What a call adds for one caller to the same statement from `pg`. */
export const latency: Case = {
  name: 'latency',
  run: async ({ database, fleet, report, id, roundMs: ms, ...pace }) => {
    const sides = new Map<string, Side>();
    for (const served of await fleet()) {
      const call = point(id);
      const load = { calls: [call], bytes: await answerBytes(served, call), callers: 1, ms };
      sides.set(served.name, loaded(served, load));
    }
    const statement = prepared('point', statements.point(id));
    sides.set(
      'pg',
      repeated(() => database.client.query(statement), ms),
    );
    const found = await Rounds.of(sides, pace);
    report.rates('Point read by id, 1 caller', found);
    report.target('latency added for 1 caller, p50', found.added('sidecar', 'pg'), '<=', 0.3, 'ms');
  },
};
