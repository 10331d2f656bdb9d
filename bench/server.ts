/** A server in a process of its own, as in production. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { noop } from './calls.ts';
import { Channel } from './channel.ts';

/** How a server is started: it prints `gRPC <host:port>` when it listens and ends at SIGTERM. */
export interface Command {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** True where it answers `grpc.health.v1.Health/Check`. */
  readonly health: boolean;
}

export interface Served {
  readonly name: string;
  readonly address: string;
  /** From its start until it listened or, with health, was SERVING, in ms. */
  readonly startMs: number;
  /** Resident memory, MB; undefined where there is no /proc. */
  rss(): number | undefined;
  /** CPU time used so far by all its threads, µs, in steps of 10 ms; undefined where there is no /proc. */
  cpuUs(): number | undefined;
  stop(): Promise<void>;
}

const TICK_US = 10_000;
/** A message of `HealthCheckResponse` that says SERVING. */
const SERVING = Buffer.from([8, 1]);

const proc = (pid: number, file: string): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return undefined;
  }
};

/** Starts a server and waits until it serves. */
export const serve = async ({ name, program, args, env, health }: Command): Promise<Served> => {
  const started = performance.now();
  const child = spawn(program, args, {
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = new Promise<void>((resolve) => child.on('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  const lines = createInterface({ input: child.stdout });
  const address = await new Promise<string | undefined>((resolve) => {
    lines.on('line', (line) => {
      const found = /^gRPC +(\S+)$/.exec(line)?.[1];
      if (found) resolve(found);
    });
    lines.on('close', () => resolve(undefined));
    child.on('error', () => resolve(undefined));
  });
  if (!address) throw new Error(`${name} did not start: ${[program, ...args].join(' ')}`);
  if (health) {
    const channel = await Channel.open(address);
    while (!(await channel.unary(noop)).equals(SERVING));
    channel.close();
  }
  const pid = child.pid!;
  return {
    name,
    address,
    startMs: performance.now() - started,
    rss: () => {
      const kb = /VmRSS:\s+(\d+)/.exec(proc(pid, 'status') ?? '')?.[1];
      return kb === undefined ? undefined : Number(kb) / 1_024;
    },
    cpuUs: () => {
      const stat = proc(pid, 'stat');
      if (!stat) return undefined;
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return (Number(fields[11]) + Number(fields[12])) * TICK_US;
    },
    stop,
  };
};
