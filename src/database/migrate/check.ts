import type { Step } from '../../../migrations/canonical.ts';
import { checksOn, droppable, servingIndex, spelled, triggersOf } from './apply.ts';
import {
  columnsOf,
  constraintsOf,
  findTable,
  indexesOf,
  type LiveTable,
  quote,
  sameConstraint,
  spellIndex,
} from './catalog.ts';
import { type ColumnPlan, countRows, obstaclesOf, planColumns, type Retype } from './column-plan.ts';
import type { Tx } from './turn.ts';
import { viewsOn } from './views.ts';

/** One thing that a migration would stop at, or would change. */
export interface Finding {
  readonly level: 'stop' | 'change';
  /** A table or a column. */
  readonly where: string;
  readonly rows?: number;
  readonly what: string;
  /** What the operator can do about it. */
  readonly remedy?: string;
}

/** One line for a person. */
export const findingText = ({ level, where, rows, what, remedy }: Finding): string =>
  `${level.padEnd(6)}  ${where}${rows === undefined ? '' : `  ${rows} row(s)`}: ${what}${remedy ? `; ${remedy}` : ''}`;

type Look = <T>(task: (tx: Tx) => Promise<T>) => Promise<T>;
type Of<K extends Step['kind']> = Extract<Step, { kind: K }>;

const of = <K extends Step['kind']>(steps: readonly Step[], kind: K): readonly Of<K>[] =>
  steps.filter((step): step is Of<K> => step.kind === kind);

/** Columns that no revision of the platform has; any other that is missing belongs to a revision that has not run yet. */
const OURS_ALONE: Readonly<Record<string, readonly string[]>> = {
  'policy.ethical_constraints': ['applies_to', 'tenant_id'],
  'public.tenants': ['budget_limit_cents', 'budget_period'],
  'public.policy_rules': [
    'actions',
    'priority',
    'is_active',
    'source_type',
    'source_pattern_id',
    'source_recovery_id',
    'source_incident_id',
    'generation_confidence',
    'mode',
    'confirmations_required',
    'confirmations_received',
    'regret_count',
    'shadow_evaluations',
    'shadow_would_block',
    'activated_at',
    'prevention_count',
    'last_prevention_at',
    'is_synthetic',
    'synthetic_scenario_id',
  ],
};

const NEW_TABLES = ['policy.snapshots', 'public.failure_catalog'];

const isOurs = (table: string): boolean => table.startsWith('policy_sidecar.') || NEW_TABLES.includes(table);

/** Documents that jsonb refuses; most that look like one are asked one by one. */
const SUSPECT = String.raw`'\\u0000|\\u[dD][89abAB][0-9a-fA-F]{2}|\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9][eE][+]?[0-9]{4}'`;

const CASTABLE = `create or replace function pg_temp.castable(document json) returns boolean language plpgsql as $$
begin
  perform document::jsonb;
  return true;
exception when others then
  return false;
end $$`;

/** True for a document in which an object, at any depth, names a key twice. */
const REPEATS = `create or replace function pg_temp.repeats(document json) returns boolean language plpgsql as $$
declare
  part json;
begin
  if json_typeof(document) = 'object' then
    if (select count(*) > count(distinct key) from json_each(document)) then return true; end if;
    for part in select value from json_each(document) where json_typeof(value) in ('object', 'array') loop
      if pg_temp.repeats(part) then return true; end if;
    end loop;
  elsif json_typeof(document) = 'array' then
    for part in select value from json_array_elements(document) where json_typeof(value) in ('object', 'array') loop
      if pg_temp.repeats(part) then return true; end if;
    end loop;
  end if;
  return false;
end $$`;

const planOf = (tx: Tx, step: Of<'table'>): Promise<ColumnPlan> => planColumns(tx, step, 0);

