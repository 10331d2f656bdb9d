import { OWNERS } from '../../src/database/migrate/tenant-policies.ts';
import { entities } from '../../src/entities/all.ts';

/** Where the rows of a table would be on an engine that spreads them over nodes. */
export type Placement =
  /** With its tenant's: by that column. */
  | { readonly at: 'tenant'; readonly column: string }
  /** A copy at every node: read anywhere, written everywhere. */
  | { readonly at: 'everywhere' }
  /** At one node: what the sidecar keeps for itself. */
  | { readonly at: 'one node' }
  /** Nowhere yet: they are a tenant's, and no column says whose. */
  | { readonly at: 'nowhere'; readonly parent: string };

/** Where the rows of a table would be, by whose they are. */
export const placementOf = (table: string): Placement => {
  const owner = OWNERS.get(table);
  if (!owner || table.startsWith('policy_sidecar.')) return { at: 'one node' };
  switch (owner.of) {
    case 'tenant':
      // A row without a tenant is everybody's, and no node's.
      return owner.null ? { at: 'everywhere' } : { at: 'tenant', column: owner.column };
    case 'parent':
      return { at: 'nowhere', parent: owner.parent };
    default:
      return { at: 'everywhere' };
  }
};

/** What keeps a table from its placement. */
export interface Obstacles {
  readonly table: string;
  /** The tenant's column, where it is missing or may be empty. */
  readonly tenant: string;
  /** What is unique among all tenants, which no node can see. */
  readonly keys: readonly string[];
  /** References to rows that may be at another node, as far as anybody can tell. */
  readonly references: readonly string[];
}

interface Column {
  readonly primary?: boolean;
  readonly nullable?: boolean;
  readonly foreignKeyName?: string;
  readonly entity?: () => { readonly meta: { readonly name?: string } };
}

interface Unique {
  readonly name?: string;
  readonly properties?: string | readonly string[];
  readonly expression?: unknown;
}

const uniqueColumns = ({ properties = [], expression }: Unique): readonly string[] =>
  typeof expression === 'string'
    ? [
        ...expression
          .slice(expression.lastIndexOf(' using '))
          .split(' where ')[0]!
          .matchAll(/"(\w+)"/g),
      ].map((m) => m[1]!)
    : [properties].flat();

/** What stands in the way of the placement of all tables. */
export const obstacles = (): Obstacles[] =>
  entities.flatMap(({ meta }): Obstacles[] => {
    const table = meta.name!;
    const placement = placementOf(table);
    if (placement.at === 'one node' || placement.at === 'everywhere') return [];
    const columns = Object.entries(meta.properties as unknown as Readonly<Record<string, Column>>);
    const tenant = placement.at === 'tenant' ? placement.column : 'tenant_id';
    const column = columns.find(([name]) => name === tenant)?.[1];
    const isWith = ({ entity }: Column): boolean => placementOf(entity!().meta.name!).at !== 'everywhere';
    const keys = [
      { name: 'primary key', of: columns.filter(([, { primary }]) => primary).map(([name]) => name) },
      ...(meta.uniques as Unique[]).map((unique) => ({ name: unique.name!, of: uniqueColumns(unique) })),
    ];
    return [
      {
        table,
        tenant: column === undefined ? 'is missing' : column.nullable ? 'may be null' : '',
        keys: keys.filter(({ of }) => !of.includes(tenant)).map(({ name, of }) => `${name} (${of.join(', ')})`),
        references: columns
          .filter(([name, each]) => each.foreignKeyName !== undefined && name !== tenant && isWith(each))
          .map(([, { foreignKeyName }]) => foreignKeyName!),
      },
    ];
  });
