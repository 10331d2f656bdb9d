/** connectrpc's own cases, put to the listeners of this program by connectrpc's own runner. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FileRegistry } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../support/go.ts';
import { createDatabase } from '../support/postgres.ts';
import { conformanceService, NOT_SERVED } from './conformance-service.ts';
import { readDescriptors } from './descriptors.ts';
import { judgedServers } from './judged-servers.ts';
import { buildJudges, type Judges } from './judges.ts';
import { KNOWN_FAILURES, reasonOf } from './known-failures.ts';

const MODULE = 'connectrpc.com/conformance';
/** The judge gives up on a call after 20 s without any answer, so the calls under way are few. */
const CALLS_AT_ONCE = '4';

let judges: Judges;
let types: FileRegistry;
let database: Awaited<ReturnType<typeof createDatabase>> | undefined;
beforeAll(async () => {
  judges = await buildJudges('connectconformance');
  if (judges.missing) return;
  const module = (await run(judges.folder, 'go', ['list', '-m', '-f', '{{.Dir}}', MODULE])).trim();
  const file = join(judges.folder, 'conformance.binpb');
  await run(judges.folder, 'buf', ['build', join(module, 'proto'), '-o', file]);
  types = readDescriptors(await readFile(file), NOT_SERVED);
  database = await createDatabase();
}, 600_000);
afterAll(async () => {
  await database?.drop();
  await judges?.remove();
});

/** All that the judge says. */
const judged = (port: 'grpc' | 'http', socket: string): Promise<string> => {
  const known = KNOWN_FAILURES.flatMap(({ cases, sometimes }) =>
    cases[port].flatMap((name) => [sometimes ? '--known-flaky' : '--known-failing', name]),
  );
  const config = join(import.meta.dirname, `${port}.yaml`);
  const server = [process.execPath, join(import.meta.dirname, 'relay.ts'), socket];
  const args = ['--mode', 'server', '--conf', config, '-p', CALLS_AT_ONCE, ...known, '--', ...server];
  return new Promise((resolve) => {
    execFile(judges.path('connectconformance'), args, { maxBuffer: 1 << 28 }, (_error, out, err) => resolve(out + err));
  });
};

test.for([
  ['grpc', 300],
  ['http', 2_000],
] as const)(
  'the %s port answers as connectrpc’s judge has it',
  { timeout: 600_000 },
  async ([port, least], { skip }) => {
    if (judges.missing) {
      console.log(`skipped: connectrpc's cases on the ${port} port, for ${judges.missing}`);
      return skip();
    }
    const service = conformanceService(types);
    const servers = await judgedServers(judges.folder, { url: database!.url, types, service, port });
    const said = await judged(port, servers.path);
    await servers.close();
    // A blank line ends a complaint, a semicolon joins two.
    const lines = (text: string): string[] => text.split('\n').flatMap((line) => line.replace(/^[\s;]+/, '') || []);
    const known = [...said.matchAll(/^INFO: (.+) failed \(as expected\):\n((?:\t.*\n)+)/gm)].map(([, name, text]) => ({
      name: name!,
      text: lines(text!),
      why: reasonOf(port, name!, lines(text!)),
    }));
    expect(said.match(/^FAILED: .*(?:\n\t.*)*/gm) ?? []).toEqual([]);
    expect(known.filter(({ why }) => why === undefined)).toEqual([]);
    const passed = Number(/^(\d+) passed, 0 failed$/m.exec(said)?.[1]);
    expect(passed).toBeGreaterThan(least);
    expect(said).not.toMatch(/could not be run/);
    console.log(`connectrpc's cases on the ${port} port: ${passed} passed; not served: ${NOT_SERVED.join(', ')}`);
    for (const { why, sometimes } of KNOWN_FAILURES) {
      const count = known.filter((each) => each.why === why).length;
      if (!sometimes) expect(count).toBeGreaterThan(0);
      console.log(`${count} failed, as known: ${why}`);
    }
  },
);
