/** What can be a side of a comparison: a server under load, pgbench, a prepared statement of `pg`. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import type { Statement } from './calls.ts';
import { type Call, Channel } from './channel.ts';
import { drive, type Load, quantile } from './load.ts';
import { pgbench } from './peers.ts';
import type { Side } from './rounds.ts';
import type { Served } from './server.ts';

const run = promisify(execFile);

/** Bytes of the body of an answer, prefix included. */
export const answerBytes = async (served: Served, call: Call): Promise<number> => {
  const channel = await Channel.open(served.address);
  const message = await channel.unary(call);
  channel.close();
  return message.length + 5;
};

/** A server under load, with its CPU time. */
export const loaded =
  (served: Served, load: Load): Side =>
  async () => {
    const before = served.cpuUs();
    const found = await drive(served.address, load);
    const after = served.cpuUs();
    const cpuUs = before === undefined || after === undefined ? undefined : (after - before) / found.count;
    return { ...found, cpuUs };
  };

/** The statement from so many clients of pgbench, prepared. Undefined: the machine has no pgbench. */
export const benched = (url: string, { text, values }: Statement, clients: number, ms: number): Side | undefined => {
  if (!pgbench) return undefined;
  const sql = `${text.replace(/\s+/g, ' ').replace(/\$(\d+)/g, ':p$1')};\n`;
  const params = values.flatMap((value, index) => ['-D', `p${index + 1}=${value}`]);
  return async () => {
    const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-pgbench-'));
    const file = join(folder, 'bench.sql');
    await writeFile(file, sql);
    const seconds = String(Math.max(1, Math.round(ms / 1_000)));
    const args = ['-n', '-M', 'prepared', '-c', String(clients), '-j', '1', '-T', seconds, '-f', file, ...params, url];
    const { stdout } = await run(pgbench!, args);
    await rm(folder, { recursive: true });
    return {
      rps: Number(/tps = ([\d.]+)/.exec(stdout)![1]),
      p50: Number(/latency average = ([\d.]+)/.exec(stdout)![1]),
    };
  };
};

/** The statement from one connection of `pg`, prepared, one after the other. */
export const prepared =
  (client: pg.Client, name: string, { text, values }: Statement, ms: number): Side =>
  async () => {
    const times: number[] = [];
    const ends = performance.now() + ms;
    while (performance.now() < ends) {
      const started = performance.now();
      await client.query({ name, text, values: [...values] });
      times.push(performance.now() - started);
    }
    const ordered = times.sort((a, b) => a - b);
    return { rps: times.length / (ms / 1_000), p50: quantile(ordered, 0.5), p99: quantile(ordered, 0.99) };
  };
