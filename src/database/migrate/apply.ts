import { createTable, plainly, type Step } from '../../../migrations/canonical.ts';
import { applyColumns } from './apply-columns.ts';
import {
  constraintsOf,
  findTable,
  freeName,
  indexesOf,
  type LiveConstraint,
  type LiveIndex,
  type LiveTable,
  quote,
  sameConstraint,
  spellIndex,
  suffixed,
} from './catalog.ts';
import { checksOn, droppable, type Of, servingIndex, spelled, triggersOf } from './live-objects.ts';
import type { Tx } from './look.ts';
import type { Migrating } from './turn.ts';

const DUPLICATE_TABLE = '42P07';
const DUPLICATE_OBJECT = '42710';
const ADOPTING = '__adopting';

/** Index builds on tables up to this size keep writers waiting for less time than a concurrent build takes to begin. */
const TINY_BYTES = 64 * 1024;

/** A table that a step speaks of. */
const tableOf = async (tx: Tx, name: string): Promise<LiveTable> => {
  const table = await findTable(tx, name);
  if (!table) throw new Error(`there is no table ${name}`);
  return table;
};

const applyIndex = async (
  migrating: Migrating,
  { table: name, name: stated, tail, unique }: Of<'index'>,
): Promise<void> => {
  const { table, indexes, body } = await migrating.look(async (tx) => {
    const found = await tableOf(tx, name);
    return { table: found, indexes: await indexesOf(tx, found.oid), body: await spellIndex(tx, found.name, tail) };
  });
  if (servingIndex(indexes, body, unique)) return;
  await buildIndex(migrating, table, indexes, { stated, body, unique, tail });
};

/** Builds an index under the stated name, or the next free one. */
const buildIndex = async (
  migrating: Migrating,
  table: LiveTable,
  indexes: readonly LiveIndex[],
  { stated, body, unique, tail }: { stated: string; body: string; unique: boolean; tail: string },
): Promise<string> => {
  // What an interrupted build has left serves nobody, and costs every write.
  for (const broken of indexes.filter((index) => !index.valid && index.body === body && index.unique === unique)) {
    const broke = `${quote(table.schema)}.${quote(broken.name)}`;
    await migrating.alone(`index ${broken.name}`, `drop index concurrently ${broke}`);
  }
  const free = await migrating.look((tx) => freeName(tx, table.schema, stated, table.oid));
  const sql = (how: string): string =>
    `create ${unique ? 'unique ' : ''}index ${how} ${quote(free)} on ${table.name} ${tail}`;
  const what = `index ${free} of ${table.name}`;
  if (table.bytes <= TINY_BYTES) await migrating.short(what, (tx) => tx.run(sql('')));
  else await migrating.alone(what, sql('concurrently'));
  return free;
};

const applyConstraint = async (migrating: Migrating, step: Of<'constraint'>): Promise<void> => {
  const { table, live, indexes, wanted } = await migrating.look(async (tx) => {
    const found = await tableOf(tx, step.table);
    return {
      table: found,
      live: await constraintsOf(tx, found.oid),
      indexes: await indexesOf(tx, found.oid),
      wanted: await spelled(tx, found, step),
    };
  });
  if (step.type === 'u') await applyUnique(migrating, step, table, live, indexes, wanted);
  else await applyChecked(migrating, step, table, live, wanted);
};

const applyUnique = async (
  migrating: Migrating,
  { name, definition }: Of<'constraint'>,
  table: LiveTable,
  live: readonly LiveConstraint[],
  indexes: readonly LiveIndex[],
  wanted: string,
): Promise<void> => {
  if (live.some((each) => sameConstraint(each.definition, wanted))) return;
  const tail = definition.replace(/^unique /, '');
  const body = await migrating.look((tx) => spellIndex(tx, table.name, tail));
  if (servingIndex(indexes, body, true)) return;
  const index = await buildIndex(migrating, table, indexes, { stated: name, body, unique: true, tail });
  await migrating.short(table.name, (tx) =>
    tx.run(`alter table ${table.name} add constraint ${quote(index)} unique using index ${quote(index)}`),
  );
};

/** A CHECK or a foreign key: from now on for every new row, then for those that are there, beside readers and writers. */
const applyChecked = async (
  migrating: Migrating,
  { type, name, definition }: Of<'constraint'>,
  table: LiveTable,
  live: readonly LiveConstraint[],
  wanted: string,
): Promise<void> => {
  const alter = (what: string): Promise<void> =>
    migrating.short(table.name, (tx) => tx.run(`alter table ${table.name} ${what}`));
  const outdated = live.find(
    (each) => each.name === name && each.type === type && !sameConstraint(each.definition, wanted),
  );
  const replacing = type === 'c' && outdated !== undefined;
  const aside = suffixed(name, ADOPTING);
  let equal = live.find((each) => each.type === type && sameConstraint(each.definition, wanted));
  if (!equal) {
    const called = replacing ? aside : await migrating.look((tx) => freeName(tx, table.schema, name, table.oid));
    const empty = table.bytes === 0 && !replacing;
    await alter(`add constraint ${quote(called)} ${definition}${empty ? '' : ' not valid'}`);
    equal = { name: called, type, definition: wanted, valid: empty };
  }
  if (!equal.valid) {
    const sql = `alter table ${table.name} validate constraint ${quote(equal.name)}`;
    await migrating.long(`constraint ${equal.name} of ${table.name}`, (tx) => tx.run(sql));
  }
  if (replacing && equal.name === aside) {
    await migrating.short(table.name, async (tx) => {
      await tx.run(`alter table ${table.name} drop constraint ${quote(name)}`);
      await tx.run(`alter table ${table.name} rename constraint ${quote(aside)} to ${quote(name)}`);
    });
  }
};

