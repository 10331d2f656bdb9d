import pg from 'pg';

/** Runs work on a connection of its own. Rows keep PostgreSQL's text: a `Date` would drop the microseconds. */
export const connected = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url, types: { getTypeParser: () => (text: string) => text } });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
};

/** Schemas that the migrations make. */
export const SCHEMAS = ['m10_recovery', 'policy', 'policy_sidecar', 'public'];

const OURS = `nspname = any ('{${SCHEMAS.join()}}') and c.relname <> 'migrations'`;
const TABLE = `format('%s.%s', nspname, c.relname)`;

/** Tables of {@link SCHEMAS}, without the one that records migrations. */
export const tables = async (client: pg.Client): Promise<string[]> => {
  const { rows } = await client.query(
    `select ${TABLE} as name from pg_class c join pg_namespace n on n.oid = relnamespace
     where relkind in ('r', 'p') and ${OURS} order by 1`,
  );
  return rows.map(({ name }) => name);
};

/** A column as PostgreSQL spells it. */
export interface Column {
  readonly table: string;
  readonly name: string;
  readonly type: string;
  readonly required: string;
  readonly fallback: string;
}

/** Columns of all tables, in physical order. */
export const columns = async (client: pg.Client): Promise<Column[]> => {
  const { rows } = await client.query(
    `select ${TABLE} as table, attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required,
       attgenerated::text || coalesce(pg_get_expr(adbin, adrelid), '') as fallback
     from pg_attribute a join pg_class c on c.oid = attrelid join pg_namespace n on n.oid = relnamespace
     left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attnum > 0 and not attisdropped and relkind in ('r', 'p') and ${OURS} order by 1, attnum`,
  );
  return rows;
};

const OBJECTS: Readonly<Record<string, string>> = {
  constraint: `select format('%s %s', ${TABLE}, conname) as name,
      format('%s%s', pg_get_constraintdef(k.oid), case when convalidated then '' else ' NOT VALID' end) as definition, k.oid as id
    from pg_constraint k join pg_class c on c.oid = conrelid join pg_namespace n on n.oid = relnamespace
    where contype <> 'n' and ${OURS}`,
  index: `select format('%s %s', ${TABLE}, i.relname) as name, pg_get_indexdef(i.oid) as definition,
      format('%s/%s', i.oid, i.relfilenode) as id
    from pg_index x join pg_class c on c.oid = indrelid join pg_class i on i.oid = indexrelid
    join pg_namespace n on n.oid = c.relnamespace where indisvalid and c.relkind = 'r' and ${OURS}`,
  trigger: `select format('%s %s', ${TABLE}, tgname) as name, pg_get_triggerdef(t.oid) as definition, '' as id
    from pg_trigger t join pg_class c on c.oid = tgrelid join pg_namespace n on n.oid = relnamespace
    where not tgisinternal and ${OURS}`,
  function: `select p.oid::regprocedure::text as name, pg_get_functiondef(p.oid) as definition, p.oid as id
    from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = any ('{${SCHEMAS.join()}}')`,
  table: `select ${TABLE} as name, '' as definition, format('%s/%s', c.oid, relfilenode) as id
    from pg_class c join pg_namespace n on n.oid = relnamespace where relkind = 'r' and ${OURS}`,
};

/** One object of the catalog: what it is called, what it is, and an id that changes when it is built anew. */
export interface CatalogObject {
  readonly kind: string;
  readonly table: string;
  readonly name: string;
  readonly definition: string;
  readonly id: string;
}

/** Tables, constraints, indexes and triggers, in the order of their names. */
export const objects = async (client: pg.Client): Promise<CatalogObject[]> => {
  const found: CatalogObject[] = [];
  for (const [kind, query] of Object.entries(OBJECTS)) {
    const { rows } = await client.query(`${query} order by 1`);
    found.push(...rows.map((row) => ({ kind, table: row.name.split(' ')[0], ...row })));
  }
  return found;
};

/** All rows of a table as JSON text, in a fixed order. */
export const rowsOf = async (client: pg.Client, table: string): Promise<string[]> => {
  const { rows } = await client.query(`select to_jsonb(t)::text as row from ${table} t order by 1`);
  return rows.map(({ row }) => row);
};
