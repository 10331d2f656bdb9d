import { constraintsOf, indexesOf, type LiveTable, quote, suffixed } from './catalog.ts';
import { converted, indexesOn, type Retype } from './column-plan.ts';
import { ObstacleError, unconvertible } from './findings.ts';
import type { Tx } from './look.ts';
import type { Migrating } from './turn.ts';

export const SIDE = '__adopting';
export const BEFORE = '__before';
/** Marks a column that nobody but a materialized view reads any more. */
export const REPLACED = 'replaced by policy-sidecar';
/** It has to see what the table's own triggers have made of a row: they fire by name. */
export const TRIGGER = 'zzz_policy_sidecar_adopt';

export const side = (name: string): string => suffixed(name, SIDE);

/** Puts other names in the place of some, outside of quoted text. */
export const renamed = (sql: string, names: ReadonlyMap<string, string>): string =>
  sql.replace(/'(?:[^']|'')*'|"((?:[^"]|"")*)"|[A-Za-z_][\w$]*/g, (token, quoted?: string) => {
    const other = token.startsWith("'") ? undefined : names.get(quoted ?? token);
    return other === undefined ? token : quote(other);
  });

/** `create index` of an index like this one, under another name, on the columns or the table that take their place. */
export const indexLike = (
  { definition, unique }: { definition: string; unique: boolean },
  name: string,
  on: string,
  names: ReadonlyMap<string, string>,
  how = '',
): string =>
  `create ${unique ? 'unique ' : ''}index ${how} ${quote(name)} on ${on} using ${renamed(definition.replace(/^.*? USING /s, ''), names)}`;

export const functionOf = ({ oid }: LiveTable): string => `policy_sidecar.adopt_${oid}`;

