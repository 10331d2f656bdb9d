import pg from 'pg';
import { type Actual, Row } from './compare.ts';
import type { StoredTexts } from './requests.ts';
import { Decimal, type Golden, Instant, type Json, JsonColumn, type Reader } from './values.ts';

/** Rows as a golden file holds them: column -> value. */
export type Rows = readonly { readonly [column: string]: Json }[];

/** Content of every table a fixture fills. */
export type Fixture = { readonly [table: string]: Rows };

interface Column {
  readonly name: string;
  readonly type: string;
}

/** How a column's value travels: its type in the JSON of a statement, and the cast from there. */
const carried = ({ name, type }: Column): { readonly declared: string; readonly value: string } =>
  type === 'jsonb' || type === 'json'
    ? { declared: `"${name}" text`, value: `r."${name}"::${type}` }
    : { declared: `"${name}" ${type}`, value: `r."${name}"` };

const cell = (value: Golden): unknown => {
  if (value instanceof Instant) return value.rfc3339;
  if (value instanceof Decimal) return value.text;
  if (value instanceof JsonColumn) return JSON.stringify(value.json);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  return value;
};

/** Text that a select list makes of a column, so that no digit is lost on the way. */
const shown = ({ name, type }: Column): string => {
  switch (type) {
    case 'timestamp with time zone':
      return `(extract(epoch from "${name}") * 1000000)::bigint::text as "${name}"`;
    case 'numeric':
    case 'bigint':
    case 'uuid':
      return `"${name}"::text as "${name}"`;
    default:
      return `to_json("${name}")::text as "${name}"`;
  }
};

const readCell = (type: string, text: string | null): Actual => {
  if (text === null) return null;
  switch (type) {
    case 'timestamp with time zone':
      return new Instant(BigInt(text));
    case 'bigint':
      return BigInt(text);
    case 'numeric':
    case 'uuid':
      return text;
    case 'double precision':
      return Number(JSON.parse(text));
    default:
      return JSON.parse(text);
  }
};

/** The tables of one test database, as a golden file sees them. */
export class Tables {
  readonly #client: pg.Client;
  readonly #columns: ReadonlyMap<string, readonly Column[]>;
  /** The texts that each check constraint names. */
  readonly storedTexts: StoredTexts;

  private constructor(client: pg.Client, columns: Map<string, Column[]>, storedTexts: StoredTexts) {
    this.#client = client;
    this.#columns = columns;
    this.storedTexts = storedTexts;
  }

  static async open(url: string): Promise<Tables> {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    await client.query("set time zone 'UTC'");
    const columns = new Map<string, Column[]>();
    const listed = await client.query<{ table: string; name: string; type: string }>(`
      select n.nspname || '.' || c.relname as table, a.attname as name,
        case when format_type(a.atttypid, null) like '%[]' then 'text[]' else format_type(a.atttypid, null) end as type
      from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
        and n.nspname not in ('pg_catalog', 'information_schema')
      order by a.attrelid, a.attnum`);
    for (const { table, name, type } of listed.rows) {
      columns.set(table, [...(columns.get(table) ?? []), { name, type }]);
    }
    const checks = await client.query<{ definition: string }>(
      "select pg_get_constraintdef(oid) as definition from pg_constraint where contype = 'c'",
    );
    const texts = checks.rows.map(
      ({ definition }) => new Set([...definition.matchAll(/'([^']*)'/g)].map((each) => each[1]!)),
    );
    return new Tables(client, columns, texts);
  }

  async close(): Promise<void> {
    await this.#client.end();
  }

  /** The database's clock. */
  async now(): Promise<Instant> {
    const { rows } = await this.#client.query(
      'select (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as now',
    );
    return new Instant(BigInt(rows[0].now));
  }

