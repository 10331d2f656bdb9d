import type { Step } from '../../../migrations/canonical.ts';
import { migrations } from '../../../migrations/index.ts';
import { applySteps } from './apply.ts';
import { obstacles } from './check.ts';
import { type Finding, ObstacleError } from './findings.ts';
import { type Tx, txOf, withClient, withLook } from './look.ts';
import { outlook } from './outlook.ts';
import { type Migrating, type Say, TUNING, type Tuning, withTurn } from './turn.ts';

export type { Finding } from './findings.ts';
export { findingText, ObstacleError } from './findings.ts';
export { isAway, UnreachableError, withClient } from './look.ts';
export { BlockedError } from './turn.ts';

/** The oldest PostgreSQL that is supported, by its major version. */
export const OLDEST_SERVER = 14;

const SCHEMA = 'policy_sidecar';
const TABLE = 'migrations';

/** Where a database stands against this program. */
export interface MigrationStatus {
  /** Applied, oldest first; `at` is PostgreSQL's text of the instant. */
  readonly executed: readonly { readonly name: string; readonly at: string }[];
  /** Known to this program and not applied yet. */
  readonly pending: readonly string[];
  /** Applied by a newer program. */
  readonly unknown: readonly string[];
}

/** A schema that is older than the program; the message is one line for the user. */
export class SchemaError extends Error {
  /** @param count of the migrations it lacks. */
  constructor(count: number) {
    super(`the database lacks ${count} migration(s): run \`policy-sidecar migrate up\`, or set SIDECAR_MIGRATE=up`);
  }
}

/** Names of all migrations of this program, oldest first. */
const known = (): string[] => Object.keys(migrations);

/** What a migration states. */
const stepsOf = async (name: string): Promise<readonly Step[]> => {
  const migration = new migrations[name]!();
  await migration.up();
  return migration.steps;
};

/** Whether there is a list of what has been applied. */
const isThere = async ({ row }: Tx): Promise<boolean> =>
  (await row(`select to_regclass('${SCHEMA}.${TABLE}') is not null as there`)).flag('there');

const statusOf = async (tx: Tx): Promise<MigrationStatus> => {
  const rows = (await isThere(tx))
    ? await tx.rows(`select name, executed_at::text as at from ${SCHEMA}.${TABLE} order by id`)
    : [];
  const executed = rows.map((row) => ({ name: row.text('name'), at: row.text('at') }));
  const names = new Set(executed.map(({ name }) => name));
  const all = known();
  return {
    executed,
    pending: all.filter((name) => !names.has(name)),
    unknown: [...names].filter((name) => !all.includes(name)),
  };
};

/** Compares a database with the migrations of this program. */
export const migrationStatus = (url: string): Promise<MigrationStatus> =>
  withClient(url, (client) => statusOf(txOf(client)));

/** Whom a migration tells what. */
export interface MigrateOptions {
  /** What takes time, waits or is blocked. */
  readonly say?: Say;
  /** Each migration, once it has been applied. */
  readonly onApplied?: (name: string) => void;
  readonly tuning?: Partial<Tuning>;
}

/** The table in which MikroORM's migrator, too, keeps what has been applied. */
const prepare = async (migrating: Migrating): Promise<void> => {
  await applySteps(migrating, [{ kind: 'schema', name: SCHEMA }], new Set());
  await migrating.short('the list of migrations', async (tx) => {
    if (await isThere(tx)) return;
    await tx.run(`create table ${SCHEMA}.${TABLE}
      (id serial primary key, name varchar(255), executed_at timestamptz default current_timestamp)`);
  });
};

/**
 * Applies what is pending, each migration in many short transactions: a table is held for moments at a time, and what is
 * interrupted is finished by the next call. Only one call at a time works on a database.
 *
 * @returns names of the migrations applied.
 * @throws ObstacleError where something stored would stop it: with nothing changed, or, where that was written meanwhile,
 *   with every value where it was.
 */
export const migrateUp = async (
  url: string,
  { say = () => {}, onApplied = () => {}, tuning = {} }: MigrateOptions = {},
): Promise<readonly string[]> => {
  const applied: string[] = [];
  if ((await migrationStatus(url)).pending.length === 0) return applied;
  await withTurn(url, { say, tuning: { ...TUNING, ...tuning } }, async (migrating) => {
    const { pending } = await migrating.look(statusOf);
    const migrations = await Promise.all(pending.map(async (name) => ({ name, steps: await stepsOf(name) })));
    const found = await obstacles(
      (task) => migrating.look(task),
      migrations.flatMap(({ steps }) => steps),
    );
    if (found.length > 0) throw new ObstacleError(found);
    await prepare(migrating);
    const made = new Set<string>();
    for (const { name, steps } of migrations) {
      await applySteps(migrating, steps, made);
      await migrating.short('the list of migrations', (tx) =>
        tx.run(`insert into ${SCHEMA}.${TABLE} (name) values ('${name}')`),
      );
      applied.push(name);
      onApplied(name);
    }
  });
  return applied;
};

/** What {@link migrateUp} would meet and change, without a lock that anybody waits for, and without changing anything. */
export const migrateCheck = async (url: string): Promise<readonly Finding[]> => {
  const { pending } = await migrationStatus(url);
  const steps = (await Promise.all(pending.map(stepsOf))).flat();
  return withLook(url, async (look) => [
    ...(await obstacles(look, steps)),
    ...(await outlook(look, steps, TUNING.smallBytes)),
  ]);
};
