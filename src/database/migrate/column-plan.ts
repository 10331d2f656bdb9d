import type { Step } from '../../../migrations/canonical.ts';
import { createTable, withoutSequence } from '../../../migrations/canonical.ts';
import {
  columnsOf,
  constraintsOf,
  findTable,
  freeName,
  indexesOf,
  type LiveColumn,
  type LiveTable,
  quote,
  spellColumns,
  suffixed,
} from './catalog.ts';
import type { Migrating, Tx } from './turn.ts';
import { dressView, makeView, putBack, takeDown, type View, viewsOn } from './views.ts';

type TableStep = Extract<Step, { kind: 'table' }>;

/** A column that changes its type. */
export interface Retype {
  readonly name: string;
  readonly number: string;
  readonly from: string;
  readonly to: string;
  readonly required: boolean;
  readonly fallback: string | null;
  /** Only the catalog changes: no row and no index is touched. */
  readonly free: boolean;
  /** The rows are converted beside their readers and writers; otherwise the table is held meanwhile. */
  readonly beside: boolean;
}

/** What becomes of a table's columns. */
export interface ColumnPlan {
  readonly table: LiveTable | undefined;
  readonly additions: readonly {
    readonly name: string;
    readonly definition: string;
    readonly fallback: string | null;
  }[];
  readonly retypes: readonly Retype[];
  /** Parts of an `alter table` that only change the catalog. */
  readonly changes: readonly string[];
  /** Columns that become NOT NULL. */
  readonly required: readonly string[];
  /** Columns that cannot be added: they allow no NULL, have no default, and there are rows. */
  readonly impossible: readonly string[];
}

const VARCHAR = /^character varying(?:\((\d+)\))?$/;

/** Longest text of a type; undefined if it is none. */
const textLimit = (type: string): number | undefined => {
  if (type === 'text') return Number.POSITIVE_INFINITY;
  const found = VARCHAR.exec(type);
  return found ? Number(found[1] ?? Number.POSITIVE_INFINITY) : undefined;
};

/** True when a column of the first type holds whatever one of the second can. */
const suffices = (live: string, wanted: string): boolean =>
  live === wanted || (textLimit(live) ?? Number.NEGATIVE_INFINITY) >= (textLimit(wanted) ?? Number.POSITIVE_INFINITY);

/** SQL: a value of the old type in the new one. */
export const converted = ({ from, to }: { from: string; to: string }, value: string): string => {
  if (from === 'timestamp without time zone' && to === 'timestamp with time zone') return `${value} at time zone 'UTC'`;
  // Widening in binary would show digits that nobody wrote.
  if (from === 'real') return `${value}::text::${to}`;
  return `${value}::${to}`;
};

/** Constraints that a new column beside the old one cannot take over. */
const isTied = async ({ rows }: Tx, table: string, number: string): Promise<boolean> => {
  const found = await rows(
    `select from pg_constraint where conrelid = $1::oid and contype <> 'c' and contype <> 'n' and $2::int2 = any(conkey)
     union all select from pg_constraint where confrelid = $1::oid and $2::int2 = any(confkey)`,
    [table, number],
  );
  return found.length > 0;
};

/** True where a large materialized view reads the column: to make it again while the table is held takes too long. */
const isMaterialized = async ({ rows }: Tx, table: string, number: string, smallBytes: number): Promise<boolean> => {
  const found = await rows(
    `select from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class c on c.oid = ev_class
     where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid
       and d.refobjsubid = $2::int and relkind = 'm' and pg_table_size(c.oid) > $3::bigint`,
    [table, number, smallBytes],
  );
  return found.length > 0;
};

const indexesOn = async ({ rows }: Tx, table: string, number: string): Promise<string[]> => {
  const found = await rows(
    `select distinct i.relname as name from pg_depend d join pg_class i on i.oid = d.objid and d.classid = 'pg_class'::regclass
     where d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid and d.refobjsubid = $2::int and i.relkind = 'i'`,
    [table, number],
  );
  return found.map(({ name }) => name!);
};

const retype = async (
  tx: Tx,
  table: LiveTable,
  live: LiveColumn,
  wanted: LiveColumn,
  smallBytes: number,
): Promise<Retype> => {
  const { name, number, type: from } = live;
  const { type: to, required, fallback } = wanted;
  const free =
    (textLimit(from) !== undefined && textLimit(to) !== undefined) ||
    (from === 'timestamp without time zone' &&
      to === 'timestamp with time zone' &&
      (await indexesOn(tx, table.oid, number)).length === 0);
  const large = !free && table.bytes > smallBytes;
  const beside =
    (large || (await isMaterialized(tx, table.oid, number, smallBytes))) && !(await isTied(tx, table.oid, number));
  return { name, number, from, to, required, fallback, free, beside };
};

