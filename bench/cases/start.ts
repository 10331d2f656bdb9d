import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { alone, type Case } from '../bench.ts';
import { sidecar } from '../peers.ts';
import { median } from '../rounds.ts';
import type { Command } from '../server.ts';

/** From the start of the process until it serves. */
export const start: Case = {
  name: 'start',
  run: async ({ database, report, sidecar: ours, peers, rounds }) => {
    const timed = (command: Command): Promise<number> => alone(command, async ({ startMs }) => startMs);
    const cold = async (): Promise<number> => {
      const nothing = await mkdtemp(join(tmpdir(), 'policy-sidecar-cold-'));
      const ms = await timed(sidecar(database.url, nothing));
      await rm(nothing, { recursive: true, force: true });
      return ms;
    };
    const sides: [string, () => Promise<number>][] = [
      ['sidecar, warm', () => timed(ours)],
      ['sidecar, nothing compiled before', cold],
      ...peers.map((peer): [string, () => Promise<number>] => [peer.name, () => timed(peer)]),
    ];
    const found = new Map<string, number[]>(sides.map(([name]) => [name, []]));
    for (const [, side] of sides) await side();
    for (let round = 0; round < rounds; round += 1) {
      for (const [name, side] of sides) found.get(name)!.push(await side());
    }
    const rows = [...found].map(([name, all]) => [name, median(all).toFixed(0)]);
    report.table('Start until it serves', ['', 'ms'], rows);
    report.target('start to SERVING, warm', median(found.get('sidecar, warm')!), '<=', 500, 'ms');
  },
};
