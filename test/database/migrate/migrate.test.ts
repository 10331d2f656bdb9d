import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { migrations } from '../../../migrations/index.ts';
import {
  BlockedError,
  migrateCheck,
  migrateUp,
  migrationStatus,
  ObstacleError,
} from '../../../src/database/migrate/migrate.ts';
import { pgBouncerAvailable, startPgBouncer } from '../../support/pgbouncer.ts';
import { copyDatabase, createEmptyDatabase, type TestDatabase } from '../../support/postgres.ts';
import { useDatabase } from '../../support/use.ts';
import { WAITING_FOR_LOCK } from '../../support/waiting.ts';
import { connected, tables } from '../catalog.ts';
import { allRows, expectKept, makePlatform, setZone } from '../platform.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..');
const MIGRATIONS = Object.keys(migrations).length;
/** Every table is one that is converted beside its readers and writers. */
const BESIDE = { smallBytes: -1 };

// Several whole migrations in a test, on a machine that does other things, too.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const platform = useDatabase(createEmptyDatabase);
let database: TestDatabase;

beforeAll(async () => {
  await makePlatform(platform.url);
});

beforeEach(async () => {
  database = await copyDatabase(platform);
  await setZone(database.url);
});

afterEach(() => database.drop());

/** A connection that stays open, as somebody else's. */
const other = async (application: string): Promise<pg.Client> => {
  const client = new pg.Client({ connectionString: database.url, application_name: application });
  client.on('error', () => {});
  await client.connect();
  return client;
};

const backends = (): Promise<unknown[]> =>
  connected(database.url, async (client) => {
    const { rows } = await client.query(
      `select pid from pg_stat_activity where datname = current_database() and application_name = 'policy-sidecar migrate'`,
    );
    return rows;
  });

describe('a migration that is cut off', () => {
  test('at three points is finished by the next one, and no row is lost', async () => {
    const before = await allRows(database.url);
    // Each goes on where the one before was cut off, and is itself while the next migration is under way.
    for (let point = 1; point <= 3; point += 1) {
      const child = spawn(process.execPath, [
        join(ROOT, 'test/support/migrator.ts'),
        database.url,
        JSON.stringify(BESIDE),
      ]);
      const ended = once(child, 'exit');
      let applied = 0;
      for await (const line of createInterface({ input: child.stdout })) {
        if (line.startsWith('applied ')) applied += 1;
        if (applied === 1) child.kill('SIGKILL');
      }
      expect(await ended).toEqual([null, 'SIGKILL']);
      await vi.waitFor(async () => expect(await backends()).toEqual([]));
      expect((await migrationStatus(database.url)).pending).not.toEqual([]);
    }
    await migrateUp(database.url, { tuning: BESIDE });
    expectKept(before, await allRows(database.url, Object.keys(before)));
    expect(await migrateUp(database.url)).toEqual([]);
  });

  test('leaves no backend behind that goes on', async () => {
    const holder = await other('holder');
    await holder.query('begin; lock table public.policy_rules in access share mode');
    const child = spawn(process.execPath, [join(ROOT, 'test/support/migrator.ts'), database.url, '{"lockMs": 60000}']);
    let out = '';
    child.stdout.on('data', (chunk) => {
      out += chunk;
    });
    await vi.waitFor(() => expect(out).toContain('applied Migration20261123000100'));
    await vi.waitFor(async () => expect((await holder.query(WAITING_FOR_LOCK)).rows).not.toEqual([]));
    child.kill('SIGKILL');
    await once(child, 'exit');
    await expect.poll(backends, { timeout: 10_000 }).toEqual([]);
    await holder.end();
  });
});

