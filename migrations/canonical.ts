import { Migration } from '@mikro-orm/migrations';

/** A column: `type [not null] [default expression]`, the type in PostgreSQL's short or long spelling, or `serial`. */
type ColumnSpec = string;

interface Column {
  readonly type: string;
  readonly serial: boolean;
  readonly required: boolean;
  readonly fallback: string | undefined;
}

const LONG_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^varchar/, 'character varying'],
  [/^timestamptz$/, 'timestamp with time zone'],
  [/^int4$|^int$|^serial$/, 'integer'],
  [/^int8$/, 'bigint'],
  [/^float8$/, 'double precision'],
  [/^bool$/, 'boolean'],
];

const parseColumn = (spec: ColumnSpec): Column => {
  const [, shortType = '', required, fallback] = /^(.+?)( not null)?(?: default (.+))?$/s.exec(spec) ?? [];
  const type = LONG_NAMES.reduce((name, [pattern, long]) => name.replace(pattern, long), shortType);
  return { type, serial: shortType === 'serial', required: required !== undefined, fallback };
};

const literal = (text: string | undefined): string => (text === undefined ? 'null' : `'${text.replaceAll("'", "''")}'`);

/**
 * Brings one live column to its canonical type, default and nullability. It lives for the session of the migration
 * only. Views in the way of a type change are taken down and put back as they were.
 */
const ADOPT_COLUMN = `
create or replace function pg_temp.adopt_column(
  target regclass, column_name text, wanted_type text, required boolean, fallback text
) returns void language plpgsql as $adopt$
declare
  live record;
  dependent record;
  dependents jsonb := '[]';
begin
  select format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required, a.attgenerated as generated
    into live from pg_attribute a
   where a.attrelid = target and a.attname = column_name and not a.attisdropped;
  if live.generated <> '' then return; end if;
  if live.type <> wanted_type then
    for dependent in
      with recursive views as (
        select v.oid, 1 as depth from pg_depend d join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class
         where d.refobjid = target and d.classid = 'pg_rewrite'::regclass and v.oid <> target
        union
        select v.oid, views.depth + 1 from views
          join pg_depend d on d.refobjid = views.oid and d.classid = 'pg_rewrite'::regclass
          join pg_rewrite r on r.oid = d.objid join pg_class v on v.oid = r.ev_class
         where v.oid <> views.oid
      )
      select c.oid::regclass::text as name, c.relkind, pg_get_viewdef(c.oid) as definition,
             (select coalesce(jsonb_agg(pg_get_indexdef(i.indexrelid)), '[]') from pg_index i where i.indrelid = c.oid) as indexes
        from (select oid, max(depth) as depth from views group by oid) v join pg_class c on c.oid = v.oid
       order by v.depth desc
    loop
      dependents := jsonb_build_array(to_jsonb(dependent)) || dependents;
      execute format('drop %s if exists %s', case dependent.relkind when 'm' then 'materialized view' else 'view' end, dependent.name);
    end loop;
    execute format('alter table %s alter column %I drop default', target, column_name);
    execute format('alter table %s alter column %I type %s %s', target, column_name, wanted_type,
      case
        when live.type = 'timestamp without time zone' then format('using %I at time zone ''UTC''', column_name)
        -- By way of text: a float4 widened in binary would show digits nobody ever wrote.
        when live.type in ('real', 'json') then format('using %I::text::%s', column_name, wanted_type)
        when live.type like 'character varying%' and wanted_type like 'character varying%' then ''
        else format('using %I::%s', column_name, wanted_type)
      end);
    for dependent in select * from jsonb_to_recordset(dependents) as d(name text, relkind text, definition text, indexes jsonb)
    loop
      execute format('create %s %s as %s', case dependent.relkind when 'm' then 'materialized view' else 'view' end,
        dependent.name, dependent.definition);
      for live in select value from jsonb_array_elements_text(dependent.indexes) loop execute live.value; end loop;
    end loop;
  end if;
  if fallback is not null then
    execute format('alter table %s alter column %I set default %s', target, column_name, fallback);
  else
    execute format('alter table %s alter column %I drop default', target, column_name);
  end if;
  if required then
    if fallback is not null then
      execute format('update %s set %I = %s where %I is null', target, column_name, fallback, column_name);
    end if;
    execute format('alter table %s alter column %I set not null', target, column_name);
  elsif not exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
     where i.indrelid = target and i.indisprimary and a.attname = column_name
  ) then
    execute format('alter table %s alter column %I drop not null', target, column_name);
  end if;
end $adopt$`;

