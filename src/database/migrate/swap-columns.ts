import { columnsOf, indexesOf, type LiveTable, quote, suffixed } from './catalog.ts';
import type { Retype } from './column-plan.ts';
import type { Tx } from './look.ts';
import {
  affectedIndexes,
  BEFORE,
  functionOf,
  indexLike,
  notNull,
  REPLACED,
  refuseUnfilled,
  renamed,
  SIDE,
  side,
  TRIGGER,
  unfilledIndex,
} from './side-columns.ts';
import type { Migrating } from './turn.ts';
import { dressView, makeView, putBack, takeDown, type View, viewsOn } from './views.ts';

/** Comments and grants of one column, as statements for another. */
const columnExtras = async ({ rows }: Tx, table: LiveTable, { number, name }: Retype): Promise<string[]> => {
  const found = await rows(
    `select format('comment on column %s.%I is %L', $2::text, $3::text, text) as statement
       from col_description($1::oid, $4::int) as text where text is not null
     union all
     select format('grant %s (%I) on %s to %s%s', privilege_type, $3::text, $2::text,
         case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
         case when is_grantable then ' with grant option' else '' end)
       from pg_attribute, aclexplode(attacl) where attrelid = $1::oid and attnum = $4::int2 and attacl is not null`,
    [table.oid, table.name, side(name), number],
  );
  return found.map((row) => row.text('statement'));
};

export const swap = async (
  migrating: Migrating,
  table: LiveTable,
  retypes: readonly Retype[],
  checks: readonly string[],
): Promise<void> => {
  const alter = (tx: Tx, what: string): Promise<void> => tx.run(`alter table ${table.name} ${what}`);
  const indexName = (name: string): string => `${quote(table.schema)}.${quote(name)}`;
  await migrating.short(table.name, async (tx) => {
    const numbers = retypes.map(({ number }) => number);
    const { down, later } = await splitViews(tx, await viewsOn(tx, table.oid, numbers));
    const indexes = await affectedIndexes(tx, table, retypes);
    const extras: string[] = [];
    for (const each of retypes) extras.push(...(await columnExtras(tx, table, each)));
    await tx.run(`lock table ${table.name} in access exclusive mode`);
    // Others have written since the last look.
    await refuseUnfilled(tx, table, retypes);
    await tx.run(`drop index if exists ${indexName(unfilledIndex(table))}`);
    for (const statement of extras) await tx.run(statement);
    await takeDown(tx, down);
    await tx.run(`drop trigger ${TRIGGER} on ${table.name}`);
    await tx.run(`drop function ${functionOf(table)}()`);
    for (const { name } of indexes) await tx.run(`drop index ${indexName(name)}`);
    for (const name of checks) await alter(tx, `drop constraint ${quote(name)}`);
    for (const { name, required, fallback } of retypes) {
      if (later.length === 0) {
        await alter(tx, `drop column ${quote(name)}`);
      } else {
        const old = suffixed(name, BEFORE);
        await alter(tx, `rename column ${quote(name)} to ${quote(old)}`);
        await alter(tx, `alter column ${quote(old)} drop default, alter column ${quote(old)} drop not null`);
        await tx.run(`comment on column ${table.name}.${quote(old)} is '${REPLACED}'`);
      }
      if (required) {
        await alter(tx, `alter column ${quote(side(name))} set not null, drop constraint ${quote(notNull(name))}`);
      }
      if (fallback !== null) await alter(tx, `alter column ${quote(side(name))} set default ${fallback}`);
      await alter(tx, `rename column ${quote(side(name))} to ${quote(name)}`);
    }
    for (const name of checks) await alter(tx, `rename constraint ${quote(side(name))} to ${quote(name)}`);
    // PostgreSQL 18 gives NOT NULL a name, too.
    const named = await tx.rows(
      `select conname as name from pg_constraint where conrelid = $1::oid and contype = 'n' and position('${SIDE}_not_null' in conname) > 0`,
      [table.oid],
    );
    for (const row of named) {
      const name = row.text('name');
      await alter(tx, `rename constraint ${quote(name)} to ${quote(name.replace(`${SIDE}_not_null`, '_not_null'))}`);
    }
    for (const { name } of indexes) await tx.run(`alter index ${indexName(side(name))} rename to ${quote(name)}`);
    await putBack(tx, down);
    const after = await indexesOf(tx, table.oid);
    for (const { name, definition } of indexes) {
      const now = after.find((each) => each.name === name);
      if (now?.definition !== definition)
        throw new Error(`index ${name} of ${table.name} came out as ${now?.definition}`);
    }
  });
};

/** Views that have to go while the columns change, and materialized ones that can go on reading the old column for now. */
const splitViews = async (tx: Tx, views: readonly View[]): Promise<{ down: View[]; later: View[] }> => {
  const readers = new Map<string, Set<string>>();
  for (const view of views) readers.set(view.oid, new Set((await viewsOn(tx, view.oid)).map(({ oid }) => oid)));
  const later = views.filter(
    (view) =>
      view.materialized &&
      view.direct &&
      !views.some((other) => !other.materialized && readers.get(other.oid)?.has(view.oid)),
  );
  const down: View[] = [];
  for (const view of [...views].reverse()) {
    if (later.includes(view)) continue;
    if (view.direct || down.some(({ oid }) => readers.get(oid)?.has(view.oid))) down.push(view);
  }
  return { down: down.reverse(), later };
};

/** Makes the materialized views anew that still read the old columns of a table; then those can go. */
export const replaceMaterialized = async (migrating: Migrating, table: LiveTable): Promise<void> => {
  const old = await migrating.look(async (tx) => {
    const marked = await tx.rows(
      'select objsubid from pg_description where classoid = $1::regclass and objoid = $2::oid and description = $3',
      ['pg_class', table.oid, REPLACED],
    );
    const numbers = new Set(marked.map((row) => row.text('objsubid')));
    return (await columnsOf(tx, table.oid)).filter(({ name, number }) => name.endsWith(BEFORE) && numbers.has(number));
  });
  if (old.length === 0) return;
  const names = new Map(old.map(({ name }) => [name, name.slice(0, -BEFORE.length)]));
  const numbers = old.map(({ number }) => number);
  const views = (await migrating.look((tx) => viewsOn(tx, table.oid, numbers))).filter(
    ({ materialized, direct }) => materialized && direct,
  );
  for (const view of views) {
    const name = `${quote(view.schema)}.${quote(side(view.bare))}`;
    const indexes = await migrating.look((tx) => indexesOf(tx, view.oid));
    await migrating.long(view.name, async (tx) => {
      await tx.run(`drop materialized view if exists ${name}`);
      await makeView(tx, view, name, renamed(view.definition, names));
      for (const index of indexes) await tx.run(indexLike(index, side(index.name), name, new Map()));
    });
    await migrating.short(view.name, async (tx) => {
      const outer = await viewsOn(tx, view.oid);
      await takeDown(tx, [...outer, view]);
      await tx.run(`alter materialized view ${name} rename to ${quote(view.bare)}`);
      for (const index of indexes) {
        await tx.run(`alter index ${quote(view.schema)}.${quote(side(index.name))} rename to ${quote(index.name)}`);
      }
      await dressView(tx, view);
      await putBack(tx, outer);
    });
  }
  await migrating.short(table.name, (tx) =>
    tx.run(`alter table ${table.name} ${old.map(({ name }) => `drop column ${quote(name)}`).join(', ')}`),
  );
};
