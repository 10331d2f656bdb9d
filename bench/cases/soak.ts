import { type Case, peakRss } from '../bench.ts';
import { point } from '../calls.ts';
import { drive } from '../load.ts';
import { median } from '../rounds.ts';
import { answerBytes } from '../sides.ts';

const SLICE_MS = 10_000;
const CALLERS = 64;

/** Point reads at half of what the server can, for as long as asked for: memory and latency must stay what they are. */
export const soak: Case = {
  name: 'soak',
  run: async ({ fleet, report, id, soak: minutes }) => {
    const [ours] = await fleet();
    const call = point(id);
    const load = { calls: [call], bytes: await answerBytes(ours!, call), callers: CALLERS, ms: SLICE_MS };
    await drive(ours!.address, load);
    const { rps } = await drive(ours!.address, load);
    const slices: { rss: number; p50: number; p99: number }[] = [];
    const ends = performance.now() + minutes * 60_000;
    while (performance.now() < ends) {
      const [rss, { p50, p99 }] = await peakRss(ours!, drive(ours!.address, { ...load, rate: rps / 2 }));
      slices.push({ rss, p50, p99 });
    }
    const third = Math.max(1, Math.floor(slices.length / 3));
    const parts = [slices.slice(0, third), slices.slice(-third)];
    const over = (key: 'rss' | 'p50' | 'p99') => parts.map((part) => median(part.map((each) => each[key])));
    const rows = (['rss', 'p50', 'p99'] as const).map((key) => [key, ...over(key).map((value) => value.toFixed(2))]);
    report.table(
      `${minutes} minutes of ${Math.round(rps / 2)} point reads a second, medians of slices of ${SLICE_MS / 1_000} s`,
      ['', 'first third', 'last third'],
      rows,
    );
    const grown = (key: 'rss' | 'p99'): number => over(key)[1]! / over(key)[0]!;
    report.target('soak: memory of the last third, of the first', grown('rss'), '<=', 1.1);
    report.target('soak: p99 of the last third, of the first', grown('p99'), '<=', 1.5);
  },
};
