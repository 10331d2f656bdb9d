/*
 * Functions that bring one live object to its canonical form. They live in the session's temporary schema, so a
 * database keeps none of them.
 *
 * What is wanted is compared with what exists in PostgreSQL's own spelling: the wanted object is made on an empty shadow
 * table and read back from the catalog. Nothing is parsed here.
 */

/** Runs `statement` on a shadow of the table, reads `query` about it, and leaves no trace. `%1$s` is the shadow. */
const SHADOWED = `
create or replace function pg_temp.shadowed(target regclass, statement text, query text) returns text language plpgsql as $$
declare
  shadow text := format('%I.canonical_shadow', (select nspname from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = target));
  answer text;
begin
  execute format('create table %s (like %s)', shadow, target);
  execute format(statement, shadow);
  execute format(query, shadow) into answer;
  execute format('drop table %s', shadow);
  return answer;
end $$`;

/** Drops the views that read the table, the outermost first; returns what {@link PUT_VIEWS_BACK} needs. */
const TAKE_VIEWS_DOWN = `
create or replace function pg_temp.take_views_down(target regclass) returns jsonb language plpgsql as $$
declare
  view record;
  views jsonb := '[]';
begin
  for view in
    with recursive reader as (
      select r.ev_class as id, 1 as depth from pg_depend d join pg_rewrite r on r.oid = d.objid
       where d.refclassid = 'pg_class'::regclass and d.refobjid = target and d.classid = 'pg_rewrite'::regclass
         and r.ev_class <> target
      union
      select r.ev_class, depth + 1 from reader
        join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = reader.id and d.classid = 'pg_rewrite'::regclass
        join pg_rewrite r on r.oid = d.objid
       where r.ev_class <> reader.id
    )
    select format('%I.%I', nspname, relname) as name,
           case relkind when 'm' then 'materialized view' else 'view' end as kind,
           pg_get_viewdef(c.oid) as definition,
           array_to_string(reloptions, ', ') as options,
           pg_get_userbyid(relowner) as owner,
           obj_description(c.oid, 'pg_class') as comment,
           (select coalesce(jsonb_agg(pg_get_indexdef(indexrelid)), '[]') from pg_index where indrelid = c.oid) as indexes,
           (select coalesce(jsonb_agg(format('%s on %I.%I to %s%s', privilege_type, nspname, relname,
              case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
              case when is_grantable then ' with grant option' else '' end)), '[]')
              from aclexplode(relacl) where grantee <> relowner) as grants
      from (select id, max(depth) as depth from reader group by id) r
      join pg_class c on c.oid = r.id join pg_namespace n on n.oid = relnamespace
     order by r.depth desc
  loop
    execute format('drop %s %s', view.kind, view.name);
    views := jsonb_build_array(to_jsonb(view)) || views;
  end loop;
  return views;
end $$`;

const PUT_VIEWS_BACK = `
create or replace function pg_temp.put_views_back(views jsonb) returns void language plpgsql as $$
declare
  view record;
  statement text;
begin
  for view in select * from jsonb_to_recordset(views) as v(name text, kind text, definition text, options text, owner text,
    comment text, indexes jsonb, grants jsonb)
  loop
    execute format('create %s %s %s as %s', view.kind, view.name, 'with (' || view.options || ')', view.definition);
    for statement in select jsonb_array_elements_text(view.indexes) loop execute statement; end loop;
    for statement in select jsonb_array_elements_text(view.grants) loop execute 'grant ' || statement; end loop;
    if view.comment is not null then execute format('comment on %s %s is %L', view.kind, view.name, view.comment); end if;
    if view.owner <> current_user then execute format('alter %s %s owner to %I', view.kind, view.name, view.owner); end if;
  end loop;
end $$`;