export const addSideColumns = (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> =>
  migrating.short(table.name, async (tx) => {
    const columns = retypes.map(({ name, to }) => `add column if not exists ${quote(side(name))} ${to}`);
    await tx.run(`alter table ${table.name} ${columns.join(', ')}`);
    // A value that cannot be converted must not fail somebody's write: it is found and told at the end.
    const assignments = retypes.map(
      (each) => `begin
        new.${quote(side(each.name))} := ${converted(each, `new.${quote(each.name)}`)};
      exception when others then
        new.${quote(side(each.name))} := null;
      end;`,
    );
    // Digits are those of the value, not those that its writer likes to see.
    await tx.run(`create or replace function ${functionOf(table)}() returns trigger language plpgsql
      set extra_float_digits = 1 as $body$ begin ${assignments.join('\n')} return new; end $body$`);
    await tx.run(`drop trigger if exists ${TRIGGER} on ${table.name}`);
    await tx.run(`create trigger ${TRIGGER} before insert or update on ${table.name}
      for each row execute function ${functionOf(table)}()`);
    // Also for who applies what another server has written.
    await tx.run(`alter table ${table.name} enable always trigger ${TRIGGER}`);
  });

const isUnfilled = ({ name }: Retype): string => `(${quote(name)} is not null and ${quote(side(name))} is null)`;

const unfilled = (retypes: readonly Retype[]): string => retypes.map(isUnfilled).join(' or ');

/** The index of the rows that have not been converted, in the table's schema: none, once they are. */
export const unfilledIndex = ({ oid }: LiveTable): string => side(`unfilled_${oid}`);

/** Has what is left found without a look at each row, also while the table is held. */
export const indexUnfilled = async (
  migrating: Migrating,
  table: LiveTable,
  retypes: readonly Retype[],
): Promise<void> => {
  const name = quote(unfilledIndex(table));
  const what = `index of what is left to convert of ${table.name}`;
  // One that is there may be broken, or of fewer columns.
  await migrating.alone(what, `drop index concurrently if exists ${quote(table.schema)}.${name}`);
  await migrating.alone(what, `create index concurrently ${name} on ${table.name} ((true)) where ${unfilled(retypes)}`);
};

/** @throws ObstacleError where a row has a value that its new column has not: that would go with the old one. */
export const refuseUnfilled = async (tx: Tx, table: LiveTable, retypes: readonly Retype[]): Promise<void> => {
  const counts = retypes.map((each, index) => `count(*) filter (where ${isUnfilled(each)}) as "${index}"`);
  const left = await tx.row(`select ${counts.join(', ')} from ${table.name} where ${unfilled(retypes)}`);
  const found = retypes.flatMap((each, index) => {
    const rows = left.number(String(index));
    return rows === 0 ? [] : [unconvertible(table, each, rows)];
  });
  if (found.length > 0) throw new ObstacleError(found);
};

export const fill = async (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> => {
  // The trigger converts, so that a batch is not stopped by what it cannot convert.
  const touched = retypes.map(({ name }) => `${quote(side(name))} = null`);
  const { blocks, triggers } = await migrating.look(async (tx) => {
    const size = await tx.row(`select pg_relation_size($1::oid) / current_setting('block_size')::int as blocks`, [
      table.oid,
    ]);
    // Moving a value is no update that the platform has asked for: its own triggers neither fire nor refuse.
    const found = await tx.rows(
      `select tgname as name, tgenabled as mode from pg_trigger
       where tgrelid = $1::oid and not tgisinternal and tgenabled in ('O', 'A') and tgtype & 16 <> 0 and tgname <> $2`,
      [table.oid, TRIGGER],
    );
    const triggers = found.map((row) => ({ name: quote(row.text('name')), mode: row.text('mode') }));
    return { blocks: size.number('blocks'), triggers };
  });
  const off = triggers.map(({ name }) => `disable trigger ${name}`).join(', ');
  const on = triggers.map(({ name, mode }) => `enable ${mode === 'A' ? 'always ' : ''}trigger ${name}`).join(', ');
  let said = Date.now();
  let width = 64;
  for (let from = 0; from <= blocks; ) {
    const to = from + width;
    const began = performance.now();
    await migrating.short(table.name, async (tx) => {
      if (off) await tx.run(`alter table ${table.name} ${off}`);
      await tx.run(`update ${table.name} set ${touched.join(', ')}
        where ctid >= '(${from},0)'::tid and ctid < '(${to},0)'::tid and (${unfilled(retypes)})`);
      if (on) await tx.run(`alter table ${table.name} ${on}`);
    });
    const took = performance.now() - began;
    from = to;
    width = Math.max(8, Math.min(4_096, Math.round((width * migrating.tuning.batchMs) / Math.max(took, 1))));
    if (Date.now() - said > 5_000) {
      migrating.say(`${table.name}: ${Math.min(100, Math.round((100 * from) / blocks))} % of the rows converted`);
      said = Date.now();
    }
  }
};

export const indexSideColumns = async (
  migrating: Migrating,
  table: LiveTable,
  retypes: readonly Retype[],
  names: ReadonlyMap<string, string>,
): Promise<void> => {
  const wanted = await migrating.look((tx) => affectedIndexes(tx, table, retypes));
  for (const index of wanted) {
    const name = side(index.name);
    const there = (await migrating.look((tx) => indexesOf(tx, table.oid))).find((each) => each.name === name);
    if (there?.valid) continue;
    const what = `index ${index.name} of ${table.name}`;
    if (there) await migrating.alone(what, `drop index concurrently ${quote(table.schema)}.${quote(name)}`);
    await migrating.alone(what, indexLike(index, name, table.name, names, 'concurrently'));
  }
};

export const affectedIndexes = async (tx: Tx, table: LiveTable, retypes: readonly Retype[]) => {
  const affected = new Set<string>();
  for (const { number } of retypes) for (const name of await indexesOn(tx, table.oid, number)) affected.add(name);
  return (await indexesOf(tx, table.oid)).filter(
    ({ name, valid }) => valid && affected.has(name) && name !== unfilledIndex(table),
  );
};

const affectedChecks = async (tx: Tx, table: LiveTable, retypes: readonly Retype[]): Promise<string[]> => {
  const found = await tx.rows(
    `select conname as name from pg_constraint where conrelid = $1::oid and contype = 'c' and conkey && $2::int2[]`,
    [table.oid, `{${retypes.map(({ number }) => number).join()}}`],
  );
  return found.map((row) => row.text('name'));
};

/** Names of the checks that the old columns have and the new ones have got. */
export const checkSideColumns = async (
  migrating: Migrating,
  table: LiveTable,
  retypes: readonly Retype[],
  names: ReadonlyMap<string, string>,
): Promise<readonly string[]> => {
  const { affected, live } = await migrating.look(async (tx) => ({
    affected: await affectedChecks(tx, table, retypes),
    live: await constraintsOf(tx, table.oid),
  }));
  const kept = live.filter(({ name }) => affected.includes(name));
  const wanted = [
    ...kept.map(({ name, definition }) => ({ name: side(name), definition: renamed(definition, names) })),
    ...retypes
      .filter(({ required }) => required)
      .map(({ name }) => ({ name: notNull(name), definition: `check (${quote(side(name))} is not null)` })),
  ];
  for (const { name, definition } of wanted) {
    const there = live.find((each) => each.name === name);
    if (!there) {
      await migrating.short(table.name, (tx) =>
        tx.run(`alter table ${table.name} add constraint ${quote(name)} ${definition} not valid`),
      );
    }
    if (!there?.valid) {
      await migrating.long(`a check of ${table.name}`, async (tx) => {
        await refuseUnfilled(tx, table, retypes);
        await tx.run(`alter table ${table.name} validate constraint ${quote(name)}`);
      });
    }
  }
  return kept.map(({ name }) => name);
};

export const notNull = (name: string): string => suffixed(name, '__not_null');
