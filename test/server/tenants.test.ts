import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { create, type DescMethodServerStreaming, type DescMethodUnary, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { migrateTenants, OWNERS, tables, tenantsStatus } from '../../src/database/migrate/tenant-policies.ts';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { OperationSchema } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError, type CallInit } from '../support/client.ts';
import { pgBouncerAvailable, startPgBouncer } from '../support/pgbouncer.ts';
import { KEYS, request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { useFolder, useSidecar } from '../support/use.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

/** The tenant that the caller is bound to, and the other one: requests name either, as they do the ids of rows. */
const [OURS, THEIRS] = KEYS as [string, string];
const MARK = 'MARKED';
const SEED = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
/** In rows that are everybody's. */
const SHARED = 'SHARED';
const as = (name: string, transaction?: string): CallInit => ({
  headers: { authorization: `Bearer ${name}` },
  ...(transaction === undefined ? {} : { transaction }),
});

interface Column {
  readonly name: string;
  readonly type: string;
  readonly most: number | null;
  readonly allowed: string | null;
}

const folder = useFolder();
const guards = { tokensFile: join(folder, 'tokens'), authorizationFile: join(folder, 'authorization.json') };

/** A value of a column in a row of one of the two: keys are theirs, and free text says whose it is. */
const cellOf = ({ name, type, most, allowed }: Column, place: number, mark: string): string => {
  const key = KEYS[place]!;
  const isTheirs = place === 1;
  switch (type) {
    case 'uuid':
      return key.toLowerCase();
    case 'boolean':
      return 'true';
    case 'jsonb':
    case 'json':
      return '{}';
    case 'ARRAY':
      return '{}';
    case 'timestamp with time zone':
      return '2026-01-01T00:00:00Z';
    case 'bytea':
      return '\\x00';
    case 'text':
    case 'character varying':
      if (allowed !== null) return allowed;
      if (name === 'id' || name.endsWith('_id')) return key;
      return `${isTheirs ? mark : 'ours'} ${name}`.slice(0, most ?? 100);
    default:
      return String(place);
  }
};

const seed = async (): Promise<void> => {
  for (const table of tables()) {
    const [schema, name] = table.split('.');
    const columns = await sidecar.sql<Column>(
      `select column_name as name, data_type as type, character_maximum_length as most,
         (select substring(pg_get_constraintdef(oid) from '''([^'']+)''') from pg_constraint
          where conrelid = ($1 || '.' || $2)::regclass and contype = 'c' and conkey = array[ordinal_position::int2] limit 1) as allowed
       from information_schema.columns where table_schema = $1 and table_name = $2 and is_generated = 'NEVER'`,
      [schema, name],
    );
    const names = columns.map((column) => `"${column.name}"`).join(', ');
    const mark = OWNERS.get(table)!.of === 'everybody' ? SHARED : MARK;
    const row = (place: number): string =>
      columns.map((column) => `'${cellOf(column, place, mark).replaceAll("'", "''")}'`).join(', ');
    const checks = await sidecar.sql<{ name: string }>(
      `select conname as name from pg_constraint where conrelid = $1::regclass and contype = 'c'`,
      [table],
    );
    for (const check of checks) await sidecar.sql(`alter table ${table} drop constraint "${check.name}"`);
    // What refers to what is not there yet does so soon.
    await sidecar.sql(`begin; set local session_replication_role = replica;
      delete from ${table} where '${table}' <> 'policy_sidecar.secrets';
      insert into ${table} (${names}) values (${row(0)}), (${row(1)}) on conflict do nothing; commit`);
    // What is made later must not meet the numbers of these.
    const numbers = columns.map((column) => `setval(pg_get_serial_sequence('${table}', '${column.name}'), 100)`);
    await sidecar.sql(`select ${numbers.join(', ')}`);
  }
};

/** The rows of the other tenant, and of everybody, in every table. */
const theirs = async (): Promise<Record<string, string[]>> => {
  const found: Record<string, string[]> = {};
  for (const table of tables()) {
    const rows = await sidecar.sql<{ row: string }>(
      `select t::text as row from ${table} t where t::text ~ '${MARK}|${SHARED}' order by 1`,
    );
    found[table] = rows.map(({ row }) => row);
  }
  return found;
};

beforeAll(async () => {
  await writeFile(guards.tokensFile, ['bound', 'free', 'none'].map((name) => tokenLine(name)).join(''));
  const all = { read: ['*'], write: ['*'] };
  const identities = {
    bound: { ...all, tenants: [OURS] },
    none: { ...all, tenants: [] },
    free: { ...all, tenants: 'all' },
  };
  await writeFile(guards.authorizationFile, JSON.stringify({ identities }));
});
const sidecar = useSidecar({ ...guards, maxMessageBytes: 64 * 1024 * 1024 });

const { begin, commit, commitPrepared, execute, prepare, rollback } = TransactionService.method;
const methods = driversFor(noServices).flatMap(({ service, rpcs }) =>
  service.methods.map((method) => [`${service.name}/${method.name}`, method, rpcs[method.localName]!.kind] as const),
);

/** What an RPC answers, as bytes; what it refuses, as text. */
const answer = async (
  method: (typeof methods)[number][1],
  given: object,
  init: CallInit,
): Promise<{ readonly bytes: Buffer; readonly refused?: CallError }> => {
  const message = create(method.input, given as never);
  const parts: Uint8Array[] = [];
  try {
    if (method.methodKind === 'unary') {
      parts.push(toBinary(method.output, await sidecar.grpc.unary(method as DescMethodUnary, message, init)));
    } else {
      const stream = sidecar.grpc.stream(method as DescMethodServerStreaming, message, init);
      for await (const each of stream) parts.push(toBinary(method.output, each));
    }
    return { bytes: Buffer.concat(parts) };
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    return { bytes: Buffer.from(`${error.message} ${JSON.stringify(error.metadata)}`), refused: error };
  }
};

test('without the policies a bound caller is refused, and not shown everything', async () => {
  const [, method] = methods.find(([name]) => name === 'PolicyEngineService/FetchRiskCeilings')!;
  const { refused } = await answer(method, {}, as('bound'));
  // The role belongs to the whole server, and may be there of another database.
  expect(['TENANTS_NOT_ENFORCED', 'OUTSIDE_TENANTS', 'SCHEMA_OUTDATED']).toContain(refused?.reason);
  expect((await tenantsStatus(sidecar.url)).lacking).toContain('policy.risk_ceilings');
});

describe('with the policies', () => {
  let before: Record<string, string[]>;
  beforeAll(async () => {
    await migrateTenants(sidecar.url);
    await migrateTenants(sidecar.url);
    await seed();
    before = await theirs();
  });

  test('every table has its decision, and they are in place', async () => {
    expect(await tenantsStatus(sidecar.url)).toEqual({ role: true, lacking: [] });
  });

  const seen = new Set<string>();
  let own = 0;
  /** Answers that show rows of the caller's own. */
  const inside = { leased: 0, executed: 0 };

  test.each(methods)(
    `%s shows a bound caller nothing of another tenant and changes nothing of it (SEED=${SEED})`,
    async (name, method, kind) => {
      for (const given of [{}, ...fc.sample(request(method.input), { numRuns: 10, seed: SEED })]) {
        const bound = await answer(method, given, as('bound', kind === 'write' ? 'single-use' : undefined));
        expect(bound.refused?.code).not.toBe('INTERNAL');
        expect(bound.bytes.includes(MARK), `${name} ${bound.bytes.toString('latin1')}`).toBe(false);
        if (bound.bytes.includes('ours ')) own += 1;
        if (kind !== 'read') continue;
        const free = await answer(method, given, as('free'));
        if (free.bytes.includes(MARK)) seen.add(name);
      }
    },
  );

  test('to an unbound caller many of the same answers show the other tenant', () => {
    expect(seen.size).toBeGreaterThan(20);
    expect(own).toBeGreaterThan(20);
  });

  test.each(methods)(
    `%s is kept to the same rows by an open transaction and by Execute (SEED=${SEED})`,
    async (name, method, kind) => {
      const operation = OperationSchema.oneofs[0]!.fields.find(({ message }) => message === method.input);
      for (const given of [{}, ...fc.sample(request(method.input), { numRuns: 3, seed: SEED })]) {
        const { transaction } = await sidecar.grpc.unary(begin, {}, as('bound'));
        const { id } = transaction!;
        const leased = await answer(method, given, as('bound', id));
        await sidecar.grpc.unary(kind === 'write' && !leased.refused ? commit : rollback, {}, as('bound', id));
        expect(leased.refused?.code).not.toBe('INTERNAL');
        expect(leased.bytes.includes(MARK), name).toBe(false);
        if (leased.bytes.includes('ours ')) inside.leased += 1;
        if (!operation) continue;
        const value = create(method.input, given as never);
        const operations = [{ request: { case: operation.localName, value } }];
        const executed = await answer(execute as never, { operations }, as('bound'));
        expect(executed.refused?.code).not.toBe('INTERNAL');
        expect(executed.bytes.includes(MARK), name).toBe(false);
        if (executed.bytes.includes('ours ')) inside.executed += 1;
      }
    },
  );

  test('there, too, they are shown their own', () => {
    expect(inside.leased).toBeGreaterThan(10);
    expect(inside.executed).toBeGreaterThan(10);
  });

  test('what names another tenant in a write is refused, and one bound to no tenant sees nothing', async () => {
    const [, createScope] = methods.find(([name]) => name === 'ScopeResolverService/CreateScope')!;
    const ids = { tenantId: THEIRS, policyId: 'p' };
    const [, fetchScopes] = methods.find(([name]) => name === 'ScopeResolverService/FetchScopes')!;
    const given = { tenantId: OURS };
    const { refused } = await answer(createScope, ids, as('bound', 'single-use'));
    expect(refused?.reason).toBe('OUTSIDE_TENANTS');
    // The calls before may have moved or deleted all that there was.
    const made = await answer(createScope, { ...ids, tenantId: OURS }, as('bound', 'single-use'));
    expect(made.refused).toBeUndefined();
    expect((await answer(fetchScopes, given, as('none'))).bytes).toHaveLength(0);
    expect((await answer(fetchScopes, given, as('bound'))).bytes).not.toHaveLength(0);
  });

  test('a token of one who sees all rows leads a bound caller on through its own alone', async () => {
    await sidecar.sql(
      `insert into policy.evaluations (action_type, decision, tenant_id, evaluated_at)
      select 'walked', 'allow', case n % 2 when 0 then $1 else $2 end, '2026-01-01Z'::timestamptz - n * interval '1 microsecond'
      from generate_series(1, 9) n`,
      [OURS, THEIRS],
    );
    const { fetchEvaluations } = PolicyEngineService.method;
    const page = async (caller: string, limit: number, pageToken = '') => {
      const given = { actionType: 'walked', limit, pageToken };
      const { evaluations, nextPageToken } = await sidecar.grpc.unary(fetchEvaluations, given, as(caller));
      return { tenants: evaluations.map(({ tenantId }) => tenantId), token: nextPageToken };
    };
    const { tenants, token } = await page('free', 3);
    expect(tenants).toEqual([THEIRS, OURS, THEIRS]);
    expect(await page('bound', 3, token)).toEqual({ tenants: [OURS, OURS, OURS], token: expect.any(String) });
    const own = await page('bound', 1);
    expect(await page('bound', 9, own.token)).toEqual({ tenants: [OURS, OURS, OURS], token: undefined });
  });

  test('what a bound caller has prepared is committed by it', async () => {
    const [, createScope] = methods.find(([name]) => name === 'ScopeResolverService/CreateScope')!;
    const { transaction } = await sidecar.grpc.unary(begin, {}, as('bound'));
    const init = as('bound', transaction!.id!);
    const made = await answer(createScope, { tenantId: OURS, policyId: 'prepared' }, init);
    expect(made.refused).toBeUndefined();
    await sidecar.grpc.unary(prepare, {}, init);
    // Its owner alone may end it, or a superuser, as which these tests serve.
    const owners = 'select owner = current_user as ours from pg_prepared_xacts where database = current_database()';
    expect(await sidecar.sql(owners)).toEqual([{ ours: true }]);
    expect(await sidecar.sql(`select from public.policy_scopes where policy_id = 'prepared'`)).toHaveLength(0);
    await sidecar.grpc.unary(commitPrepared, {}, init);
    expect(await sidecar.sql(`select from public.policy_scopes where policy_id = 'prepared'`)).toHaveLength(1);
  });

  test.skipIf(!pgBouncerAvailable)(
    'behind a pooler whose one session serves bound and unbound callers in turn, each sees its own rows',
    async () => {
      const pooler = await startPgBouncer({
        url: sidecar.url,
        mode: 'transaction',
        settings: { default_pool_size: 1 },
      });
      const pooled = await startTestSidecar({ ...guards, poolWaitMs: 30_000 }, pooler.url);
      try {
        const [, fetchViolations] = methods.find(([name]) => name === 'PolicyEngineService/FetchViolations')!;
        const shows = async (name: string): Promise<boolean> => {
          const found = await pooled.grpc.unary(fetchViolations as DescMethodUnary, {}, as(name));
          return Buffer.from(toBinary(fetchViolations.output, found)).includes(MARK);
        };
        const callers = Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? 'bound' : 'free'));
        expect(await Promise.all(callers.map(shows))).toEqual(callers.map((name) => name === 'free'));
      } finally {
        await pooled.stop();
        await pooler.stop();
      }
    },
  );

  test('no row of the other tenant has changed', async () => {
    const after = await theirs();
    for (const [table, rows] of Object.entries(before)) expect(after[table], table).toEqual(rows);
    expect(Object.values(before).flat().length).toBeGreaterThan(25);
  });
});