const owned = async ({ rows }: Tx, table: LiveTable): Promise<Finding[]> => {
  const [row] = await rows(
    `select pg_has_role(relowner, 'usage') as mine, pg_get_userbyid(relowner) as owner, current_user as me,
       relrowsecurity and not (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)
         and (relforcerowsecurity or not pg_has_role(relowner, 'usage')) as hidden
     from pg_class where oid = $1::oid`,
    [table.oid],
  );
  const found: Finding[] = [];
  if (row!['mine'] !== 't') {
    found.push({
      level: 'stop',
      where: table.name,
      what: `belongs to ${row!['owner']}, and only its owner can change it`,
      remedy: `migrate as a member of ${row!['owner']}: grant ${row!['owner']} to ${row!['me']}`,
    });
  }
  if (row!['hidden'] === 't') {
    found.push({
      level: 'stop',
      where: table.name,
      what: 'row security hides rows from the role that migrates',
      remedy: `alter table ${table.name} no force row security, or migrate as a role with bypassrls`,
    });
  }
  return found;
};

/** Rows whose value has no form in the column's new type. */
const unconvertible = async (tx: Tx, table: LiveTable, { name, from, to }: Retype): Promise<Finding[]> => {
  if (from !== 'json' || to !== 'jsonb') return [];
  await tx.run(CASTABLE);
  const bad = await countRows(
    tx,
    table,
    `${quote(name)} is not null and ${quote(name)}::text ~ ${SUSPECT} and not pg_temp.castable(${quote(name)})`,
  );
  if (bad === 0) return [];
  return [
    {
      level: 'stop',
      where: `${table.name}.${name}`,
      rows: bad,
      what: 'hold a document that jsonb cannot: \\u0000, half a surrogate pair, or a number beyond every limit',
      remedy: `find them with: select * from ${table.name} where ${name}::text ~ ${SUSPECT}; write the escape out of them`,
    },
  ];
};

const tableObstacles = async (tx: Tx, step: Of<'table'>): Promise<Finding[]> => {
  const plan = await planOf(tx, step);
  const { table } = plan;
  if (!table) return [];
  if (table.kind !== 'r') {
    return [{ level: 'stop', where: table.name, what: 'is no ordinary table', remedy: 'rename it out of the way' }];
  }
  const found: Finding[] = [];
  for (const name of plan.impossible) {
    found.push({
      level: 'stop',
      where: `${table.name}.${name}`,
      what: 'is missing, and no value can be made up for the rows that exist',
      remedy: 'add the column and fill it',
    });
  }
  for (const name of plan.required) {
    const rows = await countRows(tx, table, `${quote(name)} is null`);
    if (rows > 0) {
      found.push({
        level: 'stop',
        where: `${table.name}.${name}`,
        rows,
        what: 'hold NULL where none is allowed',
        remedy: 'give them a value',
      });
    }
  }
  for (const retype of plan.retypes) {
    const where = `${table.name}.${retype.name}`;
    for (const text of await obstaclesOf(tx, table, retype)) {
      if (text.includes('zzz_policy_sidecar_adopt')) continue;
      found.push({
        level: 'stop',
        where,
        what: `becomes ${retype.to}, and ${text} depends on it`,
        remedy: 'drop that before, and make it again afterwards',
      });
    }
    found.push(...(await unconvertible(tx, table, retype)));
  }
  const numbers = plan.retypes.map(({ number }) => number);
  for (const view of numbers.length > 0 ? await viewsOn(tx, table.oid, numbers) : []) {
    if (view.ownable) continue;
    found.push({
      level: 'stop',
      where: view.name,
      what: `reads a column of ${table.name} that changes its type, and belongs to ${view.owner}`,
      remedy: `let the role that migrates make it again: grant ${view.owner} to it`,
    });
  }
  return found;
};

/** Columns of a table that SQL names; false when one is not there yet. */
const hasColumns = async (tx: Tx, table: LiveTable, sql: string): Promise<boolean> => {
  const live = new Set((await columnsOf(tx, table.oid)).map(({ name }) => name));
  return sql
    .replace(/'(?:[^']|'')*'/g, '')
    .split(/[^\w]+/)
    .filter((word) => /_|^(id|version|scope|status|source|decision|severity|name|slug|plan)$/.test(word))
    .every((word) => live.has(word));
};

