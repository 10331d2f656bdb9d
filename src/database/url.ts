import pg from 'pg';

/**
 * Text for a person: which database a connection string means to `pg`, without its password and other parameters.
 *
 * @throws when `pg` can make no sense of it.
 */
export const describeDatabase = (url: string): string => {
  const { user, host, port, database } = new pg.Client({ connectionString: url });
  const at = host.startsWith('/') ? host : `${host.includes(':') ? `[${host}]` : host}:${port}`;
  return `postgresql://${user ? `${user}@` : ''}${at}/${database ?? ''}`;
};
