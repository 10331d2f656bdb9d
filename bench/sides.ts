/** What can be a side of a comparison: a server under load, pgbench, a prepared statement of `pg`. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
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

/** Work of the bench's own process, done over and over. */
export const repeated =
  (work: () => Promise<unknown>, ms: number): Side =>
  async () => {
    const times: number[] = [];
    const began = performance.now();
    while (performance.now() < began + ms) {
      const started = performance.now();
      await work();
      times.push(performance.now() - started);
    }
    const seconds = (performance.now() - began) / 1_000;
    times.sort((a, b) => a - b);
    return { rps: times.length / seconds, p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
  };

/** A prepared statement of `pg`. */
export const prepared = (name: string, { text, values }: Statement) => ({ name, text, values: [...values] });