const constraintObstacles = async (tx: Tx, step: Of<'constraint'>): Promise<Finding[]> => {
  const table = await findTable(tx, step.table);
  if (table?.kind !== 'r') return [];
  if (step.type === 'u') return duplicates(tx, table, step.name, step.definition.replace(/^unique /, ''));
  const local = step.type === 'c' ? step.definition : step.definition.replace(/ references .*/, '');
  if (!(await hasColumns(tx, table, local.replace(/^(check|foreign key) /, '')))) return [];
  const wanted = await spelled(tx, table, step);
  if ((await constraintsOf(tx, table.oid)).some(({ definition, valid }) => valid && sameConstraint(definition, wanted)))
    return [];
  if (step.type === 'c') {
    const condition = step.definition.replace(/^check /, '');
    const rows = await countRows(tx, table, `not ${condition}`);
    if (rows === 0) return [];
    return [
      {
        level: 'stop',
        where: table.name,
        rows,
        what: `break ${step.name}: ${condition}`,
        remedy: `find them with: select * from ${table.name} where not ${condition}; give them a value that is allowed`,
      },
    ];
  }
  const [, column, other, key] = /^foreign key \((\w+)\) references (\S+) \((\w+)\)/.exec(step.definition)!;
  if (!(await findTable(tx, other!))) return [];
  const condition = `${column} is not null and not exists (select from ${other} o where o.${key} = ${table.name}.${column})`;
  const rows = await countRows(tx, table, condition);
  if (rows === 0) return [];
  return [
    {
      level: 'stop',
      where: `${table.name}.${column}`,
      rows,
      what: `point to no row of ${other}, which ${step.name} demands`,
      remedy: `find them with: select * from ${table.name} where ${condition}; clear or delete them`,
    },
  ];
};

const duplicates = async (tx: Tx, table: LiveTable, name: string, tail: string): Promise<Finding[]> => {
  if (!(await hasColumns(tx, table, tail.replace(/ where .*/, '')))) return [];
  const body = await spellIndex(tx, table.name, tail);
  if (servingIndex(await indexesOf(tx, table.oid), body, true)) return [];
  const [, columns, condition] = /^\((.*?)\)(?: where (.*))?$/.exec(tail)!;
  const [found] = await tx.rows(
    `select coalesce(sum(count), 0) as count from (select count(*) as count from ${table.name}
      where ${condition ?? 'true'} and (${columns}) is not null group by ${columns} having count(*) > 1) as repeated`,
  );
  const rows = Number(found!['count']);
  if (rows === 0) return [];
  return [
    {
      level: 'stop',
      where: table.name,
      rows,
      what: `share their (${columns})${condition ? ` where ${condition}` : ''}, which ${name} does not allow`,
      remedy: `find them with: select ${columns}, count(*) from ${table.name}${condition ? ` where ${condition}` : ''} group by ${columns} having count(*) > 1`,
    },
  ];
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
    .filter(({ refused }) => refused === 't')
    .map(({ name, me, database, missing }) => ({
      level: 'stop' as const,
      where: `schema ${name}`,
      what: missing === 't' ? `is missing, and ${me} may not make it` : `${me} may make nothing in it`,
      remedy:
        missing === 't'
          ? `grant create on database ${database} to ${me}`
          : `grant usage, create on schema ${name} to ${me}`,
    }));
};

