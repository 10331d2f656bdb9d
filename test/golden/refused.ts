import { EVENTS, WINDOWS } from './compaction.ts';
import type { Operation } from './operations.ts';
import { type Golden, Instant, isMap } from './values.ts';
import type { GoldenRow, World } from './world.ts';

/** Tables whose rows these writes change, found by the id that is their first argument. */
const CHANGED: Readonly<Record<string, string>> = {
  update_risk_ceiling: 'policy.risk_ceilings',
  update_safety_rule: 'policy.safety_rules',
  update_violation_acknowledged: 'policy.violations',
  resolve_conflict: 'policy.policy_conflicts',
};

/** Writes that make a row. */
const MAKES = /^(insert|upsert|create|add|enqueue)_/;

/** Tables that these writes change throughout. */
const REWRITTEN: Readonly<Record<string, readonly string[]>> = {
  mark_version_rolled_back: ['policy.policy_versions'],
  delete_old_temporal_events: [EVENTS],
  compact_temporal_events: [EVENTS, WINDOWS],
  cap_temporal_events: [EVENTS],
};

const canonical = (id: Golden): string => String(id).replace(/[{}-]/g, '').toLowerCase();

/** Whether what a column holds can come from an argument: a number may have been rounded, and become a text. */
const comesFrom = (held: Golden, given: Golden): boolean => {
  if (held instanceof Instant) return given instanceof Instant && given.micros === held.micros;
  if (typeof held === 'number' && typeof given === 'number') {
    return Object.is(held, given) || Math.abs(held - given) <= 0.5;
  }
  return String(held) === String(given) || typeof held !== 'string' || typeof given === 'object';
};

const isMadeFrom = (row: Golden, called: Operation, args: GoldenRow): boolean => {
  if (Array.isArray(row)) return row.length > 1 && row.every((each) => Object.values(args).includes(each));
  if (!isMap(row)) return false;
  const id = called.method.input.fields[0]?.name ?? '';
  if (/(^|_)id$/.test(id) && 'id' in row && !(id in row))
    return canonical(row['id'] ?? null) === canonical(args[id] ?? null);
  const shared = Object.keys(args).filter((name) => name in row);
  return shared.length > 1 && shared.every((name) => comesFrom(row[name]!, args[name]!));
};

/** Columns that a map of changes names, in whatever way SQL lets it. */
const columnsOf = (changes: Golden | undefined): string[] | undefined =>
  isMap(changes) ? Object.keys(changes).flatMap((key) => key.toLowerCase().match(/[a-z_]+/g) ?? []) : undefined;

/** Says what the tables hold, compared to the original's, once ours has refused a write that it carried out. */
export const expectRefused = async (called: Operation, args: GoldenRow, world: World): Promise<void> => {
  if (called.kind !== 'write') return;
  const rewritten = REWRITTEN[called.name];
  if (rewritten) {
    for (const table of rewritten) world.expectContent(table, await world.rows(table));
    return;
  }
  const table = CHANGED[called.name];
  if (!table) {
    if (!MAKES.test(called.name)) return;
    world.expectUndone((row) => (isMadeFrom(row, called, args) ? undefined : row));
    return;
  }
  const changes = args['updates'];
  const columns = columnsOf(changes);
  const id = canonical((isMap(changes) ? changes['id'] : undefined) ?? Object.values(args)[0] ?? null);
  const former = (await world.rows(table)).find((row) => canonical(row['id']!) === id);
  if (!former) return;
  world.expectUndone((row) => {
    if (!isMap(row) || row['id'] !== former['id']) return row;
    const changed = Object.keys(row).filter((name) => name in former && (columns?.includes(name) ?? true));
    return { ...row, ...Object.fromEntries(changed.map((name) => [name, former[name]!])) };
  });
};
