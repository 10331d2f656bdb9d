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
  // Once the events are not the original's, neither is what a later run finds.
  const alike = original === 'succeeds' && !world.contentOf(EVENTS);
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
    world.expectContent(WINDOWS, [...untouched, ...written], alike ? withoutTenants : null);
    world.track(WINDOWS, [...untouched, ...written]);
  }
  // Which events go is the same in both; where the original fails, none do.
  const left = events.filter((event) => !due.includes(event));
  if (!alike) world.expectContent(EVENTS, left);
  world.track(EVENTS, left);
  return due.length;
};

const occurred = (event: GoldenRow): bigint => (event['occurred_at'] as Instant).micros;

/** Whether this event comes before that one where the newest come first. */
const isNewer = (left: GoldenRow, right: GoldenRow): boolean =>
  occurred(left) === occurred(right) ? String(left['id']) > String(right['id']) : occurred(left) > occurred(right);

/** Whether ours deletes an event, among all of them. */
const isDeleted = (method: string, args: GoldenRow, now: bigint) => {
  const [given] = Object.values(args);
  if (method === 'delete_old_temporal_events') {
    return (event: GoldenRow): boolean => occurred(event) < now - BigInt(String(given)) * HOUR;
  }
  return (event: GoldenRow, events: readonly GoldenRow[]): boolean =>
    given !== null &&
    events.filter((other) => other['policy_id'] === event['policy_id'] && isNewer(other, event)).length >=
      Number(given);
};

/**
 * Follows a deletion of events that ours has carried out.
 *
 * @returns how many events go.
 */
export const remove = async (world: World, method: string, args: GoldenRow): Promise<number> => {
  const events = await world.rows(EVENTS);
  const isGone = isDeleted(method, args, await world.now());
  const left = events.filter((event) => !isGone(event, events));
  if (world.contentOf(EVENTS)) world.expectContent(EVENTS, left);
  world.track(EVENTS, left);
  return events.length - left.length;
};

/** The sum over a window of the events that ours has left. */
const summed = async (world: World, args: GoldenRow): Promise<number> => {
  const cutoff = (await world.now()) - BigInt(String(args['window_seconds'])) * 1_000_000n;
  const id = String(args['policy_id']).replace(/[{}]/g, '').toLowerCase();
  const counted = world.contentOf(EVENTS)!.filter((event) => event['policy_id'] === id && occurred(event) > cutoff);
  return sum(counted, 'value');
};

/** What is answered once ours has compacted where the original has not: counts and sums; other answers as they are. */
export const answeredAfterwards = async (
  world: World,
  method: string,
  args: GoldenRow,
  expected: Golden,
): Promise<Golden> => {
  if (method === 'fetch_temporal_metric_sum' && world.contentOf(EVENTS)) return summed(world, args);
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