/** A platform's own chain of migrations, where it stands before what is expected of it. */
const platform = async (tx: Tx, steps: readonly Step[]): Promise<Finding[]> => {
  const chains = await tx.rows(
    `select format('%I.%I', nspname, relname) as name from pg_class c join pg_namespace n on n.oid = relnamespace
     where relname = 'alembic_version' and relkind = 'r' and has_table_privilege(c.oid, 'select') order by 1`,
  );
  for (const { name } of chains) {
    const [row] = await tx.rows(`select string_agg(version_num, ', ') as revision from ${name}`);
    if (!row!['revision']) continue;
    const missing: string[] = [];
    for (const step of of(steps, 'table')) {
      const { table, additions } = await planOf(tx, step);
      if (!table && !isOurs(step.table)) missing.push(step.table);
      const later = additions.filter((column) => !OURS_ALONE[step.table]?.includes(column.name));
      missing.push(...(table ? later.map((column) => `${step.table}.${column.name}`) : []));
    }
    if (missing.length === 0) return [];
    return [
      {
        level: 'stop',
        where: name!,
        what: `the platform's own migrations stand at ${row!['revision']}, before those that make ${missing.join(', ')}: they could not follow`,
        remedy: 'bring them to their newest revision first',
      },
    ];
  }
  return [];
};

