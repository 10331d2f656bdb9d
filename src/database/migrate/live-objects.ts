import type { Step } from '../../../migrations/canonical.ts';
import { type LiveIndex, type LiveTable, oidOf, spellConstraint, spellForeignKey } from './catalog.ts';
import type { Tx } from './look.ts';

/** A step of that kind. */
export type Of<K extends Step['kind']> = Extract<Step, { kind: K }>;

/** What serves as a stated index: one with the same body, unique where that is stated. */
export const servingIndex = (indexes: readonly LiveIndex[], body: string, unique: boolean): LiveIndex | undefined =>
  indexes.find((index) => index.valid && index.body === body && (index.unique || !unique));

/** A stated constraint in PostgreSQL's spelling. */
export const spelled = (tx: Tx, table: LiveTable, { type, definition }: Of<'constraint'>): Promise<string> =>
  type === 'f' ? Promise.resolve(spellForeignKey(definition)) : spellConstraint(tx, table.name, definition);

/** Row triggers of a table that a step speaks of, with their definitions. */
export const triggersOf = async (
  { rows }: Tx,
  table: string,
  { name, mention }: { readonly name?: string | undefined; readonly mention?: string | undefined },
): Promise<{ name: string; definition: string }[]> => {
  const found = await rows(
    `select tgname as name, pg_get_triggerdef(t.oid) as definition from pg_trigger t join pg_proc p on p.oid = tgfoid
     where tgrelid = ${oidOf('$1')} and not tgisinternal and (tgname = $2 or position($3 in prosrc) > 0) order by 1`,
    [table, name ?? null, mention ?? null],
  );
  return found.map((row) => ({ name: row.text('name'), definition: row.text('definition') }));
};

/** An index that no constraint stands on, and the size of its table. */
export const droppable = async (
  { rows }: Tx,
  name: string,
): Promise<{ readonly table: string; readonly bytes: number } | undefined> => {
  const [found] = await rows(
    `select indrelid::regclass::text as table, pg_relation_size(indrelid) as bytes from pg_index where indexrelid = ${oidOf('$1')}
       and not exists (select from pg_constraint where conindid = indexrelid)`,
    [name],
  );
  return found && { table: found.text('table'), bytes: found.number('bytes') };
};

/** CHECKs on any of these columns. */
export const checksOn = async ({ rows }: Tx, { table, columns }: Of<'dropChecks'>): Promise<string[]> => {
  const found = await rows(
    `select distinct conname as name from pg_constraint join pg_attribute on attrelid = conrelid and attnum = any (conkey)
     where contype = 'c' and conrelid = ${oidOf('$1')} and attname = any ($2) order by 1`,
    [table, columns],
  );
  return found.map((row) => row.text('name'));
};
