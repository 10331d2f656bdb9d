import { Generated, type Golden, Instant, isMap } from './values.ts';
import { byColumns, type GoldenRow, type World } from './world.ts';

export const EVENTS = 'policy.temporal_metric_events';
export const WINDOWS = 'policy.temporal_metric_windows';
const HOUR = 3_600_000_000n;

const hourOf = (event: GoldenRow): Instant => {
  const { micros } = event['occurred_at'] as Instant;
  return new Instant(micros - (micros % HOUR));
};

const sum = (rows: readonly GoldenRow[], column: string): number =>
  rows.reduce((total, row) => total + Number(row[column]), 0);

const greatest = (rows: readonly GoldenRow[], column: string): number =>
  Math.max(...rows.map((row) => Number(row[column])));

/**
 * Windows without what ours tells apart and the original does not: the sums per policy, agent and hour must be the
 * original's. Undefined when a dump leaves out columns this needs.
 */
const withoutTenants = (rows: readonly GoldenRow[]): Golden | undefined => {
  const needed = ['policy_id', 'agent_id', 'window_start', 'window_end', 'current_sum', 'current_count', 'current_max'];
  if (rows.some((row) => needed.some((column) => !(column in row)))) return undefined;
  const groups = byColumns(
    rows.map((row) => ({ ...row, agent_id: row['agent_id'] ?? '' })),
    ['policy_id', 'agent_id', 'window_start', 'window_end'],
  );
  return Object.fromEntries(
    [...groups].map(([key, group]) => [
      key,
      [sum(group, 'current_sum'), sum(group, 'current_count'), greatest(group, 'current_max')],
    ]),
  );
};

/**
 * What ours does with the events in range: one window for each policy, agent, tenant and UTC hour, added to the window
 * that exists for exactly those; every event that went into a window is gone, and no other.
 *
 * @returns how many events go.
 */
export const compact = async (
  world: World,
  compactHours: number,
  retentionHours: number,
  original: 'succeeds' | 'fails',
): Promise<number> => {
  const now = await world.now();
  const [newest, oldest] = [now - BigInt(compactHours) * HOUR, now - BigInt(retentionHours) * HOUR];
  const events = await world.rows(EVENTS);
  const due = events.filter((event) => {
    const { micros } = event['occurred_at'] as Instant;
    return micros < newest && micros >= oldest;
  });
  const windows = await world.rows(WINDOWS);
  const owner = ['policy_id', 'agent_id', 'tenant_id', 'window_start'];
  const known = byColumns(windows, owner);
  const groups = byColumns(
    due.map((event) => ({ ...event, window_start: hourOf(event) })),
    owner,
  );
  const untouched = windows.filter((window) => !groups.has([...byColumns([window], owner).keys()][0]!));
  const written = [...groups].map(([key, group]): GoldenRow => {
    const window = known.get(key)?.[0];
    const start = group[0]!['window_start'] as Instant;
    const added = { current_sum: sum(group, 'value'), current_max: greatest(group, 'value') };
    return {
      ...(window ?? {
        id: new Generated('uuid'),
        policy_id: group[0]!['policy_id']!,
        agent_id: group[0]!['agent_id']!,
        tenant_id: group[0]!['tenant_id']!,
        // The key of a new window is opaque.
        window_key: new Generated('size'),
        window_start: start,
        window_end: new Instant(start.micros + HOUR),
      }),
      current_sum: Number(window?.['current_sum'] ?? 0) + added.current_sum,
      current_count: Number(window?.['current_count'] ?? 0) + group.length,
      current_max: window ? Math.max(Number(window['current_max']), added.current_max) : added.current_max,
      updated_at: new Generated('timestamp'),
    };
  });
  if (written.length > 0) {
    world.expectContent(WINDOWS, [...untouched, ...written], original === 'succeeds' ? withoutTenants : null);
  }
  // Which events go is the same in both; where the original fails, none do.
  if (original === 'fails') {
    world.expectContent(
      EVENTS,
      events.filter((event) => !due.includes(event)),
    );
  }
  return due.length;
};

/** The counts that a statistics call answers with once ours has compacted; other answers as they are. */
export const countedAfterwards = (world: World, method: string, expected: Golden): Golden => {
  if (!/^fetch_temporal_(storage_)?stats$/.test(method) || !isMap(expected)) return expected;
  const [events, windows] = [world.contentOf(EVENTS), world.contentOf(WINDOWS)];
  const times = (events ?? [])
    .map((event) => (event['occurred_at'] as Instant).micros)
    .sort((a, b) => (a < b ? -1 : 1));
  const at = (index: number): Golden => (times.length === 0 ? null : new Instant(times.at(index)!));
  const counted: GoldenRow = {
    ...(windows && { window_count: windows.length }),
    ...(events && {
      event_count: events.length,
      oldest_event: at(0),
      newest_event: at(-1),
      policies_with_events: new Set(events.map((event) => event['policy_id'])).size,
    }),
  };
  return Object.fromEntries(Object.entries(expected).map(([name, value]) => [name, counted[name] ?? value]));
};
