/** gRPC's interoperability cases, put to both listeners by the functions of gRPC's own client in Go. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { createLog } from '../../src/log.ts';
import { type Sidecar, startServer } from '../../src/server/sidecar.ts';
import { run } from '../support/go.ts';
import { createDatabase } from '../support/postgres.ts';
import { readDescriptors } from './descriptors.ts';
import { interopService, NOT_SERVED } from './interop-service.ts';
import { buildJudges, type Judges } from './judges.ts';

const CASES = [
  'empty_unary',
  'large_unary',
  'server_streaming',
  'ping_pong',
  'empty_stream',
  'timeout_on_sleeping_server',
  'cancel_after_first_response',
  'custom_metadata',
  'status_code_and_message',
  'special_status_message',
  'unimplemented_method',
  'unimplemented_service',
];

let judges: Judges;
let database: Awaited<ReturnType<typeof createDatabase>> | undefined;
let server: Sidecar | undefined;
beforeAll(async () => {
  judges = await buildJudges('interop');
  if (judges.missing) return;
  const options = { encoding: 'buffer', maxBuffer: 1 << 24 } as const;
  const { stdout } = await promisify(execFile)(judges.path('interop'), ['descriptors'], options);
  database = await createDatabase();
  const config = { ...loadConfig([], {}), grpcListen: '127.0.0.1:0', httpListen: '127.0.0.1:0', drainTimeoutMs: 0 };
  const log = createLog('error', { write: () => {} });
  const services = [interopService(readDescriptors(stdout, NOT_SERVED))];
  server = await startServer(config, { url: database.url, log, services });
}, 600_000);
afterAll(async () => {
  await server?.stop();
  await database?.drop();
  await judges?.remove();
});

test.for(['grpc', 'http'] as const)('gRPC’s interoperability cases pass on the %s port', async (port, { skip }) => {
  if (judges.missing) {
    console.log(`skipped: gRPC's interoperability cases on the ${port} port, for ${judges.missing}`);
    return skip();
  }
  const address = port === 'grpc' ? server!.grpcAddress : server!.httpAddress!;
  const said = await run(judges.folder, judges.path('interop'), [address, ...CASES]);
  expect(said.trim().split('\n')).toEqual(CASES.map((name) => `passed ${name}`));
});
