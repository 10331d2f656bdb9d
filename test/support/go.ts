/** Go, for tests that compile something with it: found, with what it needs fetched, and one compilation at a time. */
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { succeeds } from './toolchain.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CACHE = join(ROOT, 'node_modules', '.cache');
/** Where Go puts itself, whatever the path says. */
const GO = '/usr/local/go/bin';
/** The longest that a command may take, for it may have to fetch and compile what it needs. */
const COMMAND_MS = 540_000;

/** Runs a command that may call Go, and fails with all that it said. */
export const run = async (
  cwd: string,
  program: string,
  args: readonly string[],
  extra: Readonly<Record<string, string>> = {},
): Promise<string> => {
  const env = {
    ...process.env,
    PATH: [join(ROOT, 'node_modules', '.bin'), process.env['PATH'], GO].join(delimiter),
    ...extra,
  };
  try {
    return (await promisify(execFile)(program, args, { cwd, env, timeout: COMMAND_MS, maxBuffer: 1 << 26 })).stdout;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${program} ${args.join(' ')}\n${stdout}\n${stderr}`, { cause: error });
  }
};

/**
 * Runs `go build`, while no other test of this checkout does: side by side they would compile the same packages, each for
 * itself.
 */
export const goBuild = async (cwd: string, ...args: readonly string[]): Promise<void> => {
  mkdirSync(CACHE, { recursive: true });
  const locked = (await succeeds('flock', '--version')) ? ['flock', join(CACHE, 'go.lock')] : [];
  const [program = '', ...rest] = [...locked, 'go', 'build', ...args];
  await run(cwd, program, rest);
};

/** Fetches the modules of a folder; why that cannot be, where the machine is not made for it. */
export const whyNoGo = async (cwd: string): Promise<string | undefined> => {
  try {
    await run(cwd, 'go', ['version']);
  } catch {
    return 'there is no go';
  }
  try {
    await run(cwd, 'go', ['mod', 'download']);
    return undefined;
  } catch (error) {
    const isReached = run(cwd, 'go', ['list', '-m', 'google.golang.org/grpc@latest']).then(
      () => true,
      () => false,
    );
    if (await isReached) throw error;
    return 'go does not reach its modules';
  }
};
