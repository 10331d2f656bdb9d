import { entities } from '../../entities/all.ts';
import type { Owner } from '../../entities/owner.ts';
import { tableName } from '../table.ts';
import { TENANTS_ROLE, TENANTS_SETTING } from '../tenants.ts';
import { type Tx, txOf, withClient } from './look.ts';
import { SERVING, sequencesOf } from './serving-rights.ts';
import { type Say, TUNING, type Tuning, withTurn } from './turn.ts';

/** Every table, and whose its rows are. */
export const OWNERS: ReadonlyMap<string, Owner> = new Map(entities.map((entity) => [tableName(entity), entity.rows]));

/** Whose the rows of a table are. */
const ownerOf = (table: string): Owner => {
  const found = OWNERS.get(table);
  if (!found) throw new Error(`there is no table ${table}`);
  return found;
};

/** Names of all tables of the program. */
export const tables = (): string[] => [...OWNERS.keys()];

/** The tenants of the call; read once in a statement. */
const BOUND = `(select current_setting('${TENANTS_SETTING}', true)::text[])::text[]`;

/** SQL that a row of the table must meet. */
const condition = (table: string, to: 'read' | 'write'): string => {
  const owner = ownerOf(table);
  switch (owner.of) {
    case 'tenant': {
      const own = `${table}.${owner.column} = any (${BOUND})`;
      return owner.null && to === 'read' ? `(${own} or ${table}.${owner.column} is null)` : own;
    }
    case 'parent': {
      const { column, parent } = owner;
      return `exists (select from ${parent} where ${parent}.id = ${table}.${column} and ${condition(parent, to)})`;
    }
    case 'everybody':
      return to === 'read' ? 'true' : 'false';
    default:
      return 'false';
  }
};

/** Name of the policy for everybody else who has rights on a table. */
const OTHERS = 'policy_sidecar_others';
const OURS = ['select', 'insert', 'update', 'delete'].map((command) => `policy_sidecar_tenants_${command}`);

/** SQL that lets bound callers at their rows of a table alone, and everybody else at all of them. */
const policiesOf = (table: string, others: readonly string[]): string[] => {
  const { of } = ownerOf(table);
  const read = condition(table, 'read');
  const write = condition(table, 'write');
  const to = `to ${TENANTS_ROLE}`;
  return [
    `revoke all on ${table} from ${TENANTS_ROLE}`,
    ...[...OURS, OTHERS].map((name) => `drop policy if exists ${name} on ${table}`),
    ...(of === 'nobody'
      ? []
      : [`grant ${of === 'everybody' ? 'select' : SERVING.get(table)!.join(', ')} on ${table} ${to}`]),
    `create policy ${OURS[0]} on ${table} for select ${to} using (${read})`,
    `create policy ${OURS[1]} on ${table} for insert ${to} with check (${write})`,
    `create policy ${OURS[2]} on ${table} for update ${to} using (${write}) with check (${write})`,
    `create policy ${OURS[3]} on ${table} for delete ${to} using (${write})`,
    ...(others.length > 0
      ? [`create policy ${OTHERS} on ${table} to ${others.join(', ')} using (true) with check (true)`]
      : []),
    `alter table ${table} enable row level security`,
  ];
};

/** Roles with rights on tables that they do not own, and policies that others have made. */
const FOUND = `select nspname || '.' || relname as name,
    array(select distinct coalesce(quote_ident(rolname), 'public') from aclexplode(relacl) left join pg_roles r on r.oid = grantee
      where grantee <> relowner and rolname is distinct from '${TENANTS_ROLE}') as others,
    array(select polname::text from pg_policy where polrelid = c.oid and polname <> all ($2::text[])) as foreign_policies
  from pg_class c join pg_namespace n on n.oid = relnamespace where nspname || '.' || relname = any ($1::text[])`;

/** Something that keeps tenants from being told apart; the message is one line for the user. */
export class TenantsError extends Error {}

/** Tables that are there, and who else has rights on them. */
const rightsOn = async ({ rows }: Tx, names: readonly string[]): Promise<{ name: string; others: string[] }[]> => {
  const found = await rows(
    `select array_to_json(others) as others, array_to_json(foreign_policies) as foreign_policies, name
     from (${FOUND}) as found order by name`,
    [names, [...OURS, OTHERS]],
  );
  return found.map((row) => {
    const name = row.text('name');
    const [policy] = JSON.parse(row.text('foreign_policies')) as string[];
    if (policy !== undefined) throw new TenantsError(`${name} has a policy of its own, ${policy}: drop it first`);
    const others = JSON.parse(row.text('others')) as string[];
    if (others.includes('public'))
      throw new TenantsError(`everybody has rights on ${name}: revoke them from public first`);
    return { name, others };
  });
};