/** Brings all columns of a table to the given definitions, in one pass over its rows at most. */
const ADOPT_COLUMNS = `
create or replace function pg_temp.adopt_columns(target regclass, definition text, sequences text[]) returns void language plpgsql as $$
declare
  shadow text := format('%I.canonical_shadow', (select nspname from pg_class c join pg_namespace n on n.oid = relnamespace where c.oid = target));
  wanted record;
  live record;
  filling boolean;
  converted text;
  converting boolean := false;
  actions text[] := '{}';
  views jsonb := '[]';
begin
  execute format('create table %s (%s)', shadow, definition);
  for wanted in
    select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required, attgenerated as generated,
           pg_get_expr(adbin, adrelid) as fallback
      from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attrelid = shadow::regclass and attnum > 0
     order by attnum
  loop
    select format_type(atttypid, atttypmod) as type, attnotnull as required, attgenerated as generated,
           pg_get_expr(adbin, adrelid) as fallback,
           exists (select from pg_index where indrelid = attrelid and indisprimary and attnum = any (indkey)) as key
      into live
      from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attrelid = target and attname = wanted.name and not attisdropped;
    continue when wanted.generated <> '' or live.generated <> '';

    filling := false;
    if wanted.required and not live.required and wanted.fallback is not null then
      execute format('select exists (select from %s where %I is null)', target, wanted.name) into filling;
    end if;
    if live.type <> wanted.type or filling then
      converting := true;
      converted := case
        when live.type like 'timestamp%without time zone' and wanted.type = 'timestamp with time zone'
          then format('%I at time zone ''UTC''', wanted.name)
        -- Widening in binary would show digits that nobody wrote.
        when live.type = 'real' then format('%I::text::%s', wanted.name, wanted.type)
        -- An explicit cast would cut text that is too long, an assignment refuses it.
        when wanted.type like 'character varying%' then quote_ident(wanted.name)
        else format('%I::%s', wanted.name, wanted.type)
      end;
      if filling then converted := format('coalesce(%s, %s)', converted, wanted.fallback); end if;
      if live.fallback is not null and wanted.name <> all (sequences) then
        actions := actions || format('alter column %I drop default', wanted.name);
        live.fallback := null;
      end if;
      actions := actions || format('alter column %I type %s using %s', wanted.name, wanted.type, converted);
    end if;
    if wanted.fallback is distinct from live.fallback and wanted.name <> all (sequences) then
      actions := actions || case
        when wanted.fallback is null then format('alter column %I drop default', wanted.name)
        else format('alter column %I set default %s', wanted.name, wanted.fallback)
      end;
    end if;
    if wanted.required and not live.required then
      actions := actions || format('alter column %I set not null', wanted.name);
    elsif live.required and not wanted.required and not live.key then
      actions := actions || format('alter column %I drop not null', wanted.name);
    end if;
  end loop;
  execute format('drop table %s', shadow);

  if converting then views := pg_temp.take_views_down(target); end if;
  if actions <> '{}' then execute format('alter table %s %s', target, array_to_string(actions, ', ')); end if;
  perform pg_temp.put_views_back(views);
end $$`;

const ADOPT_CONSTRAINT = `
create or replace function pg_temp.adopt_constraint(target regclass, wanted_name text, definition text) returns void language plpgsql as $$
declare
  wanted text := pg_temp.shadowed(target, 'alter table %1$s add constraint canonical_constraint ' || replace(definition, '%', '%%'),
    'select pg_get_constraintdef(oid) from pg_constraint where conrelid = ''%1$s''::regclass and conname = ''canonical_constraint''');
  live text := (select pg_get_constraintdef(oid) from pg_constraint where conrelid = target and conname = wanted_name);
  other text := (select conname from pg_constraint where conrelid = target and pg_get_constraintdef(oid) = wanted order by conname limit 1);
  usurper regclass := (select indexrelid from pg_index join pg_class on oid = indexrelid where indrelid = target and relname = wanted_name
    and not exists (select from pg_constraint where conindid = indexrelid and conrelid = target));
begin
  if live = wanted then return; end if;
  if live is not null then execute format('alter table %s drop constraint %I', target, wanted_name); end if;
  if usurper is not null then execute format('drop index %s', usurper); end if;
  if other is not null then
    execute format('alter table %s rename constraint %I to %I', target, other, wanted_name);
  else
    execute format('alter table %s add constraint %I %s', target, wanted_name, definition);
  end if;
end $$`;

