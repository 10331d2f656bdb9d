/** The Go client: its own tests against the program as it ships, and its stubs against the contract. */
import { execFile } from 'node:child_process';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..', '..');
/** Where Go puts itself, whatever the path says. */
const GO = '/usr/local/go/bin';
/** The longest that a command may take, for it may have to fetch and compile what it needs. */
const COMMAND_MS = 540_000;

const folder = mkdtempSync(join(tmpdir(), 'client-go-'));
let missing: string | undefined;

const run = async (cwd: string, program: string, ...args: readonly string[]): Promise<string> => {
  const env = {
    ...process.env,
    PATH: [join(ROOT, 'node_modules', '.bin'), process.env['PATH'], GO].join(delimiter),
    POLICY_SIDECAR_COMMAND: `${process.execPath} ${inject('program')}`,
  };
  const options = { cwd, env, timeout: COMMAND_MS, maxBuffer: 1 << 26 };
  return (await promisify(execFile)(program, args, options)).stdout;
};

/** Fails with all that a command said. */
const loudly = (error: { stdout?: string; stderr?: string }): never => {
  throw new Error(`${error.stdout ?? ''}\n${error.stderr ?? ''}`, { cause: error });
};

beforeAll(async () => {
  cpSync(join(ROOT, 'clients', 'go'), folder, { recursive: true });
  try {
    await run(folder, 'go', 'version');
  } catch {
    missing = 'there is no go';
    return;
  }
  try {
    await run(folder, 'go', 'mod', 'download');
  } catch (error) {
    const isReached = run(folder, 'go', 'list', '-m', 'google.golang.org/grpc@latest').then(
      () => true,
      () => false,
    );
    if (await isReached) throw error;
    missing = 'go does not reach its modules';
  }
}, 600_000);
afterAll(() => rmSync(folder, { recursive: true }));

test('the Go client does what it promises, told by its own tests', { timeout: 600_000 }, async ({ skip }) => {
  if (missing) {
    console.log(`skipped: the Go client, for ${missing}`);
    return skip();
  }
  const said = await run(folder, 'go', 'test', '-vet=off', '-count=1', '-v', './...').catch(loudly);
  expect(said).toMatch(/^ok\s+policies\.hoc\/policysidecar/m);
  expect(said.match(/^--- PASS/gm)?.length).toBeGreaterThan(20);
  expect(said).not.toMatch(/^--- SKIP/m);
});

test('the stubs of the Go client are those of the contract', { timeout: 600_000 }, async ({ skip }) => {
  if (missing) {
    console.log(`skipped: the stubs of the Go client, for ${missing}`);
    return skip();
  }
  const at = join(folder, 'again');
  await run(ROOT, 'buf', 'generate', '--template', 'clients/go/buf.gen.yaml', '-o', at).catch(loudly);
  const stubs = (root: string): Record<string, string> => {
    const here = join(root, 'clients', 'go', 'gen', 'hoc', 'cus', 'policies', 'v1');
    return Object.fromEntries(readdirSync(here).map((name) => [name, readFileSync(join(here, name), 'utf8')]));
  };
  expect(Object.keys(stubs(at)).length).toBeGreaterThan(30);
  expect(stubs(at)).toEqual(stubs(ROOT));
});
