import { entities } from '../../entities/all.ts';
import type { Right } from '../../entities/owner.ts';
import { tableName } from '../table.ts';
import { TENANTS_ROLE } from '../tenants.ts';
import { type Tx, withLook } from './look.ts';
import { type Say, TUNING, withTurn } from './turn.ts';

/** Rights on every table that the role takes that serves: to read, and to change what the table's entity says. */
export const SERVING: ReadonlyMap<string, readonly Right[]> = new Map([
  ['policy_sidecar.migrations', ['select']],
  ...entities.map((entity): [string, Right[]] => [tableName(entity), ['select', ...entity.changes]]),
]);

/** SQL of the sequences, `oid` and `name`, that defaults of the tables take numbers from whose names a parameter holds. */
export const sequencesOf = (parameter: string): string =>
  `select distinct s.oid, format('%I.%I', sn.nspname, s.relname) as name
   from pg_depend d join pg_attrdef a on a.oid = d.objid
     join pg_class s on s.oid = d.refobjid and s.relkind = 'S' join pg_namespace sn on sn.oid = s.relnamespace
     join pg_class t on t.oid = a.adrelid join pg_namespace tn on tn.oid = t.relnamespace
   where d.classid = 'pg_attrdef'::regclass and d.refclassid = 'pg_class'::regclass
     and tn.nspname || '.' || t.relname = any (${parameter}::text[])`;

/** Rights on one thing that a role lacks. */
export interface Lacking {
  /** As `grant` names it: `policy.violations`, `schema policy`, `sequence policy.work_queue_id_seq`. */
  readonly on: string;
  /** `insert, update`. */
  readonly rights: string;
  /** How many they are. */
  readonly count: number;
  /** What gives them. */
  readonly grant: string;
  /** Whether the role that looks may give them. */
  readonly grantable: boolean;
}

/**
 * SQL of a right that a role has by the one of bound callers alone. That role's policies show it no rows, and its own policies
 * are for who has rights by himself.
 */
const ONLY_AS_BOUND = `(not pg_has_role($1::name, relowner, 'usage') and exists (
    select from pg_roles b where b.rolname = '${TENANTS_ROLE}' and pg_has_role($1::name, b.oid, 'usage') and not exists (
      select from aclexplode(relacl) where privilege_type = upper(needed) and grantee <> b.oid
        and (grantee = 0 or pg_has_role($1::name, grantee, 'usage')))))`;

const LACKING = `with wanted as (
    select c.oid, relnamespace, nspname, relname, relowner, relacl, string_to_array(rights, ',') as rights
    from unnest($2::text[], $3::text[]) as w (name, rights)
      join (pg_class c join pg_namespace n on n.oid = relnamespace) on nspname || '.' || relname = w.name),
  -- No other relation must be asked for the right on a sequence, which is an error.
  sequences as materialized (${sequencesOf('$4')})
  select 1 as place, format('schema %I', nspname) as object, 'usage' as rights, 1 as count,
    has_schema_privilege(relnamespace, 'usage with grant option') as grantable, quote_ident($1) as role
  from (select distinct relnamespace, nspname from wanted) as schemas
  where not has_schema_privilege($1::name, relnamespace, 'usage')
  union all
  select 2, format('%I.%I', nspname, relname), string_agg(needed, ', ' order by number), count(*),
    bool_and(has_table_privilege(oid, needed || ' with grant option')), quote_ident($1)
  from wanted, unnest(rights) with ordinality as r (needed, number)
  where not has_table_privilege($1::name, oid, needed) or ${ONLY_AS_BOUND} group by nspname, relname
  union all
  select 3, 'sequence ' || name, 'usage', 1, has_sequence_privilege(oid, 'usage with grant option'), quote_ident($1)
  from sequences where not has_sequence_privilege($1::name, oid, 'usage')
  order by 1, 2`;

/** What serving takes and a role lacks, of the tables that are there. */
export const lackingFor = async ({ rows }: Tx, role: string): Promise<Lacking[]> => {
  const inserting = [...SERVING].filter(([, rights]) => rights.includes('insert')).map(([table]) => table);
  const found = await rows(LACKING, [
    role,
    [...SERVING.keys()],
    [...SERVING.values()].map((rights) => rights.join(',')),
    inserting,
  ]);
  return found.map((row) => {
    const [on, rights] = [row.text('object'), row.text('rights')];
    const grant = `grant ${rights} on ${on} to ${row.text('role')}`;
    return { on, rights, count: row.number('count'), grant, grantable: row.flag('grantable') };
  });
};

/** A role that is not there; the message is one line for the user. */
export class RoleError extends Error {}

/** Rights that the role that migrates may not give; the message is one line for the user. */
export class RightsError extends Error {}

/** @throws RoleError where there is no such role. */
export const expectRole = (url: string, role: string): Promise<void> =>
  withLook(url, async (look) => {
    const found = await look(({ rows }) => rows('select from pg_roles where rolname = $1', [role]));
    if (found.length === 0)
      throw new RoleError(`SIDECAR_SERVING_ROLE is ${role}, and there is no such role: create it`);
  });

/**
 * Gives a role what serving takes and it lacks; where it lacks nothing, nothing is locked and no right to grant is needed.
 *
 * @returns how many rights were given.
 * @throws RightsError, with the rest given, where the role that migrates may not give some.
 */
export const grantServing = async (url: string, role: string, say: Say): Promise<number> => {
  let lacking = await withLook(url, (look) => look((tx) => lackingFor(tx, role)));
  if (lacking.length === 0) return 0;
  await withTurn(url, { say, tuning: TUNING }, (migrating) =>
    migrating.short(`the rights of ${role}`, async (tx) => {
      lacking = await lackingFor(tx, role);
      for (const { grant, grantable } of lacking) if (grantable) await tx.run(grant);
    }),
  );
  const refused = lacking.filter(({ grantable }) => !grantable);
  if (refused.length > 0) {
    const grants = refused.map(({ grant }) => grant).join('; ');
    throw new RightsError(
      `the role that migrates may not give ${role} all that serving takes; who may has to: ${grants}`,
    );
  }
  return lacking.reduce((sum, { count }) => sum + count, 0);
};