describe('a migration among others', () => {
  test('two at once take turns, and one of them has nothing to do', async () => {
    const lines: string[] = [];
    const both = await Promise.all([
      migrateUp(database.url, { say: (line) => lines.push(line) }),
      migrateUp(database.url, { say: (line) => lines.push(line) }),
    ]);
    expect(both.map(({ length }) => length).sort()).toEqual([0, MIGRATIONS]);
    expect(lines).toContainEqual(
      expect.stringMatching(/^waiting: pid \d+ \(policy-sidecar migrate.*\) migrates this database$/),
    );
  });

  test('says who blocks it, lets readers pass, gives up in time, and goes on later', async () => {
    const before = await allRows(database.url);
    const holder = await other('some report');
    await holder.query('begin; select from public.policy_rules');
    const lines: string[] = [];
    const reader = await other('reader');
    let longest = 0;
    let reading = true;
    const reads = (async () => {
      while (reading) {
        const began = performance.now();
        await reader.query('select id from public.policy_rules limit 1');
        longest = Math.max(longest, performance.now() - began);
      }
    })();
    const tuning = { lockMs: 150, tries: 3 };
    const refused = await migrateUp(database.url, { say: (line) => lines.push(line), tuning }).catch((error) => error);
    reading = false;
    await reads;
    expect(refused).toBeInstanceOf(BlockedError);
    expect(refused.message).toMatch(
      /^public\.policy_rules is blocked by pid \d+ \(some report, idle in transaction, \d+ s\); /,
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^waiting: public\.policy_rules is blocked by pid \d+ \(some report/),
    );
    expect(longest).toBeLessThan(1_000);
    await holder.query('rollback');
    expect(await migrateUp(database.url)).toHaveLength(MIGRATIONS - 1);
    expectKept(before, await allRows(database.url, Object.keys(before)));
    await Promise.all([holder.end(), reader.end()]);
  });

  // Story: the question that finds out how far an index is had nobody who took its failure, and the process ended.
  test('goes on without who tells how far it is', async () => {
    const holder = await other('some report');
    await holder.query('begin isolation level repeatable read; select from public.tenants');
    const lines: string[] = [];
    const migrated = migrateUp(database.url, { say: (line) => lines.push(line), tuning: BESIDE });
    migrated.catch(() => {});
    const ended = await vi.waitFor(
      async () =>
        connected(database.url, async (client) => {
          const { rows } = await client.query(`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = 'policy-sidecar migrate' and state = 'idle'
              and exists (select from pg_stat_progress_create_index where datname = current_database() and lockers_total > 0)`);
          expect(rows).toHaveLength(1);
          return rows;
        }),
      { timeout: 20_000 },
    );
    expect(ended).toHaveLength(1);
    await vi.waitFor(() => expect(lines).toContainEqual(expect.stringMatching(/^index .* \(\d+ s\)$/)), {
      timeout: 20_000,
    });
    await holder.end();
    expect(await migrated).toHaveLength(MIGRATIONS);
  });

  test.skipIf(!pgBouncerAvailable)(
    'through a pooler that gives connections away: two at once, and no lock is stranded',
    async () => {
      const pooler = await startPgBouncer({ url: database.url, mode: 'transaction' });
      try {
        const both = await Promise.all([
          migrateUp(pooler.url, { tuning: BESIDE }),
          migrateUp(pooler.url, { tuning: BESIDE }),
        ]);
        expect(both.map(({ length }) => length).sort()).toEqual([0, MIGRATIONS]);
        const locks = await connected(
          database.url,
          async (client) =>
            (
              await client.query(
                `select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())`,
              )
            ).rows,
        );
        expect(locks).toEqual([]);
      } finally {
        await pooler.stop();
      }
    },
  );
});

/** Rows of a large table; a million shows how long its readers wait, this many that they do not. */
const LARGE = Number(process.env['ROWS'] ?? 20_000);

/** What a conversion must leave as it is, of each row of the large tables. */
const DIGESTS = `select
  (select md5(string_agg(id || ' ' || confidence::text || ' ' || updated_at::text, ' ' order by id)) from public.recovery_candidates) as candidates,
  (select md5(string_agg(id || ' ' || details::jsonb::text, ' ' order by id)) from public.policy_enforcements) as enforcements`;

