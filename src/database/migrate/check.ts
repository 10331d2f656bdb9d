import type { Step } from '../../../migrations/canonical.ts';
import { ENCODE, NO_ENCODING } from '../session-settings.ts';
import { constraintsOf, findTable, indexesOf, type LiveTable, quote, sameConstraint, spellIndex } from './catalog.ts';
import { type ColumnPlan, countRows, obstaclesOf, planColumns, type Retype } from './column-plan.ts';
import { CASTABLE, type Finding, hasColumns, type Look, of, SUSPECT, unconvertible, unique } from './findings.ts';
import { type Of, servingIndex, spelled } from './live-objects.ts';
import type { Tx } from './look.ts';
import { missingRights } from './missing-rights.ts';
import { viewsOn } from './views.ts';

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

const planOf = (tx: Tx, step: Of<'table'>): Promise<ColumnPlan> => planColumns(tx, step, 0);

/** Rows whose value has no form in the column's new type. */
const documents = async (tx: Tx, table: LiveTable, retype: Retype): Promise<Finding[]> => {
  const { name, from, to } = retype;
  if (from !== 'json' || to !== 'jsonb') return [];
  await tx.run(CASTABLE);
  const bad = await countRows(
    tx,
    table,
    `${quote(name)} is not null and ${quote(name)}::text ~ ${SUSPECT} and not pg_temp.castable(${quote(name)})`,
  );
  return bad === 0 ? [] : [unconvertible(table, retype, bad)];
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
    found.push(...(await documents(tx, table, retype)));
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
  const found = await tx.row(
    `select coalesce(sum(count), 0) as count from (select count(*) as count from ${table.name}
      where ${condition ?? 'true'} and (${columns}) is not null group by ${columns} having count(*) > 1) as repeated`,
  );
  const rows = found.number('count');
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

/** A platform's own chain of migrations, where it stands before what is expected of it. */
const platform = async (tx: Tx, steps: readonly Step[]): Promise<Finding[]> => {
  const chains = await tx.rows(
    `select format('%I.%I', nspname, relname) as name from pg_class c join pg_namespace n on n.oid = relnamespace
     where relname = 'alembic_version' and relkind = 'r' and has_table_privilege(c.oid, 'select') order by 1`,
  );
  for (const chain of chains) {
    const name = chain.text('name');
    const row = await tx.row(`select string_agg(version_num, ', ') as revision from ${name}`);
    const revision = row.maybe('revision');
    if (!revision) continue;
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
        where: name,
        what: `the platform's own migrations stand at ${revision}, before those that make ${missing.join(', ')}: they could not follow`,
        remedy: 'bring them to their newest revision first',
      },
    ];
  }
  return [];
};

const encoding = async ({ row: look }: Tx): Promise<Finding[]> => {
  const row = await look(`select current_setting('server_encoding') as encoding, current_database() as name`);
  if (row.text('encoding') !== NO_ENCODING) return [];
  const what = `has the encoding ${NO_ENCODING}, and texts in it need be no UTF-8`;
  return [{ level: 'stop', where: `database ${row.text('name')}`, what, remedy: ENCODE }];
};

/** What would stop the steps. */
export const obstacles = async (look: Look, steps: readonly Step[]): Promise<Finding[]> => {
  const denied = await missingRights(look, steps);
  if (denied.length > 0) return denied;
  const found = [...(await look(encoding)), ...(await look((tx) => platform(tx, steps)))];
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
