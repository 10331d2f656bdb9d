import { literal } from './catalog.ts';
import type { Tx } from './look.ts';

/** A view, and everything that makes it again. */
export interface View {
  readonly oid: string;
  readonly name: string;
  readonly schema: string;
  readonly bare: string;
  readonly materialized: boolean;
  readonly populated: boolean;
  readonly definition: string;
  readonly options: string | null;
  readonly owner: string;
  /** The role that looks may make it again in the owner's name. */
  readonly ownable: boolean;
  /** It reads the column itself, and no view that does. */
  readonly direct: boolean;
  readonly indexes: readonly string[];
  /** Statements for what hangs on it: rules, triggers, comments, defaults, grants. */
  readonly extras: readonly string[];
}

const TARGET = `format('%I.%I', nspname, relname)`;

/** A grant of an entry of an access list. */
const grantOf = (columns: string): string => `format('grant %s${columns} on %s to %s%s', privilege_type, ${TARGET},
  case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
  case when is_grantable then ' with grant option' else '' end)`;

const EXTRAS = `
  select 1 as step, ev.oid::bigint as place, pg_get_ruledef(ev.oid) as statement from pg_rewrite ev where ev.ev_class = c.oid and rulename <> '_RETURN'
  union all select 2, t.oid::bigint, pg_get_triggerdef(t.oid) from pg_trigger t where tgrelid = c.oid and not tgisinternal
  union all select 3, objsubid, case objsubid
      when 0 then format('comment on %s %s is %L', case relkind when 'm' then 'materialized view' else 'view' end, ${TARGET}, description)
      else format('comment on column %s.%I is %L', ${TARGET}, (select attname from pg_attribute where attrelid = c.oid and attnum = objsubid), description) end
    from pg_description where objoid = c.oid and classoid = 'pg_class'::regclass
  union all select 4, adnum, format('alter view %s alter column %I set default %s', ${TARGET},
      (select attname from pg_attribute where attrelid = c.oid and attnum = adnum), pg_get_expr(adbin, adrelid))
    from pg_attrdef where adrelid = c.oid
  union all select 5, row_number() over (), ${grantOf('')} from aclexplode(relacl) where grantee <> relowner
  union all select 6, attnum, ${grantOf(` (' || quote_ident(attname) || ')`)}
    from pg_attribute, aclexplode(attacl) where attrelid = c.oid and attacl is not null and grantee <> relowner`;

/**
 * Views that read any of these columns, directly or through others, the outermost first.
 *
 * @param relation a table or a view.
 * @param columns attribute numbers; all of them if left out.
 */
export const viewsOn = async ({ rows }: Tx, relation: string, columns?: readonly string[]): Promise<View[]> => {
  const found = await rows(
    `with recursive reader as (
       select r.ev_class as id, 1 as depth from pg_depend d join pg_rewrite r on r.oid = d.objid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = $1::oid and d.classid = 'pg_rewrite'::regclass
          and r.ev_class <> $1::oid and ($2::int[] is null or d.refobjsubid = any($2::int[]))
       union
       select r.ev_class, depth + 1 from reader
         join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = reader.id and d.classid = 'pg_rewrite'::regclass
         join pg_rewrite r on r.oid = d.objid
        where r.ev_class <> reader.id
     )
     select c.oid, ${TARGET} as name, nspname as schema, relname as bare, relkind = 'm' as materialized, relispopulated as populated,
       rtrim(pg_get_viewdef(c.oid), ';') as definition, array_to_string(reloptions, ', ') as options,
       pg_get_userbyid(relowner) as owner, pg_has_role(relowner, 'usage') as ownable, depth = 1 as direct,
       (select coalesce(jsonb_agg(pg_get_indexdef(indexrelid) order by indexrelid), '[]') from pg_index where indrelid = c.oid) as indexes,
       (select coalesce(jsonb_agg(statement order by step, place), '[]') from (${EXTRAS}) as extra) as extras
     from (select id, max(depth) as depth from reader group by id) r
     join pg_class c on c.oid = r.id join pg_namespace n on n.oid = relnamespace
     where relkind in ('v', 'm')
     order by r.depth desc, c.oid`,
    [relation, columns ? `{${columns.join()}}` : null],
  );
  return found.map((row) => ({
    oid: row.text('oid'),
    name: row.text('name'),
    schema: row.text('schema'),
    bare: row.text('bare'),
    materialized: row.flag('materialized'),
    populated: row.flag('populated'),
    definition: row.text('definition'),
    options: row.maybe('options'),
    owner: row.text('owner'),
    ownable: row.flag('ownable'),
    direct: row.flag('direct'),
    indexes: JSON.parse(row.text('indexes')),
    extras: JSON.parse(row.text('extras')),
  }));
};

const kindOf = ({ materialized }: View): string => (materialized ? 'materialized view' : 'view');

/** Drops views, given the outermost first. */
export const takeDown = async (tx: Tx, views: readonly View[]): Promise<void> => {
  for (const view of views) await tx.run(`drop ${kindOf(view)} ${view.name}`);
};

/** Makes a view under a name, without what hangs on it. */
export const makeView = async (tx: Tx, view: View, name: string, definition = view.definition): Promise<void> => {
  const options = view.options ? ` with (${view.options})` : '';
  const data = view.materialized && !view.populated ? ' with no data' : '';
  await tx.run(`create ${kindOf(view)} ${name}${options} as ${definition}${data}`);
};

/** Gives a view what hung on it, its owner last. */
export const dressView = async (tx: Tx, view: View): Promise<void> => {
  for (const statement of view.extras) await tx.run(statement);
  const row = await tx.row(`select ${literal(view.owner)} = current_user as mine`);
  if (!row.flag('mine'))
    await tx.run(`alter ${kindOf(view)} ${view.name} owner to "${view.owner.replaceAll('"', '""')}"`);
};

/** Makes views again, given the outermost first. */
export const putBack = async (tx: Tx, views: readonly View[]): Promise<void> => {
  for (const view of [...views].reverse()) {
    await makeView(tx, view, view.name);
    for (const index of view.indexes) await tx.run(index);
    await dressView(tx, view);
  }
};