const applyTrigger = async (
  migrating: Migrating,
  { table, name, event, call, replaces }: Of<'trigger'>,
): Promise<void> => {
  const create = `create trigger ${name} ${event} on ${table} for each row execute function ${call}`;
  const there = await migrating.look((tx) => triggersOf(tx, table, { name, mention: replaces }));
  if (there.length === 1 && there[0]?.definition.toLowerCase() === create) return;
  await migrating.short(table, async (tx) => {
    for (const each of there) await tx.run(`drop trigger ${quote(each.name)} on ${table}`);
    await tx.run(create);
  });
};

const dropTrigger = async (migrating: Migrating, { table, name }: Of<'dropTrigger'>): Promise<void> => {
  const there = await migrating.look((tx) => triggersOf(tx, table, { name }));
  if (there.length === 0) return;
  await migrating.short(table, (tx) => tx.run(`drop trigger ${quote(name)} on ${table}`));
};

const dropIndex = async (migrating: Migrating, { name }: Of<'dropIndex'>): Promise<void> => {
  const there = await migrating.look((tx) => droppable(tx, name));
  if (!there) return;
  if (there.bytes === 0) await migrating.short(there.table, (tx) => tx.run(`drop index ${name}`));
  else await migrating.alone(`index ${name}`, `drop index concurrently ${name}`);
};

export const dropChecks = async (migrating: Migrating, step: Of<'dropChecks'>): Promise<void> => {
  for (const name of await migrating.look((tx) => checksOn(tx, step))) {
    await migrating.short(step.table, (tx) => tx.run(`alter table ${step.table} drop constraint ${quote(name)}`));
  }
};

const makeSchema = async (migrating: Migrating, { name }: Of<'schema'>): Promise<void> => {
  // `if not exists` asks for the right to make it, even where it exists.
  const [there] = await migrating.look((tx) => tx.rows('select from pg_namespace where nspname = $1', [name]));
  if (!there) await migrating.short(`schema ${name}`, (tx) => tx.run(`create schema if not exists ${name}`));
};

/** Brings a database to what one step states. */
const applyStep = async (migrating: Migrating, step: Step): Promise<void> => {
  switch (step.kind) {
    case 'sql':
      return migrating.short('default rows and functions', (tx) => tx.run(step.sql));
    case 'schema':
      return makeSchema(migrating, step);
    case 'table':
      return applyColumns(migrating, step);
    case 'constraint':
      return applyConstraint(migrating, step);
    case 'index':
      return applyIndex(migrating, step);
    case 'trigger':
      return applyTrigger(migrating, step);
    case 'dropIndex':
      return dropIndex(migrating, step);
    case 'dropTrigger':
      return dropTrigger(migrating, step);
    case 'dropChecks':
      return dropChecks(migrating, step);
  }
};

/** A step on a table that is new: a name that is taken is an error, not taken for ours. */
const onNewTable = (step: Step): readonly string[] => {
  if (step.kind === 'table') return [createTable(step)];
  return plainly(step).map((sql) => (step.kind === 'index' ? sql.replace(' if not exists', '') : sql));
};

/** The given tables and schemas that are there. */
const present = async ({ rows }: Tx, steps: readonly Step[]): Promise<Set<string>> => {
  const names = steps.flatMap((step) => ('table' in step ? [step.table] : step.kind === 'schema' ? [step.name] : []));
  const found = await rows(
    `select nspname || '.' || relname as name from pg_class c join pg_namespace n on n.oid = relnamespace
      where nspname || '.' || relname = any ($1) union all select nspname from pg_namespace where nspname = any ($1)`,
    [names],
  );
  return new Set(found.map((row) => row.text('name')));
};

/**
 * Brings a database to what the steps state, each in short transactions of its own; what concerns only tables that are new
 * goes together: nobody can be in their way, and a fresh database is soon ready.
 *
 * @param made tables that have been made so far, by these steps or by others before.
 */
export const applySteps = async (migrating: Migrating, steps: readonly Step[], made: Set<string>): Promise<void> => {
  const there = await migrating.look((tx) => present(tx, steps));
  let together: Step[] = [];
  const flush = async (): Promise<void> => {
    const group = together;
    together = [];
    if (group.length === 0) return;
    try {
      await migrating.short('new tables', async (tx) => {
        for (const sql of group.flatMap(onNewTable)) await tx.run(sql);
      });
    } catch (error) {
      // A name is taken by something else.
      const { code } = error as { code?: string };
      if (code !== DUPLICATE_TABLE && code !== DUPLICATE_OBJECT) throw error;
      for (const step of group) await applyStep(migrating, step);
    }
  };
  const isNew = (step: Step): boolean => {
    if (step.kind === 'schema') return !there.has(step.name);
    if (step.kind === 'sql') return together.length > 0;
    if (step.kind === 'dropIndex') return false;
    return made.has(step.table) || !there.has(step.table);
  };
  for (const step of steps) {
    // Of a table that was made before, a migration that came later may state something else.
    const restated = step.kind === 'table' && there.has(step.table);
    if (isNew(step) && !restated) {
      if (step.kind === 'table') made.add(step.table);
      together.push(step);
    } else {
      await flush();
      await applyStep(migrating, step);
    }
  }
  await flush();
};
