/** Tools that operators and developers have, as they use them, against the program as it ships. */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { hasOpenssl, makeAuthority, makeCertificate } from '../support/certificates.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { run } from '../support/go.ts';
import { useDatabase, useFolder } from '../support/use.ts';
import { buildJudges, type Judges } from './judges.ts';

const SERVICE = 'hoc.cus.policies.v1.PolicyEngineService';
const TOKEN = 'a-token-of-this-test';

let judges: Judges;
const folder = useFolder();
const database = useDatabase();
let open: { grpc: string; http: string };
let secured: { grpc: string; http: string } | undefined;

const serve = (env: Record<string, string>): Command => startCommand(['serve'], { DATABASE_URL: database.url, ...env });

beforeAll(async () => {
  judges = await buildJudges('grpc-health-probe', 'ghz');
  const tokens = join(folder, 'tokens');
  await writeFile(tokens, `engine: ${createHash('sha256').update(TOKEN).digest('hex')}\n`);
  open = await serve({}).serving();
  if (!hasOpenssl) return;
  const authority = await makeAuthority(folder, 'authority');
  const { cert, key } = await makeCertificate(folder, 'server', authority, 'DNS:localhost,IP:127.0.0.1');
  const tls = { SIDECAR_TLS_CERT: cert, SIDECAR_TLS_KEY: key, SIDECAR_TOKENS_FILE: tokens };
  secured = await serve(tls).serving();
}, 600_000);
afterAll(async () => {
  await endAll();
  await judges?.remove();
});

const skipped = (what: string): boolean => {
  if (judges.missing) console.log(`skipped: ${what}, for ${judges.missing}`);
  return judges.missing !== undefined;
};

const probe = (address: string, ...more: string[]): Promise<string> =>
  run(folder, judges.path('grpc-health-probe'), ['-addr', address, ...more]);

test.for(['grpc', 'http'] as const)('grpc-health-probe finds the %s port healthy', async (port, { skip }) => {
  if (skipped(`grpc-health-probe on the ${port} port`)) return skip();
  for (const service of ['', SERVICE]) await probe(open[port], '-service', service);
  await expect(probe(open[port], '-service', 'no.such.Service')).rejects.toThrow('there is no such service');
});

test.for(['grpc', 'http'] as const)('grpc-health-probe finds the %s port healthy over TLS', async (port, { skip }) => {
  if (!secured) {
    console.log('skipped: grpc-health-probe over TLS, for there is no openssl');
    return skip();
  }
  if (skipped(`grpc-health-probe over TLS on the ${port} port`)) return skip();
  const tls = ['-tls', '-tls-ca-cert', join(folder, 'authority.crt')];
  await probe(secured[port], ...tls);
  await probe(secured[port], ...tls, '-rpc-header', `authorization:Bearer ${TOKEN}`, '-service', SERVICE);
  await expect(probe(secured[port], '-connect-timeout', '2s')).rejects.toThrow(/timeout|failed to connect/);
});

test.each([
  ['grpc', ['--protocol', 'grpc', '--http2-prior-knowledge']],
  ['http', ['--protocol', 'connect']],
  ['http', ['--protocol', 'grpcweb']],
  ['http', ['--protocol', 'grpc', '--http2-prior-knowledge']],
] as const)('buf curl calls the %s port with %j by what reflection says', async (port, flags) => {
  const http2 = flags.includes('--http2-prior-knowledge' as never) ? [] : ['--http2-prior-knowledge'];
  const curl = (method: string, data: string): Promise<string> =>
    run(folder, 'buf', ['curl', ...flags, ...http2, '--data', data, `http://${open[port]}/${SERVICE}/${method}`]);
  expect(JSON.parse(await curl('FetchPolicyVersions', '{"limit": 1}'))).toMatchObject({ policyVersions: [{}] });
  const refused = await curl('FetchViolations', '{"limit": -1}').catch(({ message }: Error) => message);
  expect(refused).toContain('invalid_argument');
  const values = [...refused.matchAll(/"value": "(.+)"/g)].map(([, value]) => Buffer.from(value!, 'base64').toString());
  expect(values.join()).toContain('INVALID_REQUEST');
  expect(values.join()).toContain('must be at least 0');
  expect(refused).toContain('google.rpc.BadRequest');
});

test.for(['grpc', 'http'] as const)(
  'ghz counts a thousand answers of a thousand on the %s port',
  async (port, { skip }) => {
    if (skipped(`ghz on the ${port} port`)) return skip();
    const call = ['--insecure', '--call', `${SERVICE}/FetchRiskCeilings`, '-d', '{}'];
    const said = await run(folder, judges.path('ghz'), [...call, '-n', '1000', '-c', '20', '-O', 'json', open[port]]);
    const report = JSON.parse(said) as { count: number; statusCodeDistribution: object; errorDistribution?: object };
    expect(report.count).toBe(1_000);
    expect(report.statusCodeDistribution).toEqual({ OK: 1_000 });
    expect(report.errorDistribution ?? {}).toEqual({});
  },
);
