import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, rename, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ConnectionOptions, connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { hasOpenssl, type KeyPair, makeAuthority, makeCertificate } from '../support/certificates.ts';
import { type Caller, type CallerTls, connectCaller, grpcCaller, refusal } from '../support/client.ts';
import { startCommand } from '../support/command.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useDatabase, useFolder, useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';
import { exchange } from '../support/wire.ts';

const READ = PolicyEngineService.method.fetchRiskCeilings;
const tx = TransactionService.method;

if (!hasOpenssl) console.log('skipped: TLS, for there is no openssl');

describe.runIf(hasOpenssl)('TLS', () => {
  const folder = useFolder();
  const pairs = new Map<string, KeyPair>();
  const database = useDatabase();
  const callers: Caller[] = [];

  /** Alternative names of what the authority of callers signs. */
  const ENGINES = {
    spiffe: 'DNS:engine.example,email:ann@example.org,URI:spiffe://example/ns/a/sa/engine,URI:urn:other',
    dns: 'email:ann@example.org,DNS:engine.example,DNS:other.example',
    email: 'email:ann@example.org',
    nobody: '',
  };

  beforeAll(async () => {
    const [servers, engines, strangers] = await Promise.all(
      ['servers', 'engines', 'strangers'].map((name) => makeAuthority(folder, name)),
    );
    const make = async (name: string, authority: KeyPair, names: string): Promise<void> => {
      pairs.set(name, await makeCertificate(folder, name, authority, names));
    };
    await Promise.all([
      make('server', servers!, 'IP:127.0.0.1,DNS:localhost'),
      make('renewed', servers!, 'IP:127.0.0.1,DNS:localhost'),
      make('stranger', strangers!, ENGINES.spiffe),
      ...Object.entries(ENGINES).map(([name, names]) => make(name, engines!, names)),
    ]);
  });
  afterAll(() => {
    for (const caller of callers) caller.close();
  });

  const file = (name: string): string => join(folder, name);
  const bytes = (name: string): Buffer => readFileSync(file(name));
  const start = (overrides: Parameters<typeof startTestSidecar>[0]): Promise<TestSidecar> => {
    const { cert, key } = pairs.get('server')!;
    return startTestSidecar({ tlsCert: cert, tlsKey: key, ...overrides }, database.url);
  };
  const as = (name?: string): CallerTls => {
    const pair = name === undefined ? undefined : pairs.get(name)!;
    const own = pair && { cert: readFileSync(pair.cert), key: readFileSync(pair.key) };
    return { ca: bytes('servers.crt'), ...own };
  };
  const KINDS = ['gRPC', 'Connect over HTTP/1.1', 'Connect over HTTP/2'] as const;
  const callerOf = ({ server }: TestSidecar, kind: (typeof KINDS)[number], tls: CallerTls): Caller => {
    const httpVersion = kind === 'Connect over HTTP/2' ? '2' : '1.1';
    const caller =
      kind === 'gRPC'
        ? grpcCaller(server.grpcAddress, undefined, tls)
        : connectCaller(server.httpAddress!, true, undefined, { tls, httpVersion });
    callers.push(caller);
    return caller;
  };

  /** What a handshake brings. */
  const shake = async (address: string, options: ConnectionOptions = {}) => {
    const [host, port] = address.split(':');
    const socket = connect({ host, port: Number(port), ca: bytes('servers.crt'), ALPNProtocols: ['h2'], ...options });
    try {
      await once(socket, 'secureConnect');
      const serial = socket.getPeerCertificate().serialNumber;
      return { protocol: socket.getProtocol(), alpn: socket.alpnProtocol, serial };
    } catch (error) {
      return { error: (error as NodeJS.ErrnoException).code };
    } finally {
      socket.destroy();
    }
  };

  describe('of the server alone', () => {
    const sidecar = useSidecar(() => start({}));

    test.each(KINDS)('%s', async (kind) => {
      const caller = callerOf(sidecar, kind, as());
      expect((await caller.unary(READ, {})).riskCeilings).not.toHaveLength(0);
      const begun = await caller.unary(tx.begin, {});
      expect(begun.transaction?.caller).toBe('local');
      await caller.unary(tx.rollback, {}, { transaction: begun.transaction!.id! });
    });

    test.each(['grpcAddress', 'httpAddress'] as const)('%s takes 1.2 and 1.3, and nothing older', async (port) => {
      const address = sidecar.server[port]!;
      expect(await shake(address)).toMatchObject({ protocol: 'TLSv1.3', alpn: 'h2' });
      expect(await shake(address, { maxVersion: 'TLSv1.2' })).toMatchObject({ protocol: 'TLSv1.2' });
      const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
      expect((await shake(address, old)).error).toMatch(/PROTOCOL_VERSION|ECONNRESET/);
    });

    test('a caller without TLS is not answered, and the log says why', async () => {
      expect(
        await exchange(sidecar.server.httpAddress!, Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n')),
      ).not.toContain('HTTP/1.1 2');
      const plain = grpcCaller(sidecar.server.grpcAddress);
      expect((await refusal(plain.unary(READ, {}, { timeoutMs: 5_000 }))).code).toMatch(/UNAVAILABLE|DEADLINE/);
      plain.close();
      await vi.waitFor(() =>
        expect(sidecar.log()).toContainEqual(
          expect.objectContaining({ msg: 'TLS handshake failed', problem: 'ERR_SSL_HTTP_REQUEST' }),
        ),
      );
    });

    test('HTTP/1.1 without ALPN is served', async () => {
      const socket = connect({
        host: '127.0.0.1',
        port: Number(sidecar.server.httpAddress!.split(':')[1]),
        ca: bytes('servers.crt'),
      });
      socket.write(
        `POST /${PolicyEngineService.typeName}/${READ.name} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}`,
      );
      let answer = '';
      socket.on('data', (chunk) => {
        answer += chunk;
      });
      await once(socket, 'close');
      expect(answer).toMatch(/^HTTP\/1.1 200/);
    });

    test('a socket file stays without', async () => {
      const path = file('grpc.sock');
      const own = await start({ grpcListen: `unix:${path}` });
      onTestFinished(own.stop);
      const caller = grpcCaller(`unix:${path}`);
      expect((await caller.unary(READ, {})).riskCeilings).not.toHaveLength(0);
      caller.close();
      expect(own.server.grpcAddress).toBe(`unix:${path}`);
    });
  });

  describe('of both sides', () => {
    const sidecar = useSidecar(() => start({ tlsClientCa: file('engines.crt') }));

    test.each(KINDS)('%s: without a certificate of the authority there is no connection', async (kind) => {
      for (const tls of [as(), as('stranger'), as('server')]) {
        const error = await refusal(callerOf(sidecar, kind, tls).unary(READ, {}, { timeoutMs: 10_000 }));
        expect(error.reason).toBeUndefined();
        expect(error.code).toMatch(/UNAVAILABLE|INTERNAL|ABORTED|UNKNOWN|CANCELLED/);
      }
    });

    test.each(
      KINDS.flatMap((kind) =>
        (
          [
            ['spiffe', 'spiffe://example/ns/a/sa/engine'],
            ['dns', 'engine.example'],
            ['email', 'ann@example.org'],
          ] as const
        ).map(([name, caller]) => [kind, name, caller] as const),
      ),
    )('%s: the certificate "%s" is the caller %s', async (kind, name, expected) => {
      const caller = callerOf(sidecar, kind, as(name));
      const { transaction } = await caller.unary(tx.begin, { label: kind });
      expect(transaction?.caller).toBe(expected);
      const other = callerOf(sidecar, kind, as(name === 'email' ? 'dns' : 'email'));
      expect(await refusal(other.unary(tx.commit, {}, { transaction: transaction!.id! }))).toMatchObject({
        reason: 'TRANSACTION_NOT_YOURS',
      });
      await caller.unary(tx.commit, {}, { transaction: transaction!.id! });
      expect(sidecar.log()).toContainEqual(expect.objectContaining({ caller: expected, code: 'OK' }));
    });

    test.each(KINDS)('%s: a certificate that names nobody is nobody', async (kind) => {
      expect(await refusal(callerOf(sidecar, kind, as('nobody')).unary(READ, {}))).toMatchObject({
        code: 'UNAUTHENTICATED',
        reason: 'UNAUTHENTICATED',
      });
    });

    test.each(KINDS)('%s: with tokens both are asked for, and the token tells the name', async (kind) => {
      const tokensFile = file(`tokens-${kind.replaceAll(/\W/g, '')}`);
      await writeFile(tokensFile, tokenLine('bob', 'secret'));
      const own = await start({ tlsClientCa: file('engines.crt'), tokensFile });
      onTestFinished(own.stop);
      const headers = { authorization: 'Bearer secret' };
      const certified = callerOf(own, kind, as('spiffe'));
      expect(await refusal(certified.unary(READ, {}))).toMatchObject({ reason: 'UNAUTHENTICATED' });
      const { transaction } = await certified.unary(tx.begin, {}, { headers });
      expect(transaction?.caller).toBe('bob');
      expect((await refusal(callerOf(own, kind, as()).unary(READ, {}, { headers }))).reason).toBeUndefined();
    });
  });

  // Story: a tokens file refused the colon of a SPIFFE id, so that no token could have the name of such a certificate.
  test('a token and a certificate of the same name are the same caller', async () => {
    const tokensFile = file('tokens-of-one');
    const name = 'spiffe://example/ns/a/sa/engine';
    await writeFile(tokensFile, tokenLine(name, 'secret') + tokenLine('bob', 'other'));
    const [certified, tokened] = await Promise.all([
      start({ tlsClientCa: file('engines.crt') }),
      start({ tokensFile }),
    ]);
    onTestFinished(async () => void (await Promise.all([certified.stop(), tokened.stop()])));
    const one = callerOf(certified, 'gRPC', as('spiffe'));
    const { transaction } = await one.unary(tx.begin, {});
    const id = transaction!.id!;
    await one.unary(PolicyEngineService.method.insertViolation, violation(), { transaction: id });
    await one.unary(tx.commit, { transactionId: id });
    const ask = (token: string) =>
      callerOf(tokened, 'gRPC', as()).unary(
        tx.getOutcome,
        { subject: { case: 'transactionId', value: id } },
        { headers: { authorization: `Bearer ${token}` } },
      );
    expect((await ask('secret')).outcome).toBe(Outcome.COMMITTED);
    // Its own ids alone are known to a caller.
    expect((await refusal(ask('other'))).reason).toBe('TRANSACTION_UNKNOWN');
  });

  describe('whose files change', () => {
    /** A secret as Kubernetes mounts it: files that are links into a folder that is itself a link, which is swapped. */
    const mounted = async (name: string) => {
      const root = file(name);
      await mkdir(root);
      let version = 0;
      const put = async (contents: Readonly<Record<string, Buffer | string>>): Promise<void> => {
        version += 1;
        await mkdir(join(root, `..v${version}`));
        for (const [key, value] of Object.entries(contents)) await writeFile(join(root, `..v${version}`, key), value);
        await symlink(`..v${version}`, join(root, '..data_tmp'));
        await rename(join(root, '..data_tmp'), join(root, '..data'));
      };
      return {
        put,
        link: async (key: string): Promise<string> => {
          await symlink(join('..data', key), join(root, key));
          return join(root, key);
        },
      };
    };
    const secretOf = (name: string) => ({ 'tls.crt': bytes(`${name}.crt`), 'tls.key': bytes(`${name}.key`) });

    test('new ones are used without a dropped call, and bad ones change nothing', async () => {
      const secret = await mounted('secret');
      await secret.put({ ...secretOf('server'), 'ca.crt': bytes('engines.crt') });
      const [tlsCert, tlsKey, tlsClientCa] = await Promise.all(['tls.crt', 'tls.key', 'ca.crt'].map(secret.link));
      const sidecar = await start({ tlsCert, tlsKey, tlsClientCa });
      onTestFinished(sidecar.stop);
      const { grpcAddress, httpAddress } = sidecar.server;
      const client = pairs.get('dns')!;
      const own = { cert: readFileSync(client.cert), key: readFileSync(client.key) };
      const serial = async (address: string | undefined) => (await shake(address!, own)).serial;
      const first = await serial(grpcAddress);

      // Calls under way, and one after the other, all along.
      const work = KINDS.map((kind) => callerOf(sidecar, kind, as('dns')));
      const leave = new AbortController();
      const states: unknown[] = [];
      const held = (async () => {
        for await (const { transaction } of work[0]!.stream(tx.hold, {}, { signal: leave.signal })) {
          states.push(transaction?.state);
        }
      })().catch(() => {});
      await vi.waitFor(() => expect(states).toEqual([1]));
      let over = false;
      const made = work.map(async (caller) => {
        let calls = 0;
        for (; !over; calls += 1) await caller.unary(READ, {});
        return calls;
      });

      await secret.put({ ...secretOf('renewed'), 'ca.crt': bytes('engines.crt') });
      for (const address of [grpcAddress, httpAddress]) {
        await vi.waitFor(async () => expect(await serial(address)).not.toBe(first));
      }
      const second = await serial(grpcAddress);

      const problems = () => sidecar.log().flatMap(({ problem }) => (problem ? [String(problem)] : []));
      for (const [what, bad] of [
        ['a key of another certificate', { ...secretOf('renewed'), 'tls.key': bytes('server.key') }],
        ['half a certificate', { ...secretOf('renewed'), 'tls.crt': bytes('renewed.crt').subarray(0, 200) }],
        ['no certificate at all', { 'tls.key': bytes('renewed.key') }],
      ] as const) {
        const before = problems().length;
        await secret.put({ 'ca.crt': bytes('engines.crt'), ...bad });
        await vi.waitFor(() => expect(problems().length, what).toBeGreaterThan(before));
        expect(problems().at(-1)).toMatch(/^the TLS file \S+tls\.(crt|key) (is no good|cannot be read)/);
        expect(await serial(grpcAddress)).toBe(second);
      }

      // Another authority of callers.
      await secret.put({ ...secretOf('server'), 'ca.crt': bytes('strangers.crt') });
      await vi.waitFor(async () => {
        const stranger = callerOf(sidecar, 'gRPC', as('stranger'));
        await stranger.unary(READ, {}, { timeoutMs: 2_000 });
      });
      expect((await refusal(callerOf(sidecar, 'gRPC', as('dns')).unary(READ, {}, { timeoutMs: 2_000 }))).code).toBe(
        'UNAVAILABLE',
      );

      over = true;
      for (const calls of await Promise.all(made)) expect(calls).toBeGreaterThan(0);
      expect(states).toEqual([1]);
      leave.abort();
      await held;
    });
  });

  test('the calls to try speak it', async () => {
    const { cert, key } = pairs.get('server')!;
    const tls = ['--tls-cert', cert, '--tls-key', key, '--tls-client-ca', file('engines.crt')];
    const sidecar = startCommand(tls, { DATABASE_URL: database.url });
    const { grpc, http } = await sidecar.serving();
    expect(sidecar.out()).toContain(`grpcurl -cacert <authority> -cert <file> -key <file> ${grpc} hoc.`);
    expect(sidecar.out()).toContain(`-d '{}' --cacert <authority> --cert <file> --key <file> https://${http}/hoc.`);
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
  });

  test('a listener at all addresses is called by a name of its certificate, which none of them is', async () => {
    const { cert, key } = pairs.get('server')!;
    const everywhere = { SIDECAR_GRPC_LISTEN: '0.0.0.0:0', SIDECAR_HTTP_LISTEN: '[::]:0' };
    const tls = ['--tls-cert', cert, '--tls-key', key, '--tls-client-ca', file('engines.crt')];
    const sidecar = startCommand(tls, { DATABASE_URL: database.url, ...everywhere });
    const { grpc, http } = await sidecar.serving();
    const portOf = (address: string) => address.split(':').at(-1);
    expect(sidecar.out()).toContain(` -key <file> <name>:${portOf(grpc)} hoc.`);
    expect(sidecar.out()).toContain(` --key <file> https://<name>:${portOf(http)}/hoc.`);
    sidecar.child.kill('SIGTERM');
    expect(await sidecar.ended).toBe(0);
  });

  test('files that cannot be used end the start with one line that names the file', async () => {
    const { cert, key } = pairs.get('server')!;
    const bad = file('bad.pem');
    await writeFile(bad, 'nothing\n');
    for (const [overrides, line] of [
      [{ tlsCert: file('none') }, /^the TLS file \S+none cannot be read \(ENOENT\)$/],
      [{ tlsCert: bad }, /^the TLS file \S+bad\.pem is no good: .+/],
      [{ tlsKey: pairs.get('renewed')!.key }, /^the TLS file \S+renewed\.key is no good: .+/],
      [{ tlsClientCa: bad }, /^the TLS file \S+bad\.pem is no good: .+/],
    ] as const) {
      const started = startTestSidecar({ tlsCert: cert, tlsKey: key, ...overrides }, database.url);
      await expect(started).rejects.toThrow(line);
    }
  });
});

test.each([
  [['--tls-cert', 'a'], 'SIDECAR_TLS_CERT and SIDECAR_TLS_KEY go together'],
  [['--tls-key', 'a'], 'SIDECAR_TLS_CERT and SIDECAR_TLS_KEY go together'],
  [['--tls-client-ca', 'a'], 'SIDECAR_TLS_CLIENT_CA goes with'],
])('%s alone is refused', (argv, line) => {
  expect(() => loadConfig(argv, {})).toThrow(line);
});

test('a listener beyond loopback is taken where callers need a certificate', () => {
  const listen = ['--grpc-listen', '0.0.0.0:50051', '--tls-cert', 'a', '--tls-key', 'b'];
  expect(() => loadConfig(listen, {})).toThrow(/is reachable from other machines/);
  expect(loadConfig([...listen, '--tls-client-ca', 'c'], {}).grpcListen).toBe('0.0.0.0:50051');
});
