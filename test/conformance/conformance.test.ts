import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { run } from '../support/go.ts';
import { createDatabase } from '../support/postgres.ts';
import { conformanceService, NOT_SERVED } from './conformance-service.ts';
import { readDescriptors } from './descriptors.ts';
import { judgedServers } from './judged-servers.ts';
import { buildJudges, type Judges } from './judges.ts';

let judges: Judges;
let database: Awaited<ReturnType<typeof createDatabase>>;
beforeAll(async () => {
  judges = await buildJudges('connectconformance');
  database = await createDatabase();
}, 600_000);
afterAll(async () => {
  await database?.drop();
  await judges?.remove();
});

test.each(['grpc', 'http'] as const)('%s', { timeout: 600_000 }, async (port) => {
  const folder = (
    await run(judges.folder, 'go', ['list', '-m', '-f', '{{.Dir}}', 'connectrpc.com/conformance'])
  ).trim();
  const file = join(judges.folder, 'conformance.binpb');
  await run(judges.folder, 'buf', ['build', join(folder, 'proto'), '-o', file]);
  const types = readDescriptors(await readFile(file), NOT_SERVED);
  const servers = await judgedServers(judges.folder, {
    url: database.url,
    types,
    service: conformanceService(types),
    port,
  });
  const args = [
    '--mode',
    'server',
    '--conf',
    join(import.meta.dirname, `${port}.yaml`),
    '--',
    process.execPath,
    join(import.meta.dirname, 'relay.ts'),
    servers.path,
  ];
  if (process.env['JARGS']) args.unshift(...process.env['JARGS'].split(' '));
  const t = process.cpuUsage();
  const said = await new Promise<string>((resolve) => {
    execFile(judges.path('connectconformance'), args, { maxBuffer: 1 << 28 }, (_e, out, err) => resolve(out + err));
  });
  const u = process.cpuUsage(t);
  console.log(port, servers.started, (u.user + u.system) / 1e6);
  await servers.close();
  await import('node:fs').then((fs) => fs.writeFileSync(`/tmp/jt/${port}.out`, said));
  expect(said).toMatch(/Total cases/);
});