/**
 * A migration that states what the schema is, not how to get there: run on an empty database it creates everything, on
 * one that already holds these tables in an older shape it changes what differs and keeps every row.
 */
export abstract class CanonicalMigration extends Migration {
  #prepared = false;

  /** A schema. */
  protected schema(name: string): void {
    this.addSql(`create schema if not exists ${name}`);
  }

  /**
   * A table with all its columns. Columns that an adopted table has besides these stay.
   *
   * @param options.primaryKey `<constraint name> (<columns>)`.
   */
  protected table(
    name: string,
    columns: Readonly<Record<string, ColumnSpec>>,
    { primaryKey }: { readonly primaryKey: string },
  ): void {
    if (!this.#prepared) this.addSql(ADOPT_COLUMN);
    this.#prepared = true;
    const definitions = Object.entries(columns).map(([column, spec]) => `"${column}" ${spec}`);
    const key = `constraint ${primaryKey.replace(' (', ' primary key (')}`;
    this.addSql(`create table if not exists ${name} (${definitions.join(', ')}, ${key})`);
    for (const [column, spec] of Object.entries(columns)) {
      // Generated columns cannot be altered into place: they are created whole.
      if (spec.includes('generated always')) {
        this.addSql(`alter table ${name} add column if not exists "${column}" ${spec}`);
        continue;
      }
      const { type, serial, required, fallback } = parseColumn(spec);
      if (serial) continue;
      const start = fallback === undefined ? '' : ` default ${fallback}`;
      this.addSql(`alter table ${name} add column if not exists "${column}" ${type}${start}`);
      this.addSql(
        `select pg_temp.adopt_column('${name}', '${column}', ${literal(type)}, ${required}, ${literal(fallback)})`,
      );
    }
  }

  /** A unique constraint. */
  protected unique(table: string, name: string, columns: string): void {
    this.#constraint(table, name, `unique ${columns}`);
  }

  /** A CHECK; one of the same name with another condition is replaced. */
  protected check(table: string, name: string, condition: string): void {
    this.dropConstraint(table, name);
    this.addSql(`alter table ${table} add constraint ${name} check (${condition})`);
  }

  /** A foreign key: `(columns) references …`; one of the same name is replaced. */
  protected foreignKey(table: string, name: string, definition: string): void {
    this.dropConstraint(table, name);
    this.addSql(`alter table ${table} add constraint ${name} foreign key ${definition}`);
  }

  #constraint(table: string, name: string, definition: string): void {
    this.addSql(`do $do$ begin
      if not exists (select from pg_constraint where conrelid = '${table}'::regclass and conname = '${name}') then
        alter table ${table} add constraint ${name} ${definition};
      end if;
    end $do$`);
  }

  /** An index; `tail` is everything after the table: `(column desc) where …`. */
  protected index(table: string, name: string, tail: string): void {
    this.addSql(`create index if not exists ${name} on ${table} ${tail}`);
  }

  /** A unique index. */
  protected uniqueIndex(table: string, name: string, tail: string): void {
    this.addSql(`create unique index if not exists ${name} on ${table} ${tail}`);
  }

  protected dropConstraint(table: string, name: string): void {
    this.addSql(`alter table ${table} drop constraint if exists ${name}`);
  }

  /** @param name schema-qualified. */
  protected dropIndex(name: string): void {
    this.addSql(`drop index if exists ${name}`);
  }

  protected dropTrigger(table: string, name: string): void {
    this.addSql(`drop trigger if exists ${name} on ${table}`);
  }

  /** Drops the foreign keys that an adopted table has on one of these columns, whatever they are called. */
  protected dropForeignKeys(table: string, ...columns: string[]): void {
    this.addSql(`do $do$ declare key record; begin
      for key in select c.conname from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
        where c.contype = 'f' and c.conrelid = '${table}'::regclass and a.attname in (${columns.map(literal).join(', ')})
      loop execute format('alter table ${table} drop constraint if exists %I', key.conname); end loop;
    end $do$`);
  }

  /** Drops the CHECKs that an adopted table has on one of these columns, whatever they are called. */
  protected dropChecks(table: string, ...columns: string[]): void {
    this.addSql(`do $do$ declare ck record; begin
      for ck in select c.conname from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
        where c.contype = 'c' and c.conrelid = '${table}'::regclass and a.attname in (${columns.map(literal).join(', ')})
      loop execute format('alter table ${table} drop constraint if exists %I', ck.conname); end loop;
    end $do$`);
  }

  /** Default rows: an insert that adds nothing the second time. */
  protected seed(sql: string): void {
    this.addSql(sql);
  }
}
