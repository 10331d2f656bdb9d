import '../../src/drivers/drivers.ts';
import '../../src/transactions/outcomes.ts';
import { readFileSync, writeFileSync } from 'node:fs';
import { loadModule, parse } from 'libpg-query';
import { declaredStatements, type Statement } from '../../src/database/statement.ts';
import { entities } from '../../src/entities/all.ts';
import { obstacles, type Placement, placementOf } from './placement.ts';
import { mentionsOf } from './statement-tables.ts';

/** A statement. */
type Text = Pick<Statement<unknown>, 'name' | 'text' | 'reads'>;

/** Which nodes a statement is for. */
type Nodes = 'its tenant' | 'any' | 'all' | 'one' | 'none';

interface Route {
  /** Name of the statement; of a list with filters, what all of them begin with. */
  readonly name: string;
  readonly to: Nodes;
  readonly tables: readonly string[];
  /** Why there is none; else empty. */
  readonly why: string;
}

const routeOf = async ({ name, text, reads }: Text): Promise<Route> => {
  const { tables, functions, untied } = mentionsOf(await parse(text));
  const at = (where: Placement['at']): string[] => tables.filter((table) => placementOf(table).at === where);
  const route = (to: Nodes, why = ''): Route => ({ name: name.replace(/\.\d+$/, ''), to, tables, why });
  const inside = functions.filter((each) => !each.startsWith('pg_catalog.'));
  if (inside.length > 0) return route('none', `calls ${inside.join(', ')}, whose body nobody sees`);
  if (at('nowhere').length > 0) return route('none', `no tenant in ${at('nowhere').join(', ')}`);
  if (untied.length > 0) return route('none', `no tenant given for ${untied.join(', ')}`);
  if (at('tenant').length > 0) return route('its tenant');
  if (at('one node').length > 0) return route('one');
  return route(reads || tables.length === 0 ? 'any' : 'all');
};

/** Where statements go. */
export const routes = async (statements: readonly Text[]): Promise<Route[]> => {
  await loadModule();
  return Promise.all(statements.map(routeOf));
};

/** Statements of one name, which differ in the filters that are given. */
const grouped = (routes: readonly Route[]): Map<string, Route[]> => Map.groupBy(routes, ({ name }) => name);

const quoted = (name: string): string => `\`${name}\``;

const rowsOf = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');

const backticked = (text: string): string => text.replace(/\b(?:policy|public|m10_recovery)\.\w+/g, quoted);

/** What `docs/scale.md` says of every table and statement, from `entities` and the statements of the program. */
export const report = async (): Promise<string> => {
  const groups = [...grouped(await routes(declaredStatements()))].sort(([a], [b]) => (a < b ? -1 : 1));
  const count = (to: Nodes): number => groups.filter(([, routes]) => routes.every((route) => route.to === to)).length;
  const some = groups.filter(([, routes]) => new Set(routes.map(({ to }) => to)).size > 1);
  const none = groups.filter(([, routes]) => routes.every(({ to }) => to === 'none'));
  const tables = entities.map(({ meta }) => meta.name!).sort();
  const placed = (at: Placement['at']): string =>
    tables.flatMap((table) => (placementOf(table).at === at ? [quoted(table)] : [])).join(', ');
  return [
    '### Tables',
    rowsOf(
      ['where the rows are', 'tables'],
      [
        ['with their tenant', placed('tenant')],
        ['a copy everywhere', placed('everywhere')],
        ['at one node, as the sidecar’s own', placed('one node')],
        ['nowhere yet: a tenant’s, and no column says whose', placed('nowhere')],
      ],
    ),
    '### Statements',
    rowsOf(
      ['where a statement goes', `statements (of ${groups.length}; a list with optional filters counts once)`],
      [
        ['to the node of its tenant', String(count('its tenant'))],
        ['there, where the tenant is among the filters', String(some.length)],
        ['to any node: a copy is read, or no table', String(count('any'))],
        ['to all nodes: a copy is written', String(count('all'))],
        ['to the one node of the sidecar’s own', String(count('one'))],
        ['nowhere', String(none.length)],
      ],
    ),
    'Those that go to a node only where the tenant is given:',
    some.map(([name]) => quoted(name)).join(', '),
    'Those that go nowhere:',
    rowsOf(
      ['statement', 'why'],
      none.map(([name, [route]]) => [quoted(name), backticked(route!.why)]),
    ),
    '### Keys and references',
    rowsOf(
      ['table', 'its tenant', 'unique without the tenant', 'references without the tenant'],
      obstacles().map(({ table, tenant, keys, references }) => [
        quoted(table),
        tenant,
        keys.join('<br>'),
        references.join('<br>'),
      ]),
    ),
  ].join('\n\n');
};

const PAGE = new URL('../../docs/scale.md', import.meta.url);
const BEGIN = '<!-- written by `npm run routing` -->';
const END = '<!-- end of what it writes -->';

/** The page as it is, and as it would be. */
export const page = async (): Promise<{ readonly found: string; readonly due: string }> => {
  const found = readFileSync(PAGE, 'utf8');
  const before = found.slice(0, found.indexOf(BEGIN) + BEGIN.length);
  return { found, due: `${before}\n\n${await report()}\n\n${found.slice(found.indexOf(END))}` };
};

if (import.meta.main) writeFileSync(PAGE, (await page()).due);