test('large tables change while each table is read, and nobody waits for long', async () => {
  await connected(database.url, async (client) => {
    await client.query(`set session_replication_role = 'replica'`);
    await client.query(`insert into public.recovery_candidates (failure_match_id, suggestion, confidence, decision, error_code, selected_action_id)
      select gen_random_uuid(), 'x', n % 997 / 997.0, case n % 3 when 0 then 'pending' when 1 then 'approved' end, 'E' || n % 50, n % 30 + 1
        from generate_series(1, ${LARGE}) n`);
    await client.query(`insert into public.policy_enforcements (id, tenant_id, rule_id, action_taken, details)
      select 'large ' || n, 'tenant 1', 'policy_rules 1', 'WARNED', '{"b": [1, 2.50], "a": null}' from generate_series(1, ${LARGE}) n`);
    await client.query('refresh materialized view m10_recovery.mv_top_pending');
  });
  const digests = async () => connected(database.url, async (client) => (await client.query(DIGESTS)).rows);
  const before = await digests();
  const { names, readers } = await connected(database.url, async (client) => {
    const { rows } = await client.query(
      `select format('%I.%I', nspname, relname) as name from pg_class c join pg_namespace n on n.oid = relnamespace
       where nspname in ('public', 'policy', 'm10_recovery') and relkind in ('r', 'm') order by 1`,
    );
    return {
      names: rows.map(({ name }) => name as string),
      readers: await Promise.all(rows.map(() => other('reader'))),
    };
  });
  const longest = new Map(names.map((name) => [name, 0]));
  let reading = true;
  const reads = names.map(async (name, index) => {
    while (reading) {
      const began = performance.now();
      await readers[index]!.query(`select * from ${name} limit 1`);
      longest.set(name, Math.max(longest.get(name)!, performance.now() - began));
      await sleep(50);
    }
  });
  const lines: string[] = [];
  try {
    await migrateUp(database.url, { say: (line) => lines.push(line) });
  } finally {
    reading = false;
    await Promise.all(reads);
    await Promise.all(readers.map((reader) => reader.end()));
  }
  const [worst] = [...longest].sort((a, b) => b[1] - a[1]);
  if (process.env['ROWS']) process.stdout.write(`longest wait of a reader: ${worst![0]} ${Math.round(worst![1])} ms\n`);
  expect(worst![1]).toBeLessThan(2_000);
  expect(await digests()).toEqual(before);
  const types = await connected(
    database.url,
    async (client) =>
      (
        await client.query(`select confidence, details from (select pg_typeof(confidence)::text as confidence from public.recovery_candidates limit 1) as c,
      (select pg_typeof(details)::text as details from public.policy_enforcements where details is not null limit 1) as d`)
      ).rows,
  );
  expect(types).toEqual([{ confidence: 'double precision', details: 'jsonb' }]);
});

test('a name that something else has gets a number, and nothing of others is touched', async () => {
  await connected(database.url, (client) =>
    client.query(`
      create table public.ix_policy_rules_parent (id integer);
      create sequence public.failure_catalog_pkey;
      create view public.ix_policy_rules_superseded_by as select 1 as one;
      create index uq_policy_precedence_tenant_policy on public.runs (note);
      alter table public.policy_precedence add constraint ck_policy_precedence_failure_mode unique (id, bind_at)`),
  );
  expect(await migrateUp(database.url)).toHaveLength(MIGRATIONS);
  const { rows } = await connected(database.url, (client) =>
    client.query(`select relname as name, relkind as kind from pg_class where relname ~
      '^(ix_policy_rules_parent|failure_catalog_pkey|ix_policy_rules_superseded_by|uq_policy_precedence_tenant_policy)1?$'
      union all select conname, contype from pg_constraint where conname ~ '^ck_policy_precedence_failure_mode' order by 1`),
  );
  expect(rows.map(({ name, kind }) => `${name} ${kind}`)).toEqual([
    'ck_policy_precedence_failure_mode u',
    'ck_policy_precedence_failure_mode1 c',
    'failure_catalog_pkey S',
    'failure_catalog_pkey1 i',
    'ix_policy_rules_parent r',
    'ix_policy_rules_parent1 i',
    'ix_policy_rules_superseded_by v',
    'ix_policy_rules_superseded_by1 i',
    'uq_policy_precedence_tenant_policy i',
    'uq_policy_precedence_tenant_policy1 i',
  ]);
});

