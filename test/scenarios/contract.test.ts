import { existsSync, readdirSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { loadFolder } from '../../src/scenarios/load.ts';
import { shipped } from '../../src/scenarios/shipped.ts';
import { hasOpenssl, makeAuthority, makeCertificate } from '../support/certificates.ts';
import { endAll, startCommand } from '../support/command.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useFolder, useSidecar } from '../support/use.ts';

const sidecar = useSidecar();
const folder = useFolder();
afterEach(() => endAll());

const put = async (args: readonly string[], target = sidecar.server.grpcAddress, env: Record<string, string> = {}) => {
  const { ended, out, err } = startCommand(['contract', '--target', target, ...args], env);
  return { code: await ended, out: out(), err: err() };
};

/** A folder with these scenarios; the name of each is that of its file. */
const scenarios = async (name: string, files: Readonly<Record<string, unknown>>): Promise<string> => {
  const path = join(folder, name);
  await mkdir(path);
  for (const [file, content] of Object.entries(files)) {
    await writeFile(join(path, `${file}.json`), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return path;
};

const left = async () => {
  const [rows] = await sidecar.sql(
    `select (select count(*) from public.policy_scopes)::int as scopes,
      (select count(*) from policy_sidecar.requests)::int as requests, ${VIOLATIONS} as violations`,
  );
  const { transactions } = await sidecar.grpc.unary(TransactionService.method.list, {});
  return { ...rows, transactions: transactions.length };
};
const VIOLATIONS = '(select count(*) from policy.violations)::int';

const INSERT = {
  violationId: '{{uuid.a}}',
  violationType: 'x',
  severity: 1,
  description: 'd',
  evidence: {},
  routedToGovernor: false,
  detectedAt: '{{now}}',
};
const RIGHT = {
  about: 'A list is read.',
  steps: [{ call: 'PolicyEngineService/FetchViolations', expect: { rows: 0 } }],
};
const BEGIN = { call: 'TransactionService/Begin', capture: { tx: 'transaction.id' } };

test('what ships is compiled in, each under the name of its file', () => {
  const files = readdirSync(join(import.meta.dirname, '../../scenarios')).filter(
    (file) => !file.endsWith('.schema.json'),
  );
  expect(shipped().map(({ name }) => `${name}.json`)).toEqual(files.sort());
});

test('a sidecar as it ships does all of it, on both ports, and is left as it was', async () => {
  const junit = join(folder, 'report.xml');
  const args = ['--http', `http://${sidecar.server.httpAddress}`, '--allow-writes', '--junit', junit];
  const { code, out } = await put(args);
  const count = 2 * shipped().length;
  expect(out).toMatch(new RegExp(`\n${count} passed, 0 failed, 0 skipped\n$`));
  expect(code).toBe(0);
  expect(await left()).toMatchObject({ scopes: 0, violations: 0, transactions: 0 });
  const xml = await readFile(junit, 'utf8');
  expect(xml).toContain(`<testsuites tests="${count}" failures="0" skipped="0">`);
  expect(xml.match(/<testcase /g)).toHaveLength(count);
});

test('nothing is committed unless that is allowed, and what is left out is told', async () => {
  const before = await left();
  const { code, out } = await put([]);
  const skipped = shipped().filter(({ commits }) => commits);
  for (const { name } of skipped) expect(out).toContain(`skip  ${name}: it commits: --allow-writes runs it\n`);
  expect(out).toMatch(
    new RegExp(`\n${shipped().length - skipped.length} passed, 0 failed, ${skipped.length} skipped\n$`),
  );
  expect(code).toBe(0);
  expect(await left()).toEqual(before);
});

test('what does not hold is told by step, place and value, ends with 1, and leaves nothing open', async () => {
  const path = await scenarios('wrong', {
    'wrong-error': {
      about: 'A write needs no transaction.',
      steps: [
        { call: 'PolicyEngineService/InsertViolation', request: INSERT, expect: { error: { code: 'NOT_FOUND' } } },
      ],
    },
    'wrong-value': {
      about: 'An insertion affects two rows, <always>.',
      steps: [
        BEGIN,
        {
          call: 'PolicyEngineService/InsertViolation',
          request: INSERT,
          transaction: '{{tx}}',
          expect: { response: { rowsAffected: '2' } },
        },
      ],
    },
    'wrong-rows': {
      about: 'There are violations.',
      steps: [{ call: 'PolicyEngineService/StreamViolations', expect: { rows: { at_least: 1 } } }],
    },
    'wrong-success': {
      about: 'A list is refused.',
      steps: [
        {
          call: 'PolicyEngineService/FetchViolations',
          within_ms: 200,
          expect: { error: { code: 'INTERNAL' } },
        },
      ],
    },
    'wrong-pattern': {
      about: 'A pattern is none.',
      steps: [{ ...BEGIN, expect: { response: { transaction: { id: { $matches: '(' } } } } }],
    },
    right: RIGHT,
  });
  const junit = join(folder, 'wrong.xml');
  const { code, out } = await put(['--scenarios', path, '--junit', junit]);
  expect(code).toBe(1);
  expect(out).toContain('ok    right (');
  const failures = [
    'step 1, PolicyEngineService/InsertViolation: error.code is "FAILED_PRECONDITION", expected "NOT_FOUND"',
    'step 2, PolicyEngineService/InsertViolation: response.rowsAffected is "1", expected "2"',
    'step 1, PolicyEngineService/StreamViolations: the number of rows is 0, expected {"at_least":1}',
    'step 1, PolicyEngineService/FetchViolations: it succeeded, expected INTERNAL',
    'step 1, TransactionService/Begin: Invalid regular expression',
  ];
  for (const failure of failures) expect(out).toContain(failure);
  expect(out).toMatch(/\n1 passed, 5 failed, 0 skipped\n$/);
  expect(await left()).toMatchObject({ violations: 0, transactions: 0 });
  const xml = await readFile(junit, 'utf8');
  expect(xml).toContain('failures="5"');
  expect(xml).toContain('An insertion affects two rows, &lt;always&gt;.');
});

test('a scenario that fails after its commit is cleaned up', async () => {
  const scope = { policyId: 'p', tenantId: 'contract-{{run}}' };
  const path = await scenarios('cleaned', {
    cleaned: {
      about: 'A scope is made twice.',
      commits: true,
      steps: [
        {
          call: 'ScopeResolverService/CreateScope',
          request: scope,
          transaction: 'single-use',
          capture: { scope: 'scope.scopeId' },
        },
        { call: 'ScopeResolverService/FetchScopes', request: { tenantId: scope.tenantId }, expect: { rows: 2 } },
      ],
      cleanup: [
        {
          call: 'ScopeResolverService/DeleteScope',
          request: { tenantId: scope.tenantId, scopeId: '{{scope}}' },
          transaction: 'single-use',
        },
      ],
    },
  });
  const { code, out } = await put(['--scenarios', path, '--allow-writes']);
  expect(out).toContain('step 2, ScopeResolverService/FetchScopes: the number of rows is 1, expected 2');
  expect(code).toBe(1);
  expect(await left()).toMatchObject({ scopes: 0 });
});

const bad: Readonly<Record<string, [unknown, string]>> = {
  'is no JSON': ['{', 'JSON'],
  'has a key that is none': [{ about: 'a', steps: [{ call: 'A/B', sleep: 1 }] }, 'additional properties: sleep'],
  'has no steps': [{ about: 'a', steps: [] }, '/steps must NOT have fewer than 1 items'],
  'calls what is no RPC': [
    { about: 'a', steps: [{ call: 'PolicyEngineService/Fly' }] },
    'step 1: there is no RPC PolicyEngineService/Fly',
  ],
  'sends a field that is none': [
    { about: 'a', steps: [{ call: 'PolicyEngineService/FetchViolations', request: { limits: 1 } }] },
    'step 1: cannot decode message hoc.cus.policies.v1.FetchViolationsRequest from JSON: key "limits" is unknown',
  ],
  'names what was not captured': [
    { about: 'a', steps: [{ call: 'TransactionService/Rollback', request: { transactionId: '{{tx}}' } }] },
    'step 1: nothing was captured as tx',
  ],
  'commits and does not say so': [
    { about: 'a', steps: [BEGIN, { call: 'TransactionService/Commit', request: { transactionId: '{{tx}}' } }] },
    'step 2: `commits` must be true',
  ],
};

test.each(Object.keys(bad))('a file that %s is told by its name', async (what) => {
  const [content, why] = bad[what]!;
  const path = await scenarios(what.replaceAll(' ', '-'), { broken: content });
  expect(() => loadFolder(path)).toThrow(`${join(path, 'broken.json')}: `);
  expect(() => loadFolder(path)).toThrow(why);
});

test('where a file is no good, nothing is called', async () => {
  const path = await scenarios('half', { broken: '{', right: RIGHT });
  const { code, err, out } = await put(['--scenarios', path]);
  expect(err).toContain(`policy-sidecar: ${join(path, 'broken.json')}: `);
  expect({ code, out }).toEqual({ code: 2, out: '' });
});

// Story: all was called, and what came of it was told by nobody.
test('where the report cannot be written, nothing is called', async () => {
  for (const [path, why] of [
    [join(folder, 'none', 'report.xml'), 'ENOENT'],
    [folder, 'EISDIR'],
  ] as const) {
    const err = `policy-sidecar: --junit ${path} cannot be written (${why})\n`;
    expect(await put(['--junit', path, '--only', 'health'])).toEqual({ code: 2, out: '', err });
  }
  // Where it can, none is made before there is something to report.
  const path = join(folder, 'later.xml');
  expect((await put(['--junit', path], '127.0.0.1:1')).code).toBe(1);
  expect(existsSync(path)).toBe(false);
});

test('names may have blanks between them', async () => {
  const { code, out } = await put(['--only', 'health, reads']);
  expect({ code, out }).toEqual({ code: 0, out: expect.stringContaining('\n2 passed, 0 failed, 0 skipped\n') });
});

test('the example of the documentation holds', async () => {
  const text = await readFile(join(import.meta.dirname, '../../docs/contract-scenarios.md'), 'utf8');
  const [, example] = /^```json\n(.*?)^```/ms.exec(text)!;
  const { code, out } = await put(['--scenarios', await scenarios('documented', { documented: example })]);
  expect(out).toContain('ok    documented (');
  expect(code).toBe(0);
});

test('a wrong option, an unknown name and a sidecar that is not there are told', async () => {
  const told = await Promise.all([
    put(['--targets', 'x']),
    put(['--junit']),
    put(['--only', 'nothing']),
    put([], '127.0.0.1:1'),
    put([], 'http://127.0.0.1:1'),
    put([], '127.0.0.1'),
    put(['--cert', '/no/file'], '127.0.0.1:1'),
  ]);
  expect(told.map(({ code }) => code)).toEqual([2, 2, 2, 1, 2, 2, 2]);
  const words = [
    '--targets',
    '--junit needs a value',
    '--only nothing',
    'no sidecar that answers',
    '--target http://127.0.0.1:1 must be host:port',
    '--target 127.0.0.1 must be host:port',
    '--cert and --key go together',
  ];
  expect(told.map(({ err }) => err)).toEqual(words.map((word) => expect.stringContaining(word)));
});

test('a token is sent, and what its caller is not granted is left out and told', async () => {
  const [tokensFile, authorizationFile] = [join(folder, 'tokens'), join(folder, 'authorization.json')];
  await writeFile(tokensFile, tokenLine('reader', 'secret'));
  await writeFile(authorizationFile, JSON.stringify({ identities: { reader: { read: ['*'], tenants: 'all' } } }));
  const guarded = await startTestSidecar({ tokensFile, authorizationFile });
  const args = ['--only', 'reads,writes'];
  const stranger = await put(args, guarded.server.grpcAddress);
  expect(stranger).toMatchObject({ code: 1, out: expect.stringContaining('UNAUTHENTICATED') });
  const known = await put([...args, '--token', 'secret'], guarded.server.grpcAddress);
  expect(known.out).toContain('skip  writes: the caller is not granted PolicyEngineService/InsertViolation\n');
  expect(known.out).toMatch(/\n1 passed, 0 failed, 1 skipped\n$/);
  expect(known.code).toBe(0);
  await guarded.stop();
});

test('a socket file is reached', async () => {
  const grpcListen = `unix:${join(folder, 'sidecar.sock')}`;
  const local = await startTestSidecar({ grpcListen }, sidecar.url);
  expect(await put(['--only', 'hold,health'], grpcListen)).toMatchObject({ code: 0 });
  await local.stop();
});

test.runIf(hasOpenssl)('TLS is spoken with the authority that is named', async () => {
  const authority = await makeAuthority(folder, 'authority');
  const server = await makeCertificate(folder, 'server', authority, 'IP:127.0.0.1,DNS:localhost');
  const secured = await startTestSidecar({ tlsCert: server.cert, tlsKey: server.key }, sidecar.url);
  const args = ['--only', 'reads', '--http', `https://${secured.server.httpAddress}`];
  expect(await put([...args, '--ca', authority.cert], secured.server.grpcAddress)).toMatchObject({ code: 0 });
  expect(await put(args, secured.server.grpcAddress)).toMatchObject({ code: 1 });
  await secured.stop();
});

test.runIf(hasOpenssl)('a certificate of its own is shown on both ports where one is asked for', async () => {
  const authority = await makeAuthority(folder, 'callers-authority');
  const server = await makeCertificate(folder, 'mutual', authority, 'IP:127.0.0.1,DNS:localhost');
  const caller = await makeCertificate(folder, 'caller', authority, 'DNS:tester');
  const tls = { tlsCert: server.cert, tlsKey: server.key, tlsClientCa: authority.cert };
  const secured = await startTestSidecar(tls, sidecar.url);
  const at = secured.server.grpcAddress;
  const args = ['--only', 'reads', '--http', `https://${secured.server.httpAddress}`, '--ca', authority.cert];
  expect(await put([...args, '--cert', caller.cert, '--key', caller.key], at)).toMatchObject({ code: 0 });
  expect(await put(args, at)).toMatchObject({
    code: 1,
    err: expect.stringMatching(/^policy-sidecar: gRPC \S+ is no sidecar that answers: .*certificate required.*\n$/),
  });
  await secured.stop();
});

test('the token may come by the environment, and the option goes before it', async () => {
  const tokensFile = join(folder, 'tokens-of-environment');
  await writeFile(tokensFile, tokenLine('tester', 'secret-of-tester'));
  const guarded = await startTestSidecar({ tokensFile }, sidecar.url);
  const at = guarded.server.grpcAddress;
  const env = { POLICY_SIDECAR_TOKEN: 'secret-of-tester' };
  expect(await put(['--only', 'reads'], at, env)).toMatchObject({ code: 0 });
  expect(await put(['--only', 'reads', '--token', 'another'], at, env)).toMatchObject({ code: 1 });
  expect(await put(['--only', 'reads'], at)).toMatchObject({ code: 1 });
  await guarded.stop();
});
