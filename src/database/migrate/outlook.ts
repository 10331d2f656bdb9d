import type { Step } from '../../../migrations/canonical.ts';
import { constraintsOf, findTable, indexesOf, type LiveTable, quote, sameConstraint, spellIndex } from './catalog.ts';
import { countRows, planColumns, type Retype } from './column-plan.ts';
import { CASTABLE, type Finding, hasColumns, type Look, REPEATS, SUSPECT, unique } from './findings.ts';
import { checksOn, droppable, type Of, servingIndex, spelled, triggersOf } from './live-objects.ts';
import type { Tx } from './look.ts';
import { missingRights } from './missing-rights.ts';
import { viewsOn } from './views.ts';

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
    const zone = (await tx.row(`select reset_val as name from pg_settings where name = 'TimeZone'`)).text('name');
    if (!UTC.test(zone) && rows > 0) {
      found.push({
        level: 'change',
        where,
        rows,
        what: `are read as UTC, and this database's TimeZone is ${zone}`,
        remedy: `if they were written in that zone, first: update ${table.name} set ${name} = ${name} at time zone '${zone}' at time zone 'UTC'`,
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
    const [, name, what = change] = /^alter column "(.*?)" (.*)$/.exec(change) ?? [];
    found.push({ level: 'change', where: `${table.name}.${name}`, what });
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
