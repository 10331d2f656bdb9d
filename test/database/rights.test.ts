import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, type DescMethodUnary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest';
import { migrateCheck, migrateUp } from '../../src/database/migrate/migrate.ts';
import { openDatabase } from '../../src/database/pool.ts';
import { readTarget } from '../../src/database/target.ts';
import { drivers as driversFor } from '../../src/drivers/drivers.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { prune } from '../../src/transactions/outcomes.ts';
import { CallError } from '../support/client.ts';
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
const [toMigrate, toServe] = [...DOCUMENT.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql!);

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
  await asAdministrator(written(toMigrate!));
});

test('a stranger is told of each right that it lacks', async () => {
  await asAdministrator(
    `grant connect, temporary on database ${new URL(database.url).pathname.slice(1)} to ${role('policy_runner')}`,
  );
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
  await connected(urlAs('policy_migrator'), (client) => client.query(written(toServe!)));
});

describe('the role that serves', () => {
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