/** Compares the columns of a table with what is stated. */
export const planColumns = async (tx: Tx, step: TableStep, smallBytes: number): Promise<ColumnPlan> => {
  const table = await findTable(tx, step.table);
  const plan = {
    table,
    additions: [] as ColumnPlan['additions'][number][],
    retypes: [] as Retype[],
    changes: [] as string[],
    required: [] as string[],
    impossible: [] as string[],
  };
  if (!table) return plan;
  const definitions = Object.entries(step.columns).map(([name, spec]) => `"${name}" ${withoutSequence(spec)}`);
  const live = new Map((await columnsOf(tx, table.oid)).map((column) => [column.name, column]));
  for (const wanted of await spellColumns(tx, definitions.join(', '))) {
    const { name, type, required, fallback } = wanted;
    const spec = step.columns[name]!;
    const serial = withoutSequence(spec) !== spec;
    const there = live.get(name);
    if (!there) {
      // A default would give the rows that exist a meaning for other readers that nobody has given them.
      const definition =
        serial || wanted.generated
          ? spec
          : required
            ? `${type} not null${fallback ? ` default ${fallback}` : ''}`
            : type;
      if (required && !fallback && !serial && table.bytes > 0) plan.impossible.push(name);
      plan.additions.push({ name, definition, fallback: serial || required ? null : fallback });
      continue;
    }
    if (wanted.generated || there.generated) continue;
    const column = `alter column ${quote(name)}`;
    if (!suffices(there.type, type)) {
      plan.retypes.push(
        await retype(tx, table, there, { ...wanted, required: required || there.required }, smallBytes),
      );
    } else if (fallback !== there.fallback && !serial) {
      plan.changes.push(fallback === null ? `${column} drop default` : `${column} set default ${fallback}`);
    }
    if (required && !there.required) plan.required.push(name);
    if (!required && there.required && !there.key) plan.changes.push(`${column} drop not null`);
  }
  return plan;
};

/** What hangs on a retyped column and can neither be kept nor be made again. */
export const obstaclesOf = async ({ rows }: Tx, table: LiveTable, { number }: Retype): Promise<string[]> => {
  const found = await rows(
    `select distinct pg_describe_object(d.classid, d.objid, d.objsubid) as text from pg_depend d
     where d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid and d.refobjsubid = $2::int
       and not (d.classid = 'pg_rewrite'::regclass and exists (
         select from pg_rewrite r join pg_class c on c.oid = ev_class where r.oid = d.objid and relkind in ('v', 'm')))
       and not (d.classid = 'pg_class'::regclass and exists (select from pg_class c where c.oid = d.objid and relkind in ('i', 'I', 'S')))
       and d.classid <> 'pg_constraint'::regclass
       and not (d.classid = 'pg_attrdef'::regclass and exists (
         select from pg_attrdef f where f.oid = d.objid and adrelid = $1::oid and adnum = $2::int))
       and not (d.classid = 'pg_class'::regclass and d.objid = $1::oid and d.objsubid = $2::int)
     order by 1`,
    [table.oid, number],
  );
  return found.map(({ text }) => text!);
};

/** Makes the table where it is missing, and brings its columns to what is stated. */
export const applyColumns = async (migrating: Migrating, step: TableStep): Promise<void> => {
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

const SIDE = '__adopting';
const BEFORE = '__before';
/** Marks a column that nobody but a materialized view reads any more. */
const REPLACED = 'replaced by policy-sidecar';
/** It has to see what the table's own triggers have made of a row: they fire by name. */
const TRIGGER = 'zzz_policy_sidecar_adopt';

const side = (name: string): string => suffixed(name, SIDE);

/** Puts other names in the place of some, outside of quoted text. */
const renamed = (sql: string, names: ReadonlyMap<string, string>): string =>
  sql.replace(/'(?:[^']|'')*'|"((?:[^"]|"")*)"|[A-Za-z_][\w$]*/g, (token, quoted?: string) => {
    const other = token.startsWith("'") ? undefined : names.get(quoted ?? token);
    return other === undefined ? token : quote(other);
  });

/** `create index` of an index like this one, under another name, on the columns or the table that take their place. */
const indexLike = (
  { definition, unique }: { definition: string; unique: boolean },
  name: string,
  on: string,
  names: ReadonlyMap<string, string>,
  how = '',
): string =>
  `create ${unique ? 'unique ' : ''}index ${how} ${quote(name)} on ${on} using ${renamed(definition.replace(/^.*? USING /s, ''), names)}`;

/**
 * Gives columns another type while the table is read and written: a new column beside each, kept true by a trigger, filled
 * in batches, indexed and checked; then the two change names. Every step finds what an earlier run has left.
 */
const besideReaders = async (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> => {
  const names = new Map(retypes.map(({ name }) => [name, side(name)]));
  await addSideColumns(migrating, table, retypes);
  await fill(migrating, table, retypes);
  await indexSideColumns(migrating, table, retypes, names);
  const checks = await checkSideColumns(migrating, table, retypes, names);
  await swap(migrating, table, retypes, checks);
  await migrating.long(table.name, (tx) => tx.run(`analyze ${table.name}`));
};

const functionOf = ({ oid }: LiveTable): string => `policy_sidecar.adopt_${oid}`;

const addSideColumns = (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> =>
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
    await tx.run(`create or replace function ${functionOf(table)}() returns trigger language plpgsql as $body$
      begin ${assignments.join('\n')} return new; end $body$`);
    await tx.run(`drop trigger if exists ${TRIGGER} on ${table.name}`);
    await tx.run(`create trigger ${TRIGGER} before insert or update on ${table.name}
      for each row execute function ${functionOf(table)}()`);
  });