/** Rights that the role lacks; without them there is nothing more to see. */
const missingRights = async (look: Look, steps: readonly Step[]): Promise<Finding[]> => {
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

/** What would stop the steps. */
export const obstacles = async (look: Look, steps: readonly Step[]): Promise<Finding[]> => {
  const denied = await missingRights(look, steps);
  if (denied.length > 0) return denied;
  const found = await look((tx) => platform(tx, steps));
  for (const step of of(steps, 'table')) found.push(...(await look((tx) => tableObstacles(tx, step))));
  // A rule can only be asked of rows once the columns are what it speaks of.
  for (const step of of(steps, 'constraint')) found.push(...(await look((tx) => constraintObstacles(tx, step))));
  for (const step of of(steps, 'index').filter(({ unique }) => unique)) {
    found.push(
      ...(await look(async (tx) => {
        const table = await findTable(tx, step.table);
        return table?.kind === 'r' ? duplicates(tx, table, step.name, step.tail) : [];
      })),
    );
  }
  return unique(found);
};

const unique = (findings: readonly Finding[]): Finding[] => [
  ...new Map(findings.map((finding) => [findingText(finding), finding])).values(),
];

const UTC = /^(Etc\/)?(UTC|GMT|UCT|Zulu|Universal|Greenwich)$/i;

const retypeOutlook = async (tx: Tx, table: LiveTable, retype: Retype): Promise<Finding[]> => {
  const { name, from, to } = retype;
  const where = `${table.name}.${name}`;
  const rows = await countRows(tx, table, `${quote(name)} is not null`);
  const how = retype.free
    ? 'in the catalog alone'
    : retype.beside
      ? 'in batches, beside readers and writers'
      : table.bytes > 0
        ? 'while the table is held, for a moment'
        : 'at once';
  const found: Finding[] = [{ level: 'change', where, rows, what: `${from} becomes ${to}, ${how}` }];
  if (from === 'timestamp without time zone') {
    const [zone] = await tx.rows(`select reset_val as name from pg_settings where name = 'TimeZone'`);
    if (!UTC.test(zone!['name']!) && rows > 0) {
      found.push({
        level: 'change',
        where,
        rows,
        what: `are read as UTC, and this database's TimeZone is ${zone!['name']}`,
        remedy: `if they were written in that zone, first: update ${table.name} set ${name} = ${name} at time zone '${zone!['name']}' at time zone 'UTC'`,
      });
    }
  }
  if (from === 'json') {
    await tx.run(CASTABLE);
    await tx.run(REPEATS);
    const repeated = await countRows(
      tx,
      table,
      `case when ${quote(name)} is null or (${quote(name)}::text ~ ${SUSPECT} and not pg_temp.castable(${quote(name)})) then false
        when length(translate(${quote(name)}::text, E' \\n\\t\\r', '')) <= length(translate(${quote(name)}::jsonb::text, ' ', '')) then false
        else pg_temp.repeats(${quote(name)}) end`,
    );
    if (repeated > 0) {
      found.push({
        level: 'change',
        where,
        rows: repeated,
        what: 'name a key more than once: the last one stays, as every reader of JSON takes it',
        remedy: `if the others matter, keep a copy of ${table.name} first`,
      });
    }
  }
  return found;
};

const tableOutlook = async (tx: Tx, step: Of<'table'>, smallBytes: number): Promise<Finding[]> => {
  const { table, additions, retypes, changes } = await planColumns(tx, step, smallBytes);
  if (!table) return [{ level: 'change', where: step.table, what: 'is made' }];
  if (table.kind !== 'r') return [];
  const found: Finding[] = [];
  for (const { name } of additions) {
    found.push({ level: 'change', where: `${table.name}.${name}`, what: 'is added' });
  }
  for (const each of retypes) found.push(...(await retypeOutlook(tx, table, each)));
  for (const change of changes) {
    const [, name, what] = /^alter column "(.*?)" (.*)$/.exec(change)!;
    found.push({ level: 'change', where: `${table.name}.${name}`, what: what! });
  }
  const numbers = retypes.map(({ number }) => number);
  for (const view of numbers.length > 0 ? await viewsOn(tx, table.oid, numbers) : []) {
    found.push({ level: 'change', where: view.name, what: `is made again as it is, since it reads ${table.name}` });
  }
  return found;
};

const objectOutlook = async (tx: Tx, step: Step): Promise<Finding[]> => {
  if (step.kind === 'dropIndex') {
    const there = await droppable(tx, step.name);
    return there
      ? [{ level: 'change', where: there.table, what: `index ${step.name} goes (DIFFERENCES.md says why)` }]
      : [];
  }
  if (!('table' in step) || step.kind === 'table') return [];
  const table = await findTable(tx, step.table);
  if (table?.kind !== 'r') return [];
  const change = (what: string, rows?: number): Finding[] => [
    { level: 'change', where: table.name, what, ...(rows === undefined ? {} : { rows }) },
  ];
  switch (step.kind) {
    case 'index': {
      if (!(await hasColumns(tx, table, step.tail.replace(/ where .*|collate "C"|using \w+/g, '')))) {
        return change(`index ${step.name} is built`);
      }
      const body = await spellIndex(tx, table.name, step.tail);
      if (servingIndex(await indexesOf(tx, table.oid), body, step.unique)) return [];
      return change(`index ${step.name} is built beside readers and writers`, await countRows(tx, table, 'true'));
    }
    case 'constraint': {
      const local = step.definition.replace(/ references .*/, '').replace(/^(check|foreign key|unique) /, '');
      if (!(await hasColumns(tx, table, local))) return change(`constraint ${step.name} is added`);
      const wanted = await spelled(tx, table, step);
      const equal = (await constraintsOf(tx, table.oid)).some(({ definition }) => sameConstraint(definition, wanted));
      return equal ? [] : change(`constraint ${step.name} is added, then checked`, await countRows(tx, table, 'true'));
    }
    case 'dropTrigger': {
      const there = await triggersOf(tx, step.table, { name: step.name });
      return there.length > 0 ? change(`trigger ${step.name} goes`) : [];
    }
    case 'trigger': {
      const there = await triggersOf(tx, step.table, { name: step.name, mention: step.replaces });
      return change(`trigger ${step.name} is made${there.map(({ name }) => `, in the place of ${name}`).join('')}`);
    }
    case 'dropChecks': {
      const there = await checksOn(tx, step);
      return there.flatMap((name) => change(`CHECK ${name} goes`));
    }
  }
};

/** What the steps would change. */
export const outlook = async (look: Look, steps: readonly Step[], smallBytes: number): Promise<Finding[]> => {
  if ((await missingRights(look, steps)).length > 0) return [];
  const found: Finding[] = [];
  for (const step of steps) {
    found.push(
      ...(await look((tx) => (step.kind === 'table' ? tableOutlook(tx, step, smallBytes) : objectOutlook(tx, step)))),
    );
  }
  return unique(found);
};
