import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { pgBouncerAvailable, startPgBouncer } from '../support/pgbouncer.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { useDatabase, useStarted } from '../support/use.ts';

if (!pgBouncerAvailable) console.log('pgbouncer is not installed: the suite of the pooler is skipped');

describe.skipIf(!pgBouncerAvailable).each(['session', 'transaction'] as const)('a PgBouncer in %s mode', (mode) => {
  const database = useDatabase(createEmptyDatabase);
  const pooler = useStarted(
    () => startPgBouncer({ url: database.url, mode, settings: { default_pool_size: 1 } }),
    ({ stop }) => stop(),
  );

  const connect = async (url = pooler.url): Promise<pg.Client> => {
    const client = new pg.Client({ connectionString: url });
    client.on('error', () => {});
    await client.connect();
    return client;
  };

  test('lets a client through, to the database it asks for', async () => {
    const client = await connect();
    const { rows } = await client.query('select current_database() as name');
    expect(rows).toEqual([{ name: new URL(database.url).pathname.slice(1) }]);
    await client.end();
  });

  test('tells its version', () => expect(pooler.version).toMatch(/^1\.\d+\.\d+$/));

  test(`gives a backend for as long as a ${mode} lasts`, async () => {
    const [first, second] = [await connect(), mode === 'transaction' ? await connect() : undefined];
    const pidOf = async (client: pg.Client) => (await client.query('select pg_backend_pid() as pid')).rows[0].pid;
    const pid = await pidOf(first);
    expect(pid).not.toBe((first as unknown as { processID: number }).processID);
    if (second) expect(await pidOf(second)).toBe(pid);
    await first.end();
    await second?.end();
  });

  test('lets every role of the server through', async () => {
    const role = `role_${randomUUID().replaceAll('-', '')}`;
    const owner = await connect();
    await owner.query(`create role ${role} login password 'secret'`);
    const url = new URL(pooler.url);
    url.username = role;
    url.password = 'secret';
    await owner.end();
    const client = await connect(url.href);
    expect((await client.query('select current_user as name')).rows).toEqual([{ name: role }]);
    await client.end();
    const again = await connect();
    await again.query(`drop role ${role}`);
    await again.end();
  });

  test('refuses a startup parameter that it does not know', async () => {
    const url = new URL(pooler.url);
    url.searchParams.set('options', '-c TimeZone=UTC');
    await expect(connect(url.href)).rejects.toThrow(/unsupported startup parameter/);
  });
});

describe.skipIf(!pgBouncerAvailable)('a PgBouncer', () => {
  test('is gone after its stop', async () => {
    const database = await createEmptyDatabase();
    const { pid, stop } = await startPgBouncer({ url: database.url, mode: 'session' });
    expect(process.kill(pid, 0)).toBe(true);
    await stop();
    expect(() => process.kill(pid, 0)).toThrow('ESRCH');
    await database.drop();
  });
});
