/** What serving does to the rows of a table beside reading them. */
export type Change = 'insert' | 'update' | 'delete';

/** A right on a table. */
export type Right = 'select' | Change;

/** Whose the rows of a table are: which of them a caller sees, and writes, who is bound to tenants. `N` are its columns. */
export type Owner<N extends string = string> =
  /** Of the tenant that a column names. `null` is whose a row without one is: nobody's, or everybody's to read. */
  | { readonly of: 'tenant'; readonly column: N; readonly null?: 'everybody' }
  /** Of whose the row is that a column refers to, by the `id` of another table. */
  | { readonly of: 'parent'; readonly column: N; readonly parent: `${string}.${string}` }
  /** Of everybody to read, and of nobody to write. */
  | { readonly of: 'everybody' }
  /** Of no tenant. */
  | { readonly of: 'nobody' }
  /** The sidecar's own, reached by caller or id alone: with these rights. */
  | { readonly of: 'sidecar'; readonly rights: readonly Right[] };

export const TENANT = { of: 'tenant', column: 'tenant_id' } as const;
export const TENANT_OR_EVERYBODY = { ...TENANT, null: 'everybody' } as const;
export const EVERYBODY = { of: 'everybody' } as const;
export const NOBODY = { of: 'nobody' } as const;