/** Faults, by what is done to the platform's database, and what is said of each. */
const FAULTS: readonly (readonly [string, RegExp])[] = [
  [
    `update public.policy_rules set conditions = '{"a": "\\u0000"}' where id in ('policy_rules 1', 'policy_rules 2')`,
    /^public\.policy_rules\.conditions 2 hold a document that jsonb cannot/,
  ],
  [
    `update public.policy_enforcements set details = '["\\ud800"]' where id = 'policy_enforcements 1'`,
    /^public\.policy_enforcements\.details 1 hold a document that jsonb cannot/,
  ],
  [
    `update public.policy_precedence set failure_mode = 'open' where id = 1`,
    /^public\.policy_precedence 1 break ck_policy_precedence_failure_mode/,
  ],
  [
    `alter table public.policy_enforcements drop constraint fk_policy_enforcements_rule;
     update public.policy_enforcements set rule_id = 'nobody' where id = 'policy_enforcements 3'`,
    /^public\.policy_enforcements\.rule_id 1 point to no row of public\.policy_rules/,
  ],
  [
    `drop index public.ix_policy_scopes_scope_id; update public.policy_scopes set scope_id = 'same' where id in (1, 2)`,
    /^public\.policy_scopes 2 share their \(scope_id\), which ix_policy_scopes_scope_id does not allow/,
  ],
  [
    `create trigger watches after update of confidence on public.recovery_candidates for each row execute function public.touch()`,
    /^public\.recovery_candidates\.confidence becomes double precision, and trigger watches on table .* depends on it/,
  ],
  [
    `alter table m10_recovery.suggestion_action add column percent double precision generated always as (success_rate * 100) stored`,
    /^m10_recovery\.suggestion_action\.success_rate becomes double precision, and .*percent.* depends on it/,
  ],
  [
    `alter table policy.violations drop column violation_kind`,
    /^public\.alembic_version the platform's own migrations stand at 135_last, before those that make policy\.violations\.violation_kind/,
  ],
];

const said = ({ where, rows, what }: { where: string; rows?: number; what: string }): string =>
  [where, rows, what].filter((part) => part !== undefined).join(' ');

/** All rows in PostgreSQL's own text: some of these have no other form. */
const texts = (): Promise<unknown[]> =>
  connected(database.url, async (client) => {
    const found: unknown[] = [];
    for (const table of await tables(client))
      found.push((await client.query(`select t::text from ${table} t order by 1`)).rows);
    return found;
  });

describe('what would stop a migration', () => {
  test('is said beforehand, and refused with the same lines; nothing is changed', async () => {
    await connected(database.url, async (client) => {
      await client.query(`set session_replication_role = 'replica'`);
      for (const [fault] of FAULTS) await client.query(fault);
    });
    const before = await texts();
    const stops = (await migrateCheck(database.url)).filter(({ level }) => level === 'stop');
    for (const [, line] of FAULTS) expect(stops.map(said)).toContainEqual(expect.stringMatching(line));
    expect(stops).toHaveLength(FAULTS.length);
    expect(stops.every(({ remedy }) => remedy !== undefined)).toBe(true);
    const refused = await migrateUp(database.url).catch((error) => error);
    expect(refused).toBeInstanceOf(ObstacleError);
    expect(refused.message.split('\n').slice(1)).toHaveLength(FAULTS.length);
    expect(await texts()).toEqual(before);
    expect(await backends()).toEqual([]);
  });

  test('what it changes is said, too: types, zones, repeated keys, triggers, indexes', async () => {
    const findings = await migrateCheck(database.url);
    expect(findings.filter(({ level }) => level === 'stop')).toEqual([]);
    const lines = findings.map(said);
    for (const line of [
      /^public\.recovery_candidates\.confidence 30 real becomes double precision/,
      /^public\.policy_proposals\.created_at 30 are read as UTC, and this database's TimeZone is America\/New_York/,
      /^public\.policy_rules\.conditions \d+ name a key more than once/,
      /^public\.policy_rules trigger trg_policy_rule_integrity_required goes/,
      /^public\.recovery_candidates trigger trg_recovery_candidates_action_outcome is made, in the place of trg_update_action_success/,
      /^m10_recovery\.mv_top_pending is made again as it is/,
      /^policy\.snapshots is made/,
      /^public\.policy_rules\.is_active is added/,
      /^policy\.evaluations \d+ index ix_evaluations_evaluated_at_id is built/,
    ]) {
      expect(lines).toContainEqual(expect.stringMatching(line));
    }
    await migrateUp(database.url);
    expect(await migrateCheck(database.url)).toEqual([]);
  });
});
