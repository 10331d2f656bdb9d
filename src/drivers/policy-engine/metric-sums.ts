import { between, page, required } from '../../contract/rules.ts';
import { firstNumber, statement } from '../../database/statement.ts';
import { columnsOf, table } from '../../database/table.ts';
import { TemporalMetricEvent } from '../../entities/temporal-metric-event.ts';
import { TemporalMetricWindow } from '../../entities/temporal-metric-window.ts';
import {
  FetchTemporalMetricTotalResponseSchema,
  type PolicyEngineService,
  TemporalMetricWindowSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { each, one, response, rows } from '../../statements/answers.ts';
import { nonEmpty, where } from '../../statements/filters.ts';
import { fits } from '../../statements/fits.ts';
import { list } from '../../statements/lists.ts';
import { projection, rowsOf } from '../../statements/projection.ts';
import { sumOf } from '../../statements/sums.ts';
import { type Part, read } from '../driver.ts';

const event = columnsOf(TemporalMetricEvent);
const window = columnsOf(TemporalMetricWindow);

/** Seconds whose distance from now every PostgreSQL timestamp can hold, either way. */
const windowSeconds = required(between(-200_000_000_000, 200_000_000_000));

const CUTOFF = `(now() - $2::bigint * interval '1 second')`;

const metricSum = statement(
  'policy_engine.temporal_metric_sum',
  `select ${sumOf(event('value'))} from ${table(TemporalMetricEvent)}
  where ${event('policy_id')} = $1::uuid and ${event('occurred_at')} > ${CUTOFF}`,
  firstNumber,
);

/** $3 and $4 are an agent and a tenant, or null for all. */
const owned = (of: (name: 'agent_id' | 'tenant_id') => string): string =>
  `($3::text is null or ${of('agent_id')} = $3) and ($4::text is null or ${of('tenant_id')} = $4)`;

const totalParts = rowsOf(
  FetchTemporalMetricTotalResponseSchema,
  FetchTemporalMetricTotalResponseSchema.fields.filter(({ name }) => name !== 'total'),
);

const metricTotal = statement(
  'policy_engine.temporal_metric_total',
  `select events.total, windows.whole, windows.part, events.number + windows.number
  from (
    select ${sumOf(event('value'))} as total, count(*) as number from ${table(TemporalMetricEvent)}
    where ${event('policy_id')} = $1::uuid and ${event('occurred_at')} > ${CUTOFF} and ${owned(event)}
  ) events, (
    select ${sumOf(window('current_sum'), `${window('window_start')} > ${CUTOFF}`)} as whole,
      ${sumOf(window('current_sum'), `${window('window_start')} <= ${CUTOFF}`)} as part,
      coalesce(sum(${window('current_count')}), 0) as number
    from ${table(TemporalMetricWindow)}
    where ${window('policy_id')} = $1::uuid and ${window('window_end')} > ${CUTOFF} and ${owned(window)}
  ) windows`,
  (row, notes) => {
    const parts = totalParts.map(row, notes);
    return { ...parts, total: parts.eventSum + parts.windowSum + parts.partialWindowSum };
  },
);

const metricWindow = projection(TemporalMetricWindowSchema, TemporalMetricWindow);

const metricWindows = list('policy_engine.temporal_metric_windows', {
  entity: TemporalMetricWindow,
  filters: {
    policyId: where.exactText(`${window('policy_id')} = ?::uuid`),
    agentId: where.text(`${window('agent_id')} = ?`),
    tenantId: where.text(`${window('tenant_id')} = ?`),
    since: where.instant(`${window('window_end')} > ?::timestamptz`),
  },
  order: ['window_start desc', 'id desc'],
  paged: true,
  reading: metricWindow,
});

const policyId = fits(TemporalMetricWindow, 'policy_id');

/** What temporal policies have measured. */
export const metricSumRpcs = {
  fetchTemporalMetricSum: read(
    { policy_id: policyId, window_seconds: windowSeconds },
    one('total', (request) => metricSum.with(request.policyId, request.windowSeconds)),
  ),
  fetchTemporalMetricTotal: read(
    { policy_id: policyId, window_seconds: windowSeconds },
    response((request) =>
      metricTotal.with(request.policyId, request.windowSeconds, nonEmpty(request.agentId), nonEmpty(request.tenantId)),
    ),
  ),
  fetchTemporalMetricWindows: read(
    { policy_id: policyId, limit: page },
    rows('windows', (request, walk) => metricWindows(request, walk, { limit: request.limit ?? 100 })),
  ),
  streamTemporalMetricWindows: read({ policy_id: policyId }, each('window', metricWindows)),
} satisfies Part<typeof PolicyEngineService>;
