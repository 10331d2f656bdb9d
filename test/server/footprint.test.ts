import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, expect, inject, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, startCommand } from '../support/command.ts';
import { useDatabase } from '../support/use.ts';

/** Tells at the end what of Node itself the process has loaded. */
const TELLTALE = `--import=data:text/javascript,${encodeURIComponent(
  `process.on('exit', () => process.stderr.write('LOADED ' + process.moduleLoadList.join(',') + '\\n'));`,
)}`;

const database = useDatabase();
afterAll(endAll);

// Story: an import of Node's HTTP asks it for all that it exports. One of that was a WebSocket, with a whole client of HTTP
// behind it: 15 MB and a sixth of the start, of which nothing was ever used.
test('a server of gRPC loads of Node what it uses, and no client of HTTP', async () => {
  const sidecar = startCommand(['serve'], { DATABASE_URL: database.url, NODE_OPTIONS: TELLTALE });
  const caller = grpcCaller((await sidecar.serving()).grpc);
  await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {});
  caller.close();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.ended).toBe(0);
  const loaded = /^LOADED (.*)$/m.exec(sidecar.err())![1]!.split(',');
  expect(loaded).toContain('NativeModule http2');
  expect(loaded.filter((name) => /undici/.test(name))).toEqual([]);
});

test('the compiled program is ASCII, of which a character takes one byte', async () => {
  const folder = dirname(inject('program'));
  const files = (await readdir(folder)).filter((file) => file.endsWith('.js'));
  expect(files).toContain('sidecar.js');
  expect(files.filter((file) => readFileSync(join(folder, file)).some((byte) => byte > 127))).toEqual([]);
});
