/** The Go client: its own tests against the program as it ships, and its stubs against the contract. */
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, inject, test } from 'vitest';
import { goBuild, run, whyNoGo } from '../support/go.ts';
import { SCENARIOS, scenarioFiles } from '../support/scenarios.ts';
import { useFolder } from '../support/use.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const folder = useFolder();
let missing: string | undefined;

const command = (): Record<string, string> => ({
  POLICY_SIDECAR_COMMAND: `${process.execPath} ${inject('program')}`,
  POLICY_SIDECAR_SCENARIOS: SCENARIOS,
});

beforeAll(async () => {
  cpSync(join(ROOT, 'clients', 'go'), folder, { recursive: true });
  missing = await whyNoGo(folder);
  if (missing === undefined) await goBuild(folder, './...');
}, 600_000);

test('the Go client does what it promises, told by its own tests', { timeout: 600_000 }, async ({ skip }) => {
  if (missing) {
    console.log(`skipped: the Go client, for ${missing}`);
    return skip();
  }
  const said = await run(folder, 'go', ['test', '-vet=off', '-count=1', '-v', './...'], command());
  expect(said).toMatch(/^ok\s+policies\.hoc\/policysidecar/m);
  expect(said.match(/^--- PASS/gm)?.length).toBeGreaterThan(20);
  expect(said).not.toMatch(/^--- SKIP/m);
  expect(said).toContain(`scenarios: ${scenarioFiles().length} passed, 0 skipped\n`);
});

test('the stubs of the Go client are those of the contract', { timeout: 600_000 }, async ({ skip }) => {
  if (missing) {
    console.log(`skipped: the stubs of the Go client, for ${missing}`);
    return skip();
  }
  const at = join(folder, 'again');
  await run(ROOT, 'buf', ['generate', '--template', 'clients/go/buf.gen.yaml', '-o', at]);
  const stubs = (root: string): Record<string, string> => {
    const here = join(root, 'clients', 'go', 'gen', 'hoc', 'cus', 'policies', 'v1');
    return Object.fromEntries(readdirSync(here).map((name) => [name, readFileSync(join(here, name), 'utf8')]));
  };
  expect(Object.keys(stubs(at)).length).toBeGreaterThan(30);
  expect(stubs(at)).toEqual(stubs(ROOT));
});
