import type { Bound } from '../database/tenants.ts';
import type { Endpoint } from './endpoint.ts';

/** Whose rows a caller is about: those of the tenants named, or of all. */
export type Tenants = readonly string[] | 'all';

/** What one caller may do. */
export interface Access {
  readonly tenants: Tenants;
  /** The same as statements are bound to it; undefined: to nothing. */
  readonly bound: Bound | undefined;
  /** @throws PERMISSION_DENIED `NOT_ALLOWED` that names what is missing. */
  check(endpoint: Endpoint): void;
}

/** Who may do what. */
export interface Authorization {
  /** What a caller may do now; an unknown one may do nothing. */
  of(caller: string): Access;
  close(): void;
}

const everything: Access = { tenants: 'all', bound: undefined, check: () => {} };

/** Without an authorization file whoever is let in may do everything. */
export const unrestricted: Authorization = { of: () => everything, close: () => {} };
