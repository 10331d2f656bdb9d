import { statement } from './statement.ts';

/** Tenants whose rows alone statements see, as PostgreSQL's text of an array. */
export type Bound = string;

/** The role that owns nothing, to which the policies of tenants apply. */
export const TENANTS_ROLE = 'policy_sidecar_tenants';

/** The setting that the policies read. */
export const TENANTS_SETTING = 'policy_sidecar.tenants';

/** What binds statements to these tenants; to none, none of their rows are seen. */
export const boundTo = (tenants: readonly string[]): Bound =>
  `{${tenants.map((tenant) => `"${tenant.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`;

/** Binds the rest of a transaction; there is no way back before it ends. */
export const BIND = statement(
  'connection.bind',
  `select set_config('${TENANTS_SETTING}', $1, true), set_config('role', '${TENANTS_ROLE}', true)`,
);
