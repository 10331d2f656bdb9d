import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, type DescMethodUnary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { migrateCheck, migrateUp, migrationStatus } from '../../src/database/migrate/migrate.ts';
import { openDatabase } from '../../src/database/pool.ts';
import { readTarget } from '../../src/database/target.ts';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { entities } from '../../src/entities/all.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { prune } from '../../src/transactions/outcomes.ts';
import { CallError } from '../support/client.ts';
import { startCommand } from '../support/command.ts';
import { createEmptyDatabase } from '../support/postgres.ts';
import { request } from '../support/requests.ts';
import { noServices } from '../support/services.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useDatabase, useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';
import { connected } from './catalog.ts';
import { allRows, expectKept, makePlatform } from './platform.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

const DOCUMENT = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'adoption.md'), 'utf8');
const [administration] = [...DOCUMENT.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql!);

/** Roles belong to the whole server: each run has its own. */
const run = randomUUID().slice(0, 8);
const ROLES = ['platform_owner', 'policy_migrator', 'policy_runner'];
const role = (name: string): string => `${name}_${run}`;

afterAll(() =>
  connected(inject('postgresUrl'), async (client) => {
    for (const each of ROLES) await client.query(`drop role if exists ${role(each)}`);
  }),
);
const database = useDatabase(createEmptyDatabase);
let before: Record<string, string[]>;

const urlAs = (name: string): string => {
  const url = new URL(database.url);
  url.username = role(name);
  url.password = 'secret';
  return url.href;
};

/** The document's statements, for these roles and this database. */
const written = (sql: string): string =>
  ROLES.reduce((text, name) => text.replaceAll(name, role(name)), sql).replaceAll(
    'database platform ',
    `database ${new URL(database.url).pathname.slice(1)} `,
  );

const asAdministrator = (sql: string): Promise<unknown> => connected(database.url, (client) => client.query(sql));

beforeAll(async () => {
  const name = new URL(database.url).pathname.slice(1);
  await asAdministrator(`
    ${ROLES.map((each) => `create role ${role(each)} login password 'secret';`).join('\n')}
    alter database ${name} owner to ${role('platform_owner')};
    revoke all on database ${name} from public;
    grant pg_monitor to ${role('platform_owner')} with admin option`);
  await makePlatform(urlAs('platform_owner'));
  before = await allRows(database.url);
  await asAdministrator(written(administration!));
});

test('a stranger is told of each right that it lacks', async () => {
  const stops = (await migrateCheck(urlAs('policy_runner'))).filter(({ level }) => level === 'stop');
  expect(stops.map(({ what }) => what)).toContainEqual(
    expect.stringMatching(/^is missing, and policy_runner_\w+ may not make it$/),
  );
  expect(stops.map(({ what }) => what)).toContainEqual(expect.stringMatching(/^belongs to platform_owner_/));
});

test('a view of somebody else’s, and rows that are hidden, are told before', async () => {
  await asAdministrator(`create view public.watched as select confidence from public.recovery_candidates;
    alter table public.limits enable row level security; alter table public.limits force row level security`);
  const told = async () =>
    (await migrateCheck(urlAs('policy_migrator')))
      .filter(({ level }) => level === 'stop')
      .map(({ where, what }) => `${where} ${what}`);
  expect(await told()).toEqual(['public.limits row security hides rows from the role that migrates']);
  await asAdministrator('alter table public.limits no force row level security');
  expect(await told()).toEqual([
    expect.stringMatching(
      /^public\.watched reads a column of public\.recovery_candidates that changes its type, and belongs to /,
    ),
  ]);
  await asAdministrator('drop view public.watched; alter table public.limits disable row level security');
  expect(await told()).toEqual([]);
});

test('the role that migrates is no superuser, and every row is kept', async () => {
  expect(await migrateUp(urlAs('policy_migrator'), { tuning: { smallBytes: -1 } })).not.toEqual([]);
  expectKept(before, await allRows(database.url, Object.keys(before)));
});

/** `migrate up` as one role, for another one that serves. */
const migrated = async (as: string, serving: string) => {
  const env = { DATABASE_URL: urlAs(as), SIDECAR_SERVING_ROLE: serving };
  const { ended, out, err } = startCommand(['migrate', 'up'], env);
  return { code: await ended, out: out(), err: err() };
};

test('what serving takes is given where nothing was left to migrate, once', async () => {
  const runner = role('policy_runner');
  const given = await migrated('policy_migrator', runner);
  expect(given).toMatchObject({ code: 0, err: '' });
  expect(given.out).toMatch(new RegExp(`^nothing to apply\ngranted \\d+ right\\(s\\) to ${runner}\n$`));
  const again = { code: 0, err: '', out: `nothing to apply\nnothing to grant to ${runner}\n` };
  expect(await migrated('policy_migrator', runner)).toEqual(again);
  // Who may grant nothing is not asked to.
  expect(await migrated('policy_runner', runner)).toEqual(again);
});

test('a right that the migrating role may not give is told with its statement, and nothing else is withheld', async () => {
  const stranger = role('policy_stranger');
  await asAdministrator(`create role ${stranger}; alter table public.tenants owner to current_user`);
  const { code, err } = await migrated('policy_migrator', stranger);
  const refused = `grant select on public.tenants to ${stranger}`;
  expect({ code, err }).toEqual({
    code: 6,
    err: `policy-sidecar: the role that migrates may not give ${stranger} all that serving takes; who may has to: ${refused}\n`,
  });
  await asAdministrator(`alter table public.tenants owner to ${role('platform_owner')}; ${refused}`);
  const again = await migrated('policy_migrator', stranger);
  expect(again).toEqual({ code: 0, err: '', out: `nothing to apply\nnothing to grant to ${stranger}\n` });
  await asAdministrator(`drop owned by ${stranger}; drop role ${stranger}`);
});