  /** Makes the tables a fresh copy of a fixture, whatever they hold; generated keys go on where they were. */
  async restore(fixture: Fixture, reader: Reader): Promise<void> {
    await this.#client.query('begin');
    // Neither keys nor triggers: what a fixture holds is what the tables hold.
    await this.#client.query('set local session_replication_role = replica');
    const filled = [...this.#columns.keys()].filter((table) => !table.includes('.mikro_orm'));
    await this.#client.query(filled.map((table) => `delete from ${table}`).join(';'));
    for (const [table, rows] of Object.entries(fixture)) await this.insert(table, rows, reader);
    await this.#client.query('commit');
  }

  /** Lets generated integer keys begin above every key in use. */
  async advanceKeys(): Promise<void> {
    const { rows } = await this.#client.query<{ table: string; name: string; sequence: string }>(`
      select n.nspname || '.' || c.relname as table, a.attname as name,
        pg_get_serial_sequence(n.nspname || '.' || c.relname, a.attname) as sequence
      from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and a.attnum > 0 and n.nspname not in ('pg_catalog', 'information_schema')
        and pg_get_serial_sequence(n.nspname || '.' || c.relname, a.attname) is not null`);
    for (const { table, name, sequence } of rows) {
      await this.#client.query(
        `select setval('${sequence}', (select coalesce(max("${name}"), 0) + 1000 from ${table}))`,
      );
    }
  }

  async insert(table: string, rows: Rows, reader: Reader): Promise<void> {
    // Columns a row leaves out take their default, so rows with other columns are another statement.
    const groups = new Map<string, Rows[number][]>();
    for (const row of rows) {
      const names = Object.keys(row).sort().join();
      groups.set(names, [...(groups.get(names) ?? []), row]);
    }
    for (const group of groups.values()) {
      const columns = this.#pick(table, Object.keys(group[0]!));
      const cells = group.map((row) =>
        Object.fromEntries(Object.entries(row).map(([name, value]) => [name, cell(reader.read(value))])),
      );
      await this.#client.query(
        `insert into ${table} (${columns.map(({ name }) => `"${name}"`).join(', ')})
        select ${columns.map((each) => carried(each).value).join(', ')}
        from json_to_recordset($1) as r(${columns.map((each) => carried(each).declared).join(', ')})`,
        [JSON.stringify(cells)],
      );
    }
  }

  async set(table: string, values: Rows[number], where: Rows[number], reader: Reader): Promise<void> {
    const columns = this.#pick(table, Object.keys(values));
    const cells = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, cell(reader.read(value))]));
    const { condition, params } = this.#condition(table, where, reader, 2);
    await this.#client.query(
      `update ${table} t set ${columns.map((each) => `"${each.name}" = ${carried(each).value}`).join(', ')}
      from json_to_record($1) as r(${columns.map((each) => carried(each).declared).join(', ')}) where ${condition}`,
      [JSON.stringify(cells), ...params],
    );
  }

  async clear(table: string): Promise<void> {
    this.#pick(table, []);
    await this.#client.query(`delete from ${table}`);
  }

  /** Rows of a table; all columns when none are named. */
  async dump(table: string, reader: Reader, columns?: readonly string[], where: Rows[number] = {}): Promise<Row[]> {
    const picked = this.#pick(table, columns);
    const { condition, params } = this.#condition(table, where, reader, 1);
    const { rows } = await this.#client.query<Record<string, string | null>>(
      `select ${picked.map(shown).join(', ')} from ${table} t where ${condition}`,
      params,
    );
    return rows.map((row) => new Row(picked.map(({ name, type }) => [name, readCell(type, row[name]!)] as const)));
  }

  #pick(table: string, names: readonly string[] | undefined): readonly Column[] {
    const columns = this.#columns.get(table);
    if (!columns) throw new Error(`there is no table ${table}`);
    if (!names) return columns;
    return names.map((name) => {
      const column = columns.find((each) => each.name === name);
      if (!column) throw new Error(`${table} has no column ${name}`);
      return column;
    });
  }

  #condition(table: string, where: Rows[number], reader: Reader, first: number) {
    const entries = Object.entries(where);
    const columns = this.#pick(table, Object.keys(where));
    return {
      condition:
        columns
          .map(({ name, type }, index) => `t."${name}" is not distinct from $${index + first}::${type}`)
          .join(' and ') || 'true',
      params: entries.map(([, value]) => cell(reader.read(value))),
    };
  }
}
