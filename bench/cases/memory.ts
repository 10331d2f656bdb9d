import { alone, type Case, idleRss, peakRss } from '../bench.ts';
import { list } from '../calls.ts';
import { drive } from '../load.ts';
import { answerBytes } from '../sides.ts';

const CALLERS = 64;

/** Memory of a server just started, and under lists. */
export const memory: Case = {
  name: 'memory',
  run: async ({ report, sidecar, peers, quick }) => {
    const rows: string[][] = [];
    for (const command of [sidecar, ...peers]) {
      const [idle, busy] = await alone(command, async (served) => {
        const before = await idleRss(served);
        const load = {
          calls: [list],
          bytes: await answerBytes(served, list),
          callers: CALLERS,
          ms: quick ? 2_000 : 10_000,
        };
        const [most] = await peakRss(served, drive(served.address, load));
        return [before, most] as const;
      });
      rows.push([command.name, idle.toFixed(0), busy.toFixed(0)]);
      if (command !== sidecar) continue;
      report.target('memory, idle', idle, '<=', 90, 'MB');
      report.target(`memory, ${CALLERS} concurrent lists`, busy, '<=', 160, 'MB');
    }
    report.table('Resident memory', ['', 'idle, MB', `${CALLERS} callers of lists, MB`], rows);
  },
};
