import { randomUUID } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { RpcError } from '../../src/contract/errors.ts';
import { openDatabase } from '../../src/database/pool.ts';
import { problemOf } from '../../src/database/sqlstate.ts';
import { readTarget } from '../../src/database/target.ts';
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { refusal } from '../support/client.ts';
import { freePort } from '../support/port.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useDatabase, useFolder, useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const WAIT_MS = 1_000;
/** What a busy machine may take besides. */
const SLACK_MS = 1_500;

const folder = useFolder();

const listen = async (onConnection: (socket: Socket) => void): Promise<{ server: Server; port: number }> => {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { server, port: (server.address() as AddressInfo).port };
};

/** What PostgreSQL says when it lets nobody in. */
const fatal = (sqlstate: string): Buffer => {
  const said = Buffer.from(`E\0\0\0\0SFATAL\0VFATAL\0C${sqlstate}\0Mno\0\0`);
  said.writeUInt32BE(said.length - 1, 1);
  return said;
};

/** What a connection that cannot be made is told as, and after how long. */
const attempt = async (url: string) => {
  const lane = { max: 2, queue: 10, waitMs: WAIT_MS };
  const database = openDatabase(readTarget(url), {
    pooler: 'auto',
    statementMs: 5_000,
    lockMs: 5_000,
    calls: lane,
    transactions: lane,
  });
  const began = performance.now();
  try {
    const error: unknown = await database.calls.acquire().then(
      (connection) => connection.release(),
      (thrown: unknown) => thrown,
    );
    return { error: error as RpcError, tookMs: performance.now() - began };
  } finally {
    await database.end(0);
  }
};

const own = (parameters: Partial<Record<'username' | 'password' | 'pathname' | 'search', string>>): string =>
  Object.assign(new URL(inject('postgresUrl')), parameters).href;