test('a role that is not there is told before anything is migrated', async () => {
  const empty = await createEmptyDatabase();
  const env = { DATABASE_URL: empty.url, SIDECAR_SERVING_ROLE: role('policy_nobody') };
  const { ended, err } = startCommand(['migrate', 'up'], env);
  const code = await ended;
  const { pending, executed } = await migrationStatus(empty.url);
  await empty.drop();
  expect({ code, err: err() }).toEqual({
    code: 2,
    err: `policy-sidecar: SIDECAR_SERVING_ROLE is ${role('policy_nobody')}, and there is no such role: create it\n`,
  });
  expect(executed).toEqual([]);
  expect(pending).not.toEqual([]);
});

/** Rights that a role was given by itself on things that are listed in a catalog. */
const held = async (kind: 'r' | 'S'): Promise<Record<string, string>> =>
  connected(database.url, async (client) => {
    const { rows } = await client.query<{ name: string; rights: string }>(
      `select nspname || '.' || relname as name, string_agg(lower(privilege_type), ', ' order by privilege_type) as rights
       from pg_class c join pg_namespace n on n.oid = relnamespace, aclexplode(relacl)
       where grantee = $1::regrole and relkind = $2 group by 1`,
      [role('policy_runner'), kind],
    );
    return Object.fromEntries(rows.map(({ name, rights }) => [name, rights]));
  });

describe('the role that serves', () => {
  test('has the rights on tables that their entities declare, and no other', async () => {
    const declared = entities.map(({ meta, changes }) => [meta.name!, ['select', ...changes].sort().join(', ')]);
    expect(await held('r')).toEqual({ ...Object.fromEntries(declared), 'policy_sidecar.migrations': 'select' });
    // What would be lost by a slip of the declarations.
    const deleting = entities.filter(({ changes }) => changes.includes('delete')).map(({ meta }) => meta.name);
    expect(deleting.sort()).toEqual([
      'policy.temporal_metric_events',
      'policy_sidecar.outcomes',
      'policy_sidecar.requests',
      'public.policy_precedence',
      'public.policy_rules',
      'public.policy_scopes',
    ]);
  });

  test('takes numbers from the sequences of tables that it inserts into, and owns and makes nothing', async () => {
    const numbering = [
      'm10_recovery.suggestion_provenance_id_seq',
      'm10_recovery.work_queue_id_seq',
      'policy.snapshots_id_seq',
      'public.policy_precedence_id_seq',
      'public.policy_scopes_id_seq',
      'public.recovery_candidates_audit_id_seq',
      'public.recovery_candidates_id_seq',
    ];
    expect(await held('S')).toEqual(Object.fromEntries(numbering.map((name) => [name, 'usage'])));
    const runner = role('policy_runner');
    const others = await connected(database.url, async (client) => {
      const { rows } = await client.query(
        `select privilege_type as right from pg_namespace, aclexplode(nspacl) where grantee = $1::regrole
         union select privilege_type from pg_database, aclexplode(datacl) where grantee = $1::regrole
         union select 'owns ' || relname from pg_class where relowner = $1::regrole
         union select 'is ' || roleid::regrole from pg_auth_members where member = $1::regrole order by 1`,
        [runner],
      );
      return rows.map(({ right }) => right);
    });
    expect(others).toEqual(['CONNECT', 'USAGE']);
  });

  const methods = driversFor(noServices).flatMap(({ service, rpcs }) =>
    service.methods
      .filter((method): method is DescMethodUnary => method.methodKind === 'unary')
      .map((method) => [`${service.name}.${method.name}`, method, rpcs[method.localName]!.kind] as const),
  );

  const sidecar = useSidecar(() => startTestSidecar({}, urlAs('policy_runner')));

  test.each(methods)('%s answers on the adopted database', async (_name, method, kind) => {
    await fc.assert(
      fc.asyncProperty(request(method.input), async (given) => {
        const init = kind === 'write' ? { transaction: 'single-use' } : {};
        try {
          await sidecar.grpc.unary(method, create(method.input, given as never), init);
        } catch (error) {
          if (!(error instanceof CallError)) throw error;
          expect(`${error.code} ${error.reason} ${error.message}`).not.toMatch(
            /^(INTERNAL|UNKNOWN|PERMISSION_DENIED|UNIMPLEMENTED)/,
          );
        }
      }),
      { numRuns: 12 },
    );
  });

  test('a transaction leaves evidence of its commit, and old evidence is deleted', async () => {
    const tx = TransactionService.method;
    const { transaction } = await sidecar.grpc.unary(tx.begin, {});
    await sidecar.grpc.unary(PolicyEngineService.method.insertViolation, violation(), {
      transaction: transaction!.id!,
    });
    await sidecar.grpc.unary(tx.commit, { transactionId: transaction!.id! });
    const subject = { case: 'transactionId' as const, value: transaction!.id! };
    expect((await sidecar.grpc.unary(tx.getOutcome, { subject })).outcome).toBe(Outcome.COMMITTED);
    const lane = { max: 1, queue: 1, waitMs: 10_000 };
    const clocks = { statementMs: 60_000, lockMs: 5_000 };
    const database = openDatabase(readTarget(urlAs('policy_runner')), {
      calls: lane,
      transactions: lane,
      ...clocks,
      pooler: 'auto',
    });
    await prune(database.reserve, 1);
    await database.end(1_000);
    expect((await sidecar.grpc.unary(tx.getOutcome, { subject })).outcome).toBe(Outcome.UNKNOWN);
  });
});