/** What an index is, without its name and its table. */
const INDEX_BODY = `
create or replace function pg_temp.index_body(index regclass) returns text language sql as $$
  select case when indisunique then 'unique' else '' end || substring(pg_get_indexdef(indexrelid) from ' USING .*')
    from pg_index where indexrelid = index
$$`;

const ADOPT_INDEX = `
create or replace function pg_temp.adopt_index(target regclass, wanted_name text, tail text, is_unique boolean) returns void language plpgsql as $$
declare
  kind text := case when is_unique then 'unique index' else 'index' end;
  wanted text := pg_temp.shadowed(target, format('create %s canonical_index on %%1$s %s', kind, replace(tail, '%', '%%')),
    'select pg_temp.index_body(indexrelid) from pg_index where indrelid = ''%1$s''::regclass');
  live regclass := (select indexrelid from pg_index join pg_class on oid = indexrelid where indrelid = target and relname = wanted_name);
  owner text := (select conname from pg_constraint where conindid = live and conrelid = target and contype in ('p', 'u', 'x'));
  other regclass := (select indexrelid from pg_index where indrelid = target and indexrelid is distinct from live
    and pg_temp.index_body(indexrelid) = wanted and indisvalid
    and not exists (select from pg_constraint where conindid = indexrelid and conrelid = target) limit 1);
begin
  if owner is null and pg_temp.index_body(live) = wanted then return; end if;
  if owner is not null then execute format('alter table %s drop constraint %I', target, owner);
  elsif live is not null then execute format('drop index %s', live); end if;
  if other is not null then
    execute format('alter index %s rename to %I', other, wanted_name);
  else
    execute format('create %s %I on %s %s', kind, wanted_name, target, tail);
  end if;
end $$`;

const DROP_REDUNDANT_INDEXES = `
create or replace function pg_temp.drop_redundant_indexes(target regclass, stated text[]) returns void language plpgsql as $$
declare
  redundant regclass;
begin
  for redundant in
    select i.indexrelid from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid = target and c.relname <> all (stated)
       and not exists (select from pg_constraint where conindid = i.indexrelid)
       and exists (
         select from pg_index o join pg_class oc on oc.oid = o.indexrelid
          where o.indrelid = target and o.indexrelid <> i.indexrelid
            and (pg_temp.index_body(o.indexrelid) = pg_temp.index_body(i.indexrelid) and oc.relname = any (stated)
              or pg_temp.index_body(o.indexrelid) in (pg_temp.index_body(i.indexrelid), 'unique' || pg_temp.index_body(i.indexrelid))
                and o.indisunique)
       )
  loop
    execute format('drop index %s', redundant);
  end loop;
end $$`;

const DROP_CONSTRAINTS = `
create or replace function pg_temp.drop_constraints(kind "char", table_name text, columns text[]) returns void language plpgsql as $$
declare
  doomed text;
begin
  for doomed in
    select distinct conname from pg_constraint join pg_attribute on attrelid = conrelid and attnum = any (conkey)
     where contype = kind and conrelid = to_regclass(table_name) and attname = any (columns)
  loop
    execute format('alter table %s drop constraint %I', table_name, doomed);
  end loop;
end $$`;

const DROP_TRIGGERS = `
create or replace function pg_temp.drop_triggers(table_name text, mention text) returns void language plpgsql as $$
declare
  doomed text;
begin
  for doomed in
    select tgname from pg_trigger t join pg_proc p on p.oid = tgfoid
     where tgrelid = to_regclass(table_name) and not tgisinternal and position(mention in prosrc) > 0
  loop
    execute format('drop trigger %I on %s', doomed, table_name);
  end loop;
end $$`;

/** Statements that make the functions, in order. */
export const ADOPTION: readonly string[] = [
  SHADOWED,
  TAKE_VIEWS_DOWN,
  PUT_VIEWS_BACK,
  ADOPT_COLUMNS,
  ADOPT_CONSTRAINT,
  INDEX_BODY,
  ADOPT_INDEX,
  DROP_REDUNDANT_INDEXES,
  DROP_CONSTRAINTS,
  DROP_TRIGGERS,
];
