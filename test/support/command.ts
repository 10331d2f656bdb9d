import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, inject, vi } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
const LISTEN = { SIDECAR_GRPC_LISTEN: '127.0.0.1:0', SIDECAR_HTTP_LISTEN: '127.0.0.1:0' };

/** What the tests' own environment sets must not reach the command. */
const clean = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => name !== 'DATABASE_URL' && !name.startsWith('SIDECAR_')),
);

/** The command as a process of its own. */
export interface Command {
  readonly child: ChildProcess;
  /** What it has written so far. */
  readonly out: () => string;
  readonly err: () => string;
  /** Exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
  /** Waits for the call to try, the last thing a start prints; where it listens. */
  serving(): Promise<{ grpc: string; http: string }>;
}

/** Where a command runs, and what becomes of its standard error. */
export interface LaunchOptions {
  /** Default: this checkout. */
  readonly cwd?: string;
  /** A descriptor; default: it is read. */
  readonly stderr?: number | undefined;
}

const running = new Set<ChildProcess>();

/** Ends what still runs. */
export const endAll = async (): Promise<void> => {
  for (const child of running) {
    child.kill('SIGTERM');
    await once(child, 'close');
  }
};

/** Starts a program, on free ports unless told otherwise. */
export const launch = (
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  { cwd = ROOT, stderr }: LaunchOptions = {},
): Command => {
  const child = spawn(program, args, {
    cwd,
    env: { ...clean, ...LISTEN, ...env },
    stdio: ['ignore', 'pipe', stderr ?? 'pipe'],
  });
  running.add(child);
  const text = { out: '', err: '' };
  child.stdout?.on('data', (chunk) => {
    text.out += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    text.err += chunk;
  });
  const ended = once(child, 'close').then(([code, signal]) => {
    running.delete(child);
    return code ?? signal;
  });
  return {
    child,
    out: () => text.out,
    err: () => text.err,
    ended,
    serving: async () => {
      await vi.waitFor(() => expect(text.out + text.err).toMatch(/curl -H .*\n/));
      return {
        grpc: /^gRPC\s+(\S+)/m.exec(text.out)?.[1] ?? '',
        http: /^HTTP\s+(\S+)/m.exec(text.out)?.[1] ?? '',
      };
    },
  };
};

/** Starts the program as it ships: see {@link launch}. */
export const startCommand = (
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  options: LaunchOptions = {},
): Command => launch(process.execPath, [inject('program'), ...args], env, options);
