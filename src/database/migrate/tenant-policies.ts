import { entities } from '../../entities/all.ts';
import { TENANTS_ROLE, TENANTS_SETTING } from '../tenants.ts';
import { txOf, withClient } from './look.ts';

/** Whose the rows of a table are. */
export type Ownership =
  /** Of the tenant that a column names. `null` is whose a row without one is: nobody's, or everybody's to read. */
  | { readonly of: 'tenant'; readonly column: string; readonly null?: 'everybody' }
  /** Of whose the rows are that it refers to, all of them: column, and table with key. */
  | { readonly of: 'parent'; readonly parents: readonly (readonly [column: string, table: string, key: string])[] }
  /** Of everybody to read, and of nobody to write. */
  | { readonly of: 'everybody' }
  /** Of no tenant. */
  | { readonly of: 'nobody' }
  /** The sidecar's own, reached by caller or id alone: with these rights. */
  | { readonly of: 'sidecar'; readonly rights: string };

const named = { of: 'tenant', column: 'tenant_id' } as const;
const configured = { ...named, null: 'everybody' } as const;
const parent = (column: string, table: string): Ownership => ({ of: 'parent', parents: [[column, table, 'id']] });
const everybody = { of: 'everybody' } as const;
const nobody = { of: 'nobody' } as const;

/** Every table, and whose its rows are. */
export const OWNERSHIP: Readonly<Record<string, Ownership>> = {
  'm10_recovery.suggestion_action': everybody,
  'm10_recovery.suggestion_input': parent('suggestion_id', 'public.recovery_candidates'),
  'm10_recovery.suggestion_provenance': parent('suggestion_id', 'public.recovery_candidates'),
  'm10_recovery.work_queue': parent('candidate_id', 'public.recovery_candidates'),
  'policy.business_rules': configured,
  'policy.ethical_constraints': configured,
  'policy.evaluations': named,
  'policy.policies': configured,
  'policy.policy_conflicts': nobody,
  'policy.policy_dependencies': nobody,
  'policy.policy_provenance': nobody,
  'policy.policy_versions': nobody,
  'policy.risk_ceilings': configured,
  'policy.safety_rules': configured,
  'policy.snapshots': named,
  'policy.temporal_metric_events': named,
  'policy.temporal_metric_windows': named,
  'policy.temporal_policies': configured,
  'policy.violations': named,
  'policy_sidecar.outcomes': { of: 'sidecar', rights: 'insert' },
  'policy_sidecar.pruned_until': nobody,
  'policy_sidecar.requests': { of: 'sidecar', rights: 'select, insert' },
  'policy_sidecar.secrets': nobody,
  'public.default_guardrails': everybody,
  'public.failure_catalog': everybody,
  'public.failure_matches': named,
  'public.limit_integrity': parent('limit_id', 'public.limits'),
  'public.limits': named,
  'public.pattern_feedback': named,
  'public.policy_enforcements': named,
  'public.policy_precedence': named,
  'public.policy_proposals': named,
  'public.policy_rule_integrity': parent('rule_id', 'public.policy_rules'),
  'public.policy_rules': named,
  'public.policy_scopes': named,
  'public.policy_versions': parent('proposal_id', 'public.policy_proposals'),
  'public.proxy_calls': named,
  'public.recovery_candidates': parent('failure_match_id', 'public.failure_matches'),
  'public.recovery_candidates_audit': parent('candidate_id', 'public.recovery_candidates'),
  'public.tenants': { of: 'tenant', column: 'id' },
};

/** Whose the rows of a table are. */
const ownershipOf = (table: string): Ownership => {
  const found = OWNERSHIP[table];
  if (!found) throw new Error(`nothing is said of whose the rows of ${table} are`);
  return found;
};

/** Names of all tables of the program. */
export const tables = (): string[] => entities.map(({ meta }) => `${meta.schema ?? 'public'}.${meta.tableName}`);

/** The tenants of the call; read once in a statement. */
const BOUND = `(select current_setting('${TENANTS_SETTING}', true)::text[])::text[]`;

/** SQL that a row of the table must meet. */
const condition = (table: string, to: 'read' | 'write'): string => {
  const ownership = ownershipOf(table);
  switch (ownership.of) {
    case 'tenant': {
      const own = `${table}.${ownership.column} = any (${BOUND})`;
      return ownership.null && to === 'read' ? `(${own} or ${table}.${ownership.column} is null)` : own;
    }
    case 'parent':
      return ownership.parents
        .map(
          ([column, owner, key]) =>
            `exists (select from ${owner} where ${owner}.${key} = ${table}.${column} and ${condition(owner, to)})`,
        )
        .join(' and ');
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
  const { of } = ownershipOf(table);
  const read = condition(table, 'read');
  const write = condition(table, 'write');
  const to = `to ${TENANTS_ROLE}`;
  return [
    `revoke all on ${table} from ${TENANTS_ROLE}`,
    ...[...OURS, OTHERS].map((name) => `drop policy if exists ${name} on ${table}`),
    ...(of === 'nobody'
      ? []
      : [`grant select${of === 'everybody' ? '' : ', insert, update, delete'} on ${table} ${to}`]),
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

/** Makes the role of bound callers, its rights and the policies, all or nothing; may be run again. */
export const migrateTenants = (url: string): Promise<void> =>
  withClient(url, async (client) => {
    const { rows, run } = txOf(client);
    await run('begin');
    const found = await rows(
      `select array_to_json(others) as others, array_to_json(foreign_policies) as foreign_policies, name
       from (${FOUND}) as found`,
      [tables(), [...OURS, OTHERS]],
    );
    const [role] = await rows(`select from pg_roles where rolname = '${TENANTS_ROLE}'`);
    if (!role) await run(`create role ${TENANTS_ROLE} nologin noinherit`);
    const schemas = [...new Set(tables().map((table) => table.slice(0, table.indexOf('.'))))];
    const sql = [`grant usage on schema ${schemas.join(', ')} to ${TENANTS_ROLE}`];
    for (const row of found) {
      const name = row.text('name');
      const ownership = ownershipOf(name);
      const [policy] = JSON.parse(row.text('foreign_policies')) as string[];
      if (policy !== undefined) throw new TenantsError(`${name} has a policy of its own, ${policy}: drop it first`);
      const who = JSON.parse(row.text('others')) as string[];
      if (who.includes('public'))
        throw new TenantsError(`everybody has rights on ${name}: revoke them from public first`);
      if (ownership.of === 'sidecar') sql.push(`grant ${ownership.rights} on ${name} to ${TENANTS_ROLE}`);
      else sql.push(...policiesOf(name, who));
    }
    const sequences = await rows(
      `select d.objid::regclass::text as name from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
         join pg_class c on c.oid = d.refobjid join pg_namespace n on n.oid = c.relnamespace
       where d.classid = 'pg_class'::regclass and d.deptype in ('a', 'i') and nspname || '.' || c.relname = any ($1::text[])`,
      [tables()],
    );
    for (const row of sequences) sql.push(`grant usage on sequence ${row.text('name')} to ${TENANTS_ROLE}`);
    await run(sql.join(';\n'));
    await run('commit');
  });

/** Tables on which the policies are not in place, and whether the role can be taken. */
export const tenantsStatus = (url: string): Promise<{ readonly role: boolean; readonly lacking: readonly string[] }> =>
  withClient(url, async (client) => {
    const guarded = tables().filter((table) => ownershipOf(table).of !== 'sidecar');
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
