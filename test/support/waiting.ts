/** Backends that wait for a lock, in the database that is asked alone: the server is everybody's. */
export const WAITING_FOR_LOCK = `select distinct pid from pg_locks join pg_stat_activity using (pid)
  where not granted and datname = current_database()`;
