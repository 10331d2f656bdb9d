import type { Step } from '../../../migrations/canonical.ts';
import { findTable, type LiveTable } from './catalog.ts';
import { type Finding, type Look, of, unique } from './findings.ts';
import type { Tx } from './look.ts';

const owned = async ({ row: look }: Tx, table: LiveTable): Promise<Finding[]> => {
  const row = await look(
    `select pg_has_role(relowner, 'usage') as mine, pg_get_userbyid(relowner) as owner, current_user as me,
       relrowsecurity and not (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)
         and (relforcerowsecurity or not pg_has_role(relowner, 'usage')) as hidden
     from pg_class where oid = $1::oid`,
    [table.oid],
  );
  const found: Finding[] = [];
  if (!row.flag('mine')) {
    found.push({
      level: 'stop',
      where: table.name,
      what: `belongs to ${row.text('owner')}, and only its owner can change it`,
      remedy: `migrate as a member of ${row.text('owner')}: grant ${row.text('owner')} to ${row.text('me')}`,
    });
  }
  if (row.flag('hidden')) {
    found.push({
      level: 'stop',
      where: table.name,
      what: 'row security hides rows from the role that migrates',
      remedy: `alter table ${table.name} no force row security, or migrate as a role with bypassrls`,
    });
  }
  return found;
};

/** What the role that migrates may not do. */
const rights = async ({ rows }: Tx, steps: readonly Step[]): Promise<Finding[]> => {
  const schemas = [...new Set([...of(steps, 'schema').map(({ name }) => name), 'policy_sidecar', 'public'])];
  const found = await rows(
    `select name, current_user as me, current_database() as database,
       case when to_regnamespace(name) is null then not has_database_privilege(current_database(), 'create')
            else not has_schema_privilege(name, 'create') end as refused,
       to_regnamespace(name) is null as missing from unnest($1::text[]) as name order by 1`,
    [schemas],
  );
  return found
    .filter((row) => row.flag('refused'))
    .map((row): Finding => {
      const [name, me] = [row.text('name'), row.text('me')];
      const [where, level] = [`schema ${name}`, 'stop' as const];
      return row.flag('missing')
        ? {
            level,
            where,
            what: `is missing, and ${me} may not make it`,
            remedy: `grant create on database ${row.text('database')} to ${me}`,
          }
        : {
            level,
            where,
            what: `${me} may make nothing in it`,
            remedy: `grant usage, create on schema ${name} to ${me}`,
          };
    });
};

/** Rights that the role lacks; without them there is nothing more to see. */
export const missingRights = async (look: Look, steps: readonly Step[]): Promise<Finding[]> => {
  const found = await look((tx) => rights(tx, steps));
  for (const step of of(steps, 'table')) {
    found.push(
      ...(await look(async (tx) => {
        const table = await findTable(tx, step.table);
        return table ? owned(tx, table) : [];
      })),
    );
  }
  return unique(found);
};