/** The role belongs to the whole server: another database may get it at the same moment. */
const MAKE_ROLE = `do $$ begin
  create role ${TENANTS_ROLE} nologin noinherit;
exception when duplicate_object or unique_violation then null;
end $$`;

/** The role, and what it may do apart from the policies of a table. */
const makeRole = async ({ rows, run }: Tx): Promise<void> => {
  const [role] = await rows(`select from pg_roles where rolname = '${TENANTS_ROLE}'`);
  if (!role) await run(MAKE_ROLE);
  const schemas = [...new Set(tables().map((table) => table.slice(0, table.indexOf('.'))))];
  await run(`grant usage on schema ${schemas.join(', ')} to ${TENANTS_ROLE}`);
  const sequences = await rows(sequencesOf('$1'), [tables()]);
  for (const row of sequences) await run(`grant usage on sequence ${row.text('name')} to ${TENANTS_ROLE}`);
};

/**
 * Makes the role of bound callers, its rights and the policies, table by table, each held for moments: until its turn comes
 * a table is as it was, and bound callers may do less in it than they will. What is interrupted is finished by the next call.
 *
 * @throws TenantsError, with nothing changed, where a table has rights or policies that stand in the way; BlockedError where
 *   somebody holds one for long.
 */
export const migrateTenants = (
  url: string,
  { say = () => {}, tuning = {} }: { readonly say?: Say; readonly tuning?: Partial<Tuning> } = {},
): Promise<void> =>
  withTurn(url, { say, tuning: { ...TUNING, ...tuning } }, async (migrating) => {
    const found = await migrating.look((tx) => rightsOn(tx, tables()));
    await migrating.short(TENANTS_ROLE, makeRole);
    for (const { name } of found) {
      const owner = ownerOf(name);
      await migrating.short(name, async (tx) => {
        if (owner.of === 'sidecar') {
          await tx.run(`grant ${owner.rights.join(', ')} on ${name} to ${TENANTS_ROLE}`);
          return;
        }
        await tx.run(`lock table only ${name} in access exclusive mode`);
        for (const { others } of await rightsOn(tx, [name])) await tx.run(policiesOf(name, others).join(';\n'));
      });
    }
  });

/** Tables on which the policies are not in place, and whether the role can be taken. */
export const tenantsStatus = (url: string): Promise<{ readonly role: boolean; readonly lacking: readonly string[] }> =>
  withClient(url, async (client) => {
    const guarded = tables().filter((table) => ownerOf(table).of !== 'sidecar');
    const { rows } = txOf(client);
    const lacking = await rows(
      `select nspname || '.' || relname as name from pg_class c join pg_namespace n on n.oid = relnamespace
       where nspname || '.' || relname = any ($1::text[]) and not (relrowsecurity and
         4 = (select count(*) from pg_policy where polrelid = c.oid and polname = any ($2::text[])))`,
      [guarded, OURS],
    );
    const [role] = await rows(
      `select pg_has_role(oid, case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end) as member from pg_roles where rolname = '${TENANTS_ROLE}'`,
    );
    return { role: role?.flag('member') ?? false, lacking: lacking.map((row) => row.text('name')) };
  });

/** Tables whose rows the role that looks does not see, since row security is on and no policy is for it. */
export const hiddenTables = (url: string): Promise<readonly string[]> =>
  withClient(url, async (client) => {
    const found = await txOf(client).rows(
      `select nspname || '.' || relname as name from pg_class c join pg_namespace n on n.oid = relnamespace
       where nspname || '.' || relname = any ($1::text[]) and row_security_active(c.oid) and not exists (
         select from pg_policy, unnest(polroles) as role where polrelid = c.oid and polpermissive
           and polname <> all ($2::text[]) and (role = 0 or pg_has_role(role, 'usage')))
       order by 1`,
      // A role that may take the one of bound callers is one of those that their policies are for, too.
      [tables(), OURS],
    );
    return found.map((row) => row.text('name'));
  });
