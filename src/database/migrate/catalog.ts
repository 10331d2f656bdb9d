import type { Tx } from './look.ts';

/** SQL text of a value. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** A name as it stands in SQL. */
export const quote = (name: string): string =>
  /^[a-z_][a-z0-9_]*$/.test(name) ? `"${name}"` : `"${name.replaceAll('"', '""')}"`;

/** A name that PostgreSQL will not cut: 63 bytes at most, with its ending. */
export const suffixed = (name: string, suffix: string): string => `${name.slice(0, 63 - suffix.length)}${suffix}`;

/** A table that is there. */
export interface LiveTable {
  readonly oid: string;
  /** As it stands in SQL. */
  readonly name: string;
  readonly schema: string;
  readonly kind: string;
  readonly bytes: number;
}

/** SQL: the relation `c` in the schema `n` that a qualified name means. `to_regclass` would ask for rights on the schema. */
export const namedBy = (parameter: string): string =>
  `nspname = split_part(${parameter}, '.', 1) and relname = split_part(${parameter}, '.', 2)`;

/** SQL: the oid of what a qualified name means, or NULL. */
export const oidOf = (parameter: string): string =>
  `(select c.oid from pg_class c join pg_namespace n on n.oid = relnamespace where ${namedBy(parameter)})`;

/** Looks a table up. */
export const findTable = async ({ rows }: Tx, name: string): Promise<LiveTable | undefined> => {
  const [found] = await rows(
    `select c.oid, format('%I.%I', nspname, relname) as name, nspname as schema, relkind as kind,
       case when relkind in ('r', 'm') then pg_table_size(c.oid) else 0 end as bytes
     from pg_class c join pg_namespace n on n.oid = relnamespace where ${namedBy('$1')}`,
    [name],
  );
  return (
    found && {
      oid: found.text('oid'),
      name: found.text('name'),
      schema: found.text('schema'),
      kind: found.text('kind'),
      bytes: found.number('bytes'),
    }
  );
};

/** The given name, or the next free one of its schema: PostgreSQL's own way out. */
export const freeName = async ({ rows }: Tx, schema: string, name: string, table?: string): Promise<string> => {
  for (let number = 0; ; number += 1) {
    const candidate = number === 0 ? name : suffixed(name, String(number));
    const [taken] = await rows(
      `select from pg_class where relnamespace = to_regnamespace($1) and relname = $2
       union all select from pg_constraint where conrelid = $3::oid and conname = $2`,
      [schema, candidate, table ?? '0'],
    );
    if (!taken) return candidate;
  }
};

/** A column, in PostgreSQL's spelling. */
export interface LiveColumn {
  readonly name: string;
  readonly type: string;
  readonly required: boolean;
  readonly generated: boolean;
  readonly fallback: string | null;
  readonly key: boolean;
  readonly number: string;
}

/** Columns of a table, in physical order. */
export const columnsOf = async ({ rows }: Tx, oid: string): Promise<LiveColumn[]> => {
  const found = await rows(
    `select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required, attgenerated <> '' as generated,
       pg_get_expr(adbin, adrelid) as fallback, attnum as number,
       exists (select from pg_index where indrelid = attrelid and indisprimary and attnum = any (indkey)) as key
     from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attrelid = $1::oid and attnum > 0 and not attisdropped order by attnum`,
    [oid],
  );
  return found.map((row) => ({
    name: row.text('name'),
    type: row.text('type'),
    required: row.flag('required'),
    generated: row.flag('generated'),
    fallback: row.maybe('fallback'),
    key: row.flag('key'),
    number: row.text('number'),
  }));
};

const SHADOW = 'pg_temp.canonical_shadow';

/** Makes a temporary table, asks about it, and drops it. */
const shadowed = async <T>(tx: Tx, definition: string, ask: () => Promise<T>): Promise<T> => {
  await tx.run(`create temporary table canonical_shadow ${definition}`);
  try {
    return await ask();
  } finally {
    await tx.run(`drop table if exists ${SHADOW}`).catch(() => {});
  }
};

/** What a shadow has been asked, by all that its answer rests on: a migration asks the same again and again. */
const spellings = new Map<string, Promise<unknown>>();

const once = <T>(basis: readonly unknown[], ask: () => Promise<T>): Promise<T> => {
  const key = JSON.stringify(basis);
  const known = spellings.get(key) as Promise<T> | undefined;
  if (known) return known;
  const asked = ask();
  spellings.set(key, asked);
  asked.catch(() => spellings.delete(key));
  return asked;
};

/** Which PostgreSQL this is and, of a table, what its columns are. */
const shapeOf = async ({ row }: Tx, table?: string): Promise<unknown> => {
  const found = await row(
    `select current_setting('server_version_num') as version,
       (select jsonb_agg(jsonb_build_array(attname, format_type(atttypid, atttypmod), attnotnull, collname) order by attnum)
        from pg_attribute left join pg_collation k on k.oid = attcollation
        where attrelid = to_regclass($1) and attnum > 0 and not attisdropped)::text as columns`,
    [table ?? null],
  );
  return [found.text('version'), found.maybe('columns')];
};