const unfilled = (retypes: readonly Retype[]): string =>
  retypes.map(({ name }) => `(${quote(name)} is not null and ${quote(side(name))} is null)`).join(' or ');

const fill = async (migrating: Migrating, table: LiveTable, retypes: readonly Retype[]): Promise<void> => {
  const assignments = retypes.map((each) => `${quote(side(each.name))} = ${converted(each, quote(each.name))}`);
  const { blocks, triggers } = await migrating.look(async (tx) => {
    const [size] = await tx.rows(`select pg_relation_size($1::oid) / current_setting('block_size')::int as blocks`, [
      table.oid,
    ]);
    // Moving a value is no update that the platform has asked for: its own triggers neither fire nor refuse.
    const found = await tx.rows(
      `select tgname as name, tgenabled as mode from pg_trigger
       where tgrelid = $1::oid and not tgisinternal and tgenabled in ('O', 'A') and tgtype & 16 <> 0 and tgname <> $2`,
      [table.oid, TRIGGER],
    );
    return { blocks: Number(size!['blocks']), triggers: found };
  });
  const off = triggers.map(({ name }) => `disable trigger ${quote(name!)}`).join(', ');
  const on = triggers
    .map(({ name, mode }) => `enable ${mode === 'A' ? 'always ' : ''}trigger ${quote(name!)}`)
    .join(', ');
  let said = Date.now();
  let width = 64;
  for (let from = 0; from <= blocks; ) {
    const to = from + width;
    const began = performance.now();
    await migrating.short(table.name, async (tx) => {
      if (off) await tx.run(`alter table ${table.name} ${off}`);
      await tx.run(`update ${table.name} set ${assignments.join(', ')}
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
  const [left] = await migrating.long(table.name, (tx) =>
    tx.rows(`select count(*) as count from ${table.name} where ${unfilled(retypes)}`),
  );
  if (left!['count'] !== '0') {
    throw new Error(`${table.name}: ${left!['count']} row(s) cannot be converted; migrate check says which column`);
  }
};

const indexSideColumns = async (
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

const affectedIndexes = async (tx: Tx, table: LiveTable, retypes: readonly Retype[]) => {
  const affected = new Set<string>();
  for (const { number } of retypes) for (const name of await indexesOn(tx, table.oid, number)) affected.add(name);
  return (await indexesOf(tx, table.oid)).filter(({ name, valid }) => valid && affected.has(name));
};

const affectedChecks = async (tx: Tx, table: LiveTable, retypes: readonly Retype[]): Promise<string[]> => {
  const found = await tx.rows(
    `select conname as name from pg_constraint where conrelid = $1::oid and contype = 'c' and conkey && $2::int2[]`,
    [table.oid, `{${retypes.map(({ number }) => number).join()}}`],
  );
  return found.map(({ name }) => name!);
};

/** Names of the checks that the old columns have and the new ones have got. */
const checkSideColumns = async (
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
      await migrating.long(`a check of ${table.name}`, (tx) =>
        tx.run(`alter table ${table.name} validate constraint ${quote(name)}`),
      );
    }
  }
  return kept.map(({ name }) => name);
};

const notNull = (name: string): string => suffixed(name, '__not_null');

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
  return found.map(({ statement }) => statement!);
};

const swap = async (
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
    for (const { name } of named) {
      await alter(tx, `rename constraint ${quote(name!)} to ${quote(name!.replace(`${SIDE}_not_null`, '_not_null'))}`);
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
      !views.some((other) => !other.materialized && readers.get(other.oid)!.has(view.oid)),
  );
  const down: View[] = [];
  for (const view of [...views].reverse()) {
    if (later.includes(view)) continue;
    if (view.direct || down.some(({ oid }) => readers.get(oid)!.has(view.oid))) down.push(view);
  }
  return { down: down.reverse(), later };
};

/** Makes the materialized views anew that still read the old columns of a table; then those can go. */
const replaceMaterialized = async (migrating: Migrating, table: LiveTable): Promise<void> => {
  const old = await migrating.look(async (tx) => {
    const marked = await tx.rows(
      'select objsubid from pg_description where classoid = $1::regclass and objoid = $2::oid and description = $3',
      ['pg_class', table.oid, REPLACED],
    );
    const numbers = new Set(marked.map(({ objsubid }) => objsubid));
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

/** A count of the rows for which a condition holds. */
export const countRows = async ({ rows }: Tx, table: LiveTable, condition: string): Promise<number> => {
  const [found] = await rows(`select count(*) as count from ${table.name} where ${condition}`);
  return Number(found!['count']);
};
