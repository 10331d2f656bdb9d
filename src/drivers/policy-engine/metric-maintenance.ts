import { between, required } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { columnList, columnsOf, table } from '../../database/table.ts';
import { TemporalMetricEvent } from '../../entities/temporal-metric-event.ts';
import { TemporalMetricWindow } from '../../entities/temporal-metric-window.ts';
import {
  CompactTemporalEventsResponseSchema,
  FetchTemporalStatsResponseSchema,
  FetchTemporalStorageStatsResponseSchema,
  type PolicyEngineService,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, response } from '../../statements/answers.ts';
import { rowsOf } from '../../statements/projection.ts';
import { sumOf } from '../../statements/sums.ts';
import { type Part, read, write } from '../driver.ts';

const events = table(TemporalMetricEvent);
const windows = table(TemporalMetricWindow);
const event = columnsOf(TemporalMetricEvent);
const window = columnsOf(TemporalMetricWindow);

/** Hours whose distance from now every PostgreSQL timestamp can hold, either way. */
const hours = required(between(-50_000_000, 50_000_000));

const hoursAgo = (parameter: string): string => `now() - ${parameter}::bigint * interval '1 hour'`;

// Events are locked in one order everywhere, so that concurrent runs wait for each other instead of deadlocking.
const deleteOld = statement(
  'policy_engine.delete_old_temporal_events',
  `with doomed as materialized (
    select ${event('id')} from ${events} where ${event('occurred_at')} < ${hoursAgo('$1')} order by ${event('id')} for update
  )
  delete from ${events} e using doomed where ${event('id', 'e')} = doomed.id`,
);

const cap = statement(
  'policy_engine.cap_temporal_events',
  `with ranked as (
    select ${event('id')}, row_number() over (
      partition by ${event('policy_id')} order by ${event('occurred_at')} desc, ${event('id')} desc
    ) as place
    from ${events}
  ), doomed as materialized (
    select ${event('id', 'e')} from ${events} e
    where ${event('id', 'e')} in (select id from ranked where place > $1::bigint)
    order by ${event('id', 'e')} for update
  )
  delete from ${events} e using doomed where ${event('id', 'e')} = doomed.id`,
);

/**
 * Key of a window that is new. Tenant and agent go in as a digest of their JSON, which tells NULL from an empty text
 * and one split of two texts from another, and fits the column.
 */
const NEW_KEY = `grouped.policy_id || ':' || extract(epoch from grouped.hour)::bigint || ':' ||
  encode(sha256(convert_to(jsonb_build_array(grouped.tenant_id, grouped.agent_id)::text, 'UTF8')), 'hex')`;

/** Key of the window that exists for the same policy, tenant, agent and hour, whoever wrote it. */
const EXISTING_KEY = `select ${window('window_key', 'w')} from ${windows} w
  where ${window('policy_id', 'w')} = grouped.policy_id
    and ${window('agent_id', 'w')} is not distinct from grouped.agent_id
    and ${window('tenant_id', 'w')} is not distinct from grouped.tenant_id
    and ${window('window_start', 'w')} = grouped.hour
    and ${window('window_end', 'w')} = grouped.hour + interval '1 hour'
  order by ${window('window_key', 'w')} limit 1`;

/** What is aggregated is what the deletion returns: no event can be in one and not in the other. */
const compact = statement(
  'policy_engine.compact_temporal_events',
  `with due as materialized (
    select ${event('id')} from ${events}
    where ${event('occurred_at')} < ${hoursAgo('$1')} and ${event('occurred_at')} >= ${hoursAgo('$2')}
    order by ${event('id')} for update
  ), moved as (
    delete from ${events} e using due where ${event('id', 'e')} = due.id
    returning ${event('policy_id', 'e')}, ${event('agent_id', 'e')}, ${event('tenant_id', 'e')}, ${event('value', 'e')},
      date_trunc('hour', ${event('occurred_at', 'e')}, 'UTC') as hour
  ), grouped as (
    select policy_id, agent_id, tenant_id, hour, ${sumOf('value')} as total, count(*) as number, max(value) as greatest
    from moved group by policy_id, agent_id, tenant_id, hour
  ), keyed as (
    select grouped.*, coalesce((${EXISTING_KEY}), ${NEW_KEY}) as window_key from grouped
  ), written as (
    insert into ${windows} as w (${columnList(TemporalMetricWindow, [
      'policy_id',
      'agent_id',
      'tenant_id',
      'window_key',
      'current_sum',
      'current_count',
      'current_max',
      'window_start',
      'window_end',
      'updated_at',
    ])})
    select policy_id, agent_id, tenant_id, window_key, total, number, greatest, hour, hour + interval '1 hour', now()
    from keyed order by window_key
    on conflict (${window('window_key')}) do update set
      ${window('current_sum')} = (
        select ${sumOf('part')} from (values (${window('current_sum', 'w')}), (${window('current_sum', 'excluded')})) as parts (part)
      ),
      ${window('current_count')} = ${window('current_count', 'w')} + ${window('current_count', 'excluded')},
      ${window('current_max')} = greatest(${window('current_max', 'w')}, ${window('current_max', 'excluded')}),
      ${window('updated_at')} = ${window('updated_at', 'excluded')}
    returning 1
  )
  select (select count(*) from moved), (select count(*) from written)`,
  rowsOf(CompactTemporalEventsResponseSchema),
);

const counts = `(select count(*) from ${events}), (select count(*) from ${windows})`;

const stats = statement('policy_engine.temporal_stats', `select ${counts}`, rowsOf(FetchTemporalStatsResponseSchema));

const storageStats = statement(
  'policy_engine.temporal_storage_stats',
  `select ${counts},
    (select min(${event('occurred_at')}) from ${events}),
    (select max(${event('occurred_at')}) from ${events}),
    (select count(distinct ${event('policy_id')}) from ${events}),
    pg_size_pretty(pg_total_relation_size('${events}'::regclass)),
    pg_size_pretty(pg_total_relation_size('${windows}'::regclass))`,
  rowsOf(FetchTemporalStorageStatsResponseSchema),
);

/** Keeping the event table small, and seeing how large it is. */
export const metricMaintenanceRpcs = {
  deleteOldTemporalEvents: write(
    { retention_hours: hours },
    affected(({ retentionHours }) => deleteOld.with(retentionHours)),
  ),
  compactTemporalEvents: write(
    { compact_hours: hours, retention_hours: hours },
    response(({ compactHours, retentionHours }) => compact.with(compactHours, retentionHours)),
  ),
  capTemporalEvents: write(
    {},
    affected(({ maxPerPolicy }) => cap.with(maxPerPolicy)),
  ),
  fetchTemporalStats: read(
    {},
    response(() => stats.with()),
  ),
  fetchTemporalStorageStats: read(
    {},
    response(() => storageStats.with()),
  ),
} satisfies Part<typeof PolicyEngineService>;
