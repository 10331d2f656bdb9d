import pg from 'pg';

export const DATABASE = 'policy_sidecar';
/** Owns the database and what is in it; no superuser. */
export const ROLE = 'policy_sidecar';
export const SUPERUSER = 'postgres';

export const withClient = async <T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  client.on('error', () => {});
  try {
    await client.connect();
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
};

/** The server's own role gets what the superuser had when it was the only one, in folders from before. */
const TAKE_OVER = `do $$
declare command text;
begin
  for command in
    with own as (select oid from pg_roles where rolname = '${SUPERUSER}'),
    spaces as (
      select oid, nspname, nspowner from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
    ),
    bound as (select classid, objid from pg_depend where deptype in ('a', 'e', 'i'))
    select format('alter schema %I owner to ${ROLE}', nspname)
    from spaces join own on nspowner = own.oid where nspname <> 'public'
    union all
    select format('alter %s %s owner to ${ROLE}',
      case relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
        when 'f' then 'foreign table' when 'c' then 'type' else 'table' end, c.oid::regclass)
    from pg_class c join own on relowner = own.oid join spaces s on s.oid = relnamespace
    where relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
      and not exists (select from bound where classid = 'pg_class'::regclass and objid = c.oid
        and (relkind = 'S' or exists (select from pg_depend d
          where d.classid = bound.classid and d.objid = bound.objid and d.deptype = 'e')))
    union all
    select format('alter routine %s owner to ${ROLE}', p.oid::regprocedure)
    from pg_proc p join own on proowner = own.oid join spaces s on s.oid = pronamespace
    where not exists (select from bound where classid = 'pg_proc'::regclass and objid = p.oid)
    union all
    select format('alter type %s owner to ${ROLE}', t.oid::regtype)
    from pg_type t join own on typowner = own.oid join spaces s on s.oid = typnamespace
    where typtype in ('d', 'e', 'r')
      and not exists (select from bound where classid = 'pg_type'::regclass and objid = t.oid)
  loop
    execute command;
  end loop;
  alter database ${DATABASE} owner to ${ROLE};
end $$`;

/** Makes the role and its database where they are missing; what is there already and belongs to the superuser is handed over. */
export const prepare = async (urlOf: (user: string, database: string) => string, password: string): Promise<void> => {
  const owner = await withClient(urlOf(SUPERUSER, 'postgres'), async (client) => {
    const { rowCount } = await client.query(`select from pg_roles where rolname = '${ROLE}'`);
    if (rowCount === 0) {
      await client.query(`create role ${ROLE} login password ${client.escapeLiteral(password)}`);
    }
    const { rows } = await client.query(
      `select pg_get_userbyid(datdba) as owner from pg_database where datname = '${DATABASE}'`,
    );
    if (rows.length === 0) await client.query(`create database ${DATABASE} owner ${ROLE}`);
    return rows[0]?.owner;
  });
  if (owner === SUPERUSER) {
    await withClient(urlOf(SUPERUSER, DATABASE), (client) => client.query(TAKE_OVER));
  }
};
