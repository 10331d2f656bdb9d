import { alone, type Bench, type Case, idleRss, peakRss } from '../bench.ts';
import { stream } from '../calls.ts';
import { Channel } from '../channel.ts';
import { median } from '../rounds.ts';
import type { Command } from '../server.ts';

/** What a stream may send before it is read, bytes: a client that keeps up, and no more. */
const WINDOW = 1 << 20;

interface Streamed {
  readonly rows: number;
  readonly bytes: number;
}

/** Counts gRPC messages in a body that comes in pieces. */
const counter = () => {
  const prefix = Buffer.alloc(5);
  let [got, skip, count] = [0, 0, 0];
  return {
    add: (piece: Buffer): void => {
      for (let at = 0; at < piece.length; ) {
        const skipped = Math.min(skip, piece.length - at);
        skip -= skipped;
        at += skipped;
        for (; skip === 0 && at < piece.length && got < 5; at += 1, got += 1) prefix[got] = piece[at]!;
        if (got < 5) continue;
        count += 1;
        got = 0;
        skip = prefix.readUInt32BE(1);
      }
    },
    count: () => count,
  };
};

const streamed = async (address: string): Promise<Streamed> => {
  const channel = await Channel.open(address, WINDOW);
  const { add, count } = counter();
  const bytes = await new Promise<number>((resolve, reject) => {
    channel.start(stream, (error, answer) => (error ? reject(error) : resolve(answer.bytes)), false, add);
  });
  channel.close();
  return { rows: count(), bytes };
};

const measure = (command: Command, expected: number) =>
  alone(command, async (served) => {
    const idle = await idleRss(served);
    const [cpu, began] = [served.cpuUs(), performance.now()];
    const [most, { rows, bytes }] = await peakRss(served, streamed(served.address));
    if (rows !== expected) throw new Error(`${command.name} streamed ${rows} rows, and not ${expected}`);
    const seconds = (performance.now() - began) / 1_000;
    const cpuSeconds = cpu === undefined ? Number.NaN : (served.cpuUs()! - cpu) / 1_000_000;
    return { bytes, perSecond: rows / seconds, perCore: rows / cpuSeconds, added: most - idle };
  });

const fill = ({ database }: Bench, rows: number): Promise<unknown> =>
  database.client.query(`insert into policy.policy_conflicts (policy_a, policy_b, conflict_type, description, detected_at)
    select 'a', 'b', 'direct_contradiction', 'a contradiction of some length', now() + n * interval '1 ms'
    from generate_series(1, ${rows}) n`);

/** All rows of a table in one call. */
export const longStream: Case = {
  name: 'stream',
  run: async (bench) => {
    const { report, database, sidecar, peers, quick } = bench;
    const rows = quick ? 100_000 : 1_000_000;
    await fill(bench, rows);
    await database.client.query('vacuum analyze policy.policy_conflicts');
    const sides = [sidecar, ...peers.filter(({ name }) => name === 'go')];
    const found = new Map<Command, Awaited<ReturnType<typeof measure>>[]>(sides.map((side) => [side, []]));
    for (let round = 0; round < (quick ? 1 : 3); round += 1) {
      for (const side of sides) found.get(side)!.push(await measure(side, rows));
    }
    const lengths = [...found.values()].flat().map(({ bytes }) => bytes);
    // The tokens that a stream goes on with are the sidecar's alone: 122 bytes on one row of five hundred.
    if (Math.max(...lengths) > Math.min(...lengths) * 1.003) {
      throw new Error(`the streams differ: ${[...new Set(lengths)].join(', ')} bytes`);
    }
    const over = (side: Command, key: 'perSecond' | 'perCore' | 'added'): number =>
      median(found.get(side)!.map((each) => each[key]));
    const shown = (value: number): string => Math.round(value).toLocaleString('en');
    report.table(
      `Stream of ${shown(rows)} rows`,
      ['', 'rows a second', 'rows a second of its CPU', 'memory over idle, MB'],
      sides.map((side) => [
        side.name,
        shown(over(side, 'perSecond')),
        shown(over(side, 'perCore')),
        shown(over(side, 'added')),
      ]),
    );
    report.target('stream, rows a second of its CPU', over(sidecar, 'perCore'), '>=', 300_000);
    report.target(`stream of ${shown(rows)} rows, memory over idle`, over(sidecar, 'added'), '<=', 40, 'MB');
  },
};