/** Columns as PostgreSQL spells them when they are made from these definitions. */
export const spellColumns = async (tx: Tx, definitions: string): Promise<LiveColumn[]> =>
  once([await shapeOf(tx), definitions], () =>
    shadowed(tx, `(${definitions})`, async () => {
      const row = await tx.row(`select '${SHADOW}'::regclass::oid as oid`);
      return columnsOf(tx, row.text('oid'));
    }),
  );

/** A constraint's definition as PostgreSQL spells it on a table like this one. */
export const spellConstraint = async (tx: Tx, table: string, definition: string): Promise<string> =>
  once([await shapeOf(tx, table), 'constraint', definition], () =>
    shadowed(tx, `(like ${table})`, async () => {
      await tx.run(`alter table ${SHADOW} add constraint canonical_constraint ${definition}`);
      const row = await tx.row(
        `select pg_get_constraintdef(oid) as text from pg_constraint
         where conrelid = '${SHADOW}'::regclass and conname = 'canonical_constraint'`,
      );
      return row.text('text');
    }),
  );

/** What an index is, without its name and table. `x = true` is `x` for the planner, too. */
const indexBody = (definition: string): string =>
  definition
    .replace(/^CREATE (?:UNIQUE )?INDEX .*? USING /, '')
    .replace(/\((\w+) = true\)/g, '$1')
    .replace(/\((\w+) = false\)/g, '(NOT $1)');

/** As {@link spellConstraint}, for an index; comparable with {@link indexesOf}. */
export const spellIndex = async (tx: Tx, table: string, tail: string): Promise<string> =>
  once([await shapeOf(tx, table), 'index', tail], () =>
    shadowed(tx, `(like ${table})`, async () => {
      await tx.run(`create index canonical_index on ${SHADOW} ${tail}`);
      const row = await tx.row(
        `select pg_get_indexdef(indexrelid) as text from pg_index where indrelid = '${SHADOW}'::regclass`,
      );
      return indexBody(row.text('text'));
    }),
  );

/** An index that is there. */
export interface LiveIndex {
  readonly oid: string;
  readonly name: string;
  readonly definition: string;
  readonly body: string;
  readonly unique: boolean;
  readonly valid: boolean;
  /** The constraint that it keeps. */
  readonly constraint: string | null;
}

/** Indexes of a table, in the order of their names. */
export const indexesOf = async ({ rows }: Tx, table: string): Promise<LiveIndex[]> => {
  const found = await rows(
    `select i.oid, i.relname as name, pg_get_indexdef(i.oid) as definition, indisunique as unique, indisvalid as valid,
       (select conname from pg_constraint where conindid = i.oid and contype in ('p', 'u', 'x') limit 1) as constraint
     from pg_index join pg_class i on i.oid = indexrelid where indrelid = $1::oid order by i.relname`,
    [table],
  );
  return found.map((row) => ({
    oid: row.text('oid'),
    name: row.text('name'),
    definition: row.text('definition'),
    body: indexBody(row.text('definition')),
    unique: row.flag('unique'),
    valid: row.flag('valid'),
    constraint: row.maybe('constraint'),
  }));
};

/** A constraint that is there. */
export interface LiveConstraint {
  readonly name: string;
  readonly type: string;
  readonly definition: string;
  readonly valid: boolean;
}

/** Constraints of a table, in the order of their names. */
export const constraintsOf = async ({ rows }: Tx, table: string): Promise<LiveConstraint[]> => {
  const found = await rows(
    `select conname as name, contype as type, regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', '') as definition,
       convalidated as valid from pg_constraint where conrelid = $1::oid and contype <> 'n' order by conname`,
    [table],
  );
  return found.map((row) => ({
    name: row.text('name'),
    type: row.text('type'),
    definition: row.text('definition'),
    valid: row.flag('valid'),
  }));
};

/** A constraint apart from its spelling: PostgreSQL writes the casts of a check that was written in its own words elsewhere. */
export const sameConstraint = (left: string, right: string): boolean => {
  const plain = (text: string): string => {
    let shorter = text.replace(/::(?:character varying|text)(?:\[\])?/g, '');
    for (let before = ''; before !== shorter; ) {
      before = shorter;
      shorter = shorter.replace(/\((\w+|'(?:[^']|'')*'|ARRAY\[[^[\]]*\])\)/g, '$1');
    }
    return shorter;
  };
  return plain(left) === plain(right);
};

/** A foreign key as PostgreSQL spells it; its shadow would lock the other table. */
export const spellForeignKey = (definition: string): string =>
  definition
    .replace(/^foreign key \((.*?)\) references (\S+) \((.*?)\)/, 'FOREIGN KEY ($1) REFERENCES $2($3)')
    .replace(/ on (delete|update) (set null|cascade|restrict|set default)/g, (match) => match.toUpperCase());
