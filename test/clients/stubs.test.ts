/**
 * The command of the README that makes stubs for Python, as a user runs it, and a program that uses them beside the packages of
 * health and error details that Python has. The clients for Go, Java and TypeScript make their own, and their tests build them.
 */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, expect, test } from 'vitest';
import { succeeds } from '../support/toolchain.ts';
import { useFolder, useSidecar } from '../support/use.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** What has been fetched. */
const VENV = join(ROOT, 'node_modules', '.cache', 'stubs-python');
const BIN = join(VENV, 'bin');
/** The longest that a command may take, for it may have to fetch what it needs. */
const FETCH_MS = 240_000;

const sidecar = useSidecar();
const folder = useFolder();

beforeAll(() => {
  cpSync(join(ROOT, 'proto'), join(folder, 'proto'), { recursive: true });
  cpSync(join(import.meta.dirname, 'python'), folder, { recursive: true });
});

/** Runs lines of a shell; their standard output. */
const shell = async (lines: string, env: Readonly<Record<string, string>> = {}): Promise<string> => {
  const PATH = [BIN, process.env['PATH']].join(delimiter);
  const options = { cwd: folder, env: { ...process.env, ...env, PATH }, timeout: FETCH_MS };
  return (await promisify(execFile)('bash', ['-euc', lines], options)).stdout;
};

/** The commands that the README has for Python. */
const readme = (): string => {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8');
  return /^Python:\n\n```console\n([\s\S]*?)^```/m.exec(text)![1]!.replace(/^\$ /gm, '');
};

test('the stubs that the README makes work beside the packages of grpcio', { timeout: 300_000 }, async ({ skip }) => {
  try {
    if (!existsSync(BIN)) await shell(`python3 -m venv ${VENV}`);
    await shell('pip install -q -r requirements.txt');
  } catch (error) {
    const isThere = await succeeds('python3', '-m', 'venv', '--help');
    if (isThere && (await succeeds(join(BIN, 'pip'), 'index', 'versions', 'grpcio'))) throw error;
    const why = isThere ? 'pip does not reach its packages' : 'there is no python3';
    console.log(`skipped: the stubs for Python, for ${why}`);
    return skip();
  }
  await shell(readme());
  // It asks for health, reads a list, and tries to write without a transaction.
  expect(await shell(`python client.py ${sidecar.server.grpcAddress}`, { PYTHONPATH: 'gen' })).toBe(
    'SERVING\n0\nTRANSACTION_REQUIRED\n',
  );
});