// Story: whatever kept the database from being reached, and was not one of a few errnos, was INTERNAL: a full table of
// files, a network without a route, a certificate that had been replaced, TLS that had been switched off.
describe('a database that cannot be reached is UNAVAILABLE, and its cause is known', () => {
  const socketUrl = (path: string) => `postgresql://u@/db?host=${encodeURIComponent(path)}`;
  const servers: Server[] = [];
  afterAll(() => {
    for (const server of servers) server.close();
  });
  const serverThat = async (onConnection: (socket: Socket) => void, parameters = '') => {
    const { server, port } = await listen(onConnection);
    servers.push(server);
    return `postgresql://u:secret@127.0.0.1:${port}/db${parameters}`;
  };
  const tls = '?sslmode=require';

  test.each<[string, () => string | Promise<string>]>([
    ['refuses', async () => `postgresql://u@127.0.0.1:${await freePort()}/db`],
    ['refuses at each of its addresses', async () => `postgresql://u@localhost:${await freePort()}/db`],
    ['has no such host', () => 'postgresql://u@no-such-host.invalid/db'],
    ['has no socket file', () => socketUrl(join(folder, 'missing'))],
    [
      'has a file in the place of the folder',
      async () => {
        await writeFile(join(folder, 'file'), '');
        return socketUrl(join(folder, 'file'));
      },
    ],
    [
      'has a file in the place of the socket',
      async () => {
        await writeFile(join(folder, '.s.PGSQL.5432'), '');
        await chmod(join(folder, '.s.PGSQL.5432'), 0o000);
        return socketUrl(folder);
      },
    ],
    ['has no TLS where it is required', () => own({ search: tls })],
    // Said by a server of the test's own: that of a run may let everybody in.
    [
      'knows another password',
      () => serverThat((socket) => socket.once('data', () => socket.end(fatal('28P01'))), '?sslmode=disable'),
    ],
    [
      'ends the connection for a reason of its own',
      () => serverThat((socket) => socket.once('data', () => socket.end(fatal('XX000'))), '?sslmode=disable'),
    ],
    ['knows no such role', () => own({ username: 'nobody_there' })],
    ['has no such database', () => own({ pathname: '/no_such_database' })],
    ['closes at once', () => serverThat((socket) => socket.destroy())],
    ['closes at once where TLS is required', () => serverThat((socket) => socket.destroy(), tls)],
    ['closes without TLS', () => serverThat((socket) => socket.destroy(), '?sslmode=disable')],
    ['closes after the first bytes', () => serverThat((socket) => socket.once('data', () => socket.destroy()))],
    ['resets', () => serverThat((socket) => socket.once('data', () => socket.resetAndDestroy()))],
    ['speaks HTTP', () => serverThat((socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n'))],
    ['speaks HTTP without TLS', () => serverThat((socket) => socket.write('HTTP/1.1 400\r\n\r\n'), '?sslmode=disable')],
    [
      'speaks garbage',
      () =>
        serverThat((socket) => socket.once('data', () => socket.write(Buffer.alloc(200, 0xff))), '?sslmode=disable'),
    ],
    [
      'speaks zeros',
      () => serverThat((socket) => socket.once('data', () => socket.write(Buffer.alloc(200))), '?sslmode=disable'),
    ],
    [
      'asks for what nobody knows',
      () =>
        serverThat(
          (socket) => socket.once('data', () => socket.write(Buffer.from([82, 0, 0, 0, 8, 0, 0, 0, 99]))),
          '?sslmode=disable',
        ),
    ],
    [
      'speaks garbage for TLS',
      () => serverThat((socket) => socket.once('data', () => socket.write('Sxxxxxxxxxx')), tls),
    ],
    ['answers nothing', () => serverThat(() => {})],
    ['answers nothing where TLS is required', () => serverThat(() => {}, tls)],
    ['answers nothing without TLS', () => serverThat(() => {}, '?sslmode=disable')],
  ])('when it %s', async (_name, url) => {
    const { error, tookMs } = await attempt(await url());
    expect(error).toBeInstanceOf(RpcError);
    expect(error).toMatchObject({ code: 14, reason: 'DATABASE_UNAVAILABLE' });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(error.message).not.toMatch(/secret|127\.0\.0\.1/);
    expect(problemOf(error.cause).trim()).not.toBe('');
    expect(tookMs).toBeLessThan(WAIT_MS + SLACK_MS);
  });
});

test('a database without a free connection is busy, and says when to come again', async () => {
  const admin = new pg.Client({ connectionString: inject('postgresUrl') });
  await admin.connect();
  const username = `crowded_${randomUUID().replaceAll('-', '')}`;
  await admin.query(`create role ${username} login password 'secret' connection limit 0`);
  try {
    const { error } = await attempt(own({ username, password: 'secret' }));
    expect(error).toMatchObject({ code: 8, reason: 'TOO_MANY_CONNECTIONS', metadata: { sqlstate: '53300' } });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(problemOf(error.cause)).toContain(username);
  } finally {
    await admin.query(`drop role ${username}`);
    await admin.end();
  }
});

// Story: health said that all was well, calls were INTERNAL, and the log gave no cause, when the way to the database was
// cut in a manner that nobody had thought of.
describe('a sidecar whose database goes away', () => {
  const database = useDatabase();
  let relay: Server;
  let through: string;
  let way: 'open' | 'closes' | 'silent' | 'garbage' = 'open';
  const sockets = new Set<Socket>();
  beforeAll(async () => {
    const to = new URL(database.url);
    const [host, upstreamPort] = [to.hostname, Number(to.port)];
    const { server, port } = await listen((client) => {
      sockets.add(client);
      client.on('close', () => sockets.delete(client));
      if (way === 'closes') client.destroy();
      if (way === 'garbage') client.write(Buffer.alloc(64, 0x7f));
      if (way !== 'open') return;
      const upstream = connect(upstreamPort, host);
      sockets.add(upstream);
      upstream.on('error', () => {});
      upstream.on('close', () => {
        sockets.delete(upstream);
        client.destroy();
      });
      client.on('close', () => upstream.destroy());
      client.pipe(upstream).pipe(client);
    });
    relay = server;
    to.port = String(port);
    through = to.href;
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    relay?.close();
  });
  const sidecar = useSidecar(() => startTestSidecar({ poolWaitMs: WAIT_MS }, through));

  const read = () => sidecar.grpc.unary(rpc.fetchRiskCeilings, {});
  const health = async () => (await sidecar.grpc.unary(Health.method.check, {})).status;
  const cut = (how: typeof way) => {
    way = how;
    for (const socket of sockets) socket.destroy();
  };

  test.each(['closes', 'silent', 'garbage'] as const)('(%s) says so with a cause, and heals', async (how) => {
    expect((await read()).riskCeilings.length).toBeGreaterThan(0);
    cut(how);
    const lines = sidecar.log().length;
    for (const call of [read, () => sidecar.grpc.unary(tx.begin, {}), read]) {
      const began = performance.now();
      const error = await refusal(call());
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
      expect(performance.now() - began).toBeLessThan(WAIT_MS + SLACK_MS);
    }
    const failed = sidecar
      .log()
      .slice(lines)
      .filter(({ code }) => code === 'UNAVAILABLE');
    expect(failed).toHaveLength(3);
    for (const { cause } of failed) expect(String(cause ?? '').trim()).not.toBe('');
    await vi.waitFor(async () => expect(await health()).toBe(Status.NOT_SERVING), { timeout: 6_000 });
    cut('open');
    await vi.waitFor(async () => expect(await health()).toBe(Status.SERVING), { timeout: 6_000 });
    expect((await read()).riskCeilings.length).toBeGreaterThan(0);
    const { id } = (await sidecar.grpc.unary(tx.begin, {})).transaction!;
    await sidecar.grpc.unary(tx.rollback, { transactionId: id! });
  });

  test('that is dropped or renamed is UNAVAILABLE, and usable again once it is back', async () => {
    const server = new pg.Client({ connectionString: inject('postgresUrl') });
    await server.connect();
    const name = new URL(database.url).pathname.slice(1);
    try {
      await server.query(`alter database ${name} allow_connections off`);
      await server.query('select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = $1', [name]);
      await server.query(`alter database ${name} rename to ${name}_away`);
      expect(await refusal(read())).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
      await server.query(`alter database ${name}_away rename to ${name}`);
      const refused = await refusal(read());
      expect(refused).toMatchObject({ code: 'UNAVAILABLE', reason: 'DATABASE_UNAVAILABLE' });
      expect(refused.retryAfterMs).toBeGreaterThan(0);
      await server.query(`alter database ${name} allow_connections on`);
      await vi.waitFor(async () => expect((await read()).riskCeilings.length).toBeGreaterThan(0));
    } finally {
      await server.end();
    }
  });
});

test('an error that only collects others is told by them', () => {
  const each = ['ECONNREFUSED', 'EHOSTUNREACH'].map((code) => Object.assign(new Error(''), { code }));
  expect(problemOf(new AggregateError(each))).toBe('ECONNREFUSED; EHOSTUNREACH');
  expect(problemOf(new AggregateError([]))).not.toBe('');
});
