import { createTable } from '../../../migrations/canonical.ts';
import { freeName, type LiveTable, quote, suffixed } from './catalog.ts';
import { type ColumnPlan, converted, planColumns, type Retype } from './column-plan.ts';
import type { Of } from './live-objects.ts';
import {
  addSideColumns,
  checkSideColumns,
  fill,
  indexSideColumns,
  indexUnfilled,
  refuseUnfilled,
  side,
} from './side-columns.ts';
import { replaceMaterialized, swap } from './swap-columns.ts';
import type { Migrating } from './turn.ts';
import { putBack, takeDown, viewsOn } from './views.ts';

/** Makes the table where it is missing, and brings its columns to what is stated. */
export const applyColumns = async (migrating: Migrating, step: Of<'table'>): Promise<void> => {
  const plan = await migrating.look((tx) => planColumns(tx, step, migrating.tuning.smallBytes));
  const { table } = plan;
  if (!table) {
    await migrating.short(step.table, async (tx) => {
      await tx.run(createTable(step, await freeName(tx, step.table.split('.')[0]!, step.keyName)));
    });
    return;
  }
  await inPlace(migrating, table, plan);
  const beside = plan.retypes.filter((each) => each.beside);
  if (beside.length > 0) await besideReaders(migrating, table, beside);
  await replaceMaterialized(migrating, table);
  for (const name of plan.required) await requireValue(migrating, table, name);
};

const inPlace = async (migrating: Migrating, table: LiveTable, plan: ColumnPlan): Promise<void> => {
  const retypes = plan.retypes.filter(({ beside }) => !beside);
  const parts = [
    ...plan.additions.map(({ name, definition }) => `add column ${quote(name)} ${definition}`),
    ...plan.changes,
    ...retypes.flatMap(({ name, to, fallback, free, ...each }) => {
      const column = `alter column ${quote(name)}`;
      return [
        `${column} drop default`,
        // The plain cast, in a session of UTC, is one that PostgreSQL knows to leave the rows alone.
        `${column} type ${to}${free ? '' : ` using ${converted({ ...each, to }, quote(name))}`}`,
        ...(fallback === null ? [] : [`${column} set default ${fallback}`]),
      ];
    }),
  ];
  if (parts.length === 0) return;
  await migrating.short(table.name, async (tx) => {
    const numbers = retypes.map(({ number }) => number);
    const views = numbers.length > 0 ? await viewsOn(tx, table.oid, numbers) : [];
    await takeDown(tx, views);
    await tx.run(`alter table ${table.name} ${parts.join(', ')}`);
    const defaults = plan.additions.filter(({ fallback }) => fallback !== null);
    if (defaults.length > 0) {
      const set = defaults.map(({ name, fallback }) => `alter column ${quote(name)} set default ${fallback}`);
      await tx.run(`alter table ${table.name} ${set.join(', ')}`);
    }
    await putBack(tx, views);
  });
};

/** Makes a column NOT NULL; a check that holds already spares the look at each row under the table's lock. */
const requireValue = async (migrating: Migrating, table: LiveTable, name: string): Promise<void> => {
  const check = quote(suffixed(name, '__not_null'));
  const what = `${table.name}.${name}`;
  await migrating.short(what, async (tx) => {
    await tx.run(`alter table ${table.name} drop constraint if exists ${check}`);
    await tx.run(`alter table ${table.name} add constraint ${check} check (${quote(name)} is not null) not valid`);
  });
  await migrating.long(what, (tx) => tx.run(`alter table ${table.name} validate constraint ${check}`));
  await migrating.short(what, (tx) =>
    tx.run(`alter table ${table.name} alter column ${quote(name)} set not null, drop constraint ${check}`),
  );
};

/**
 * Gives columns another type while the table is read and written: a new column beside each, kept true by a trigger, filled
 * in batches, indexed and checked; then the two change names. Every step finds what an earlier run has left.
 */
const besideReaders = async (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> => {
  const names = new Map(retypes.map(({ name }) => [name, side(name)]));
  await addSideColumns(migrating, table, retypes);
  await fill(migrating, table, retypes);
  await indexUnfilled(migrating, table, retypes);
  await migrating.long(table.name, (tx) => refuseUnfilled(tx, table, retypes));
  await indexSideColumns(migrating, table, retypes, names);
  const checks = await checkSideColumns(migrating, table, retypes, names);
  await swap(migrating, table, retypes, checks);
  await migrating.long(table.name, (tx) => tx.run(`analyze ${table.name}`));
};
