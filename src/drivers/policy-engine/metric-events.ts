import { nested, type Rule, type Rules, required } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { type ColumnOf, column, columnList, table } from '../../database/table.ts';
import { timestampToText } from '../../database/values.ts';
import { TemporalMetricEvent } from '../../entities/temporal-metric-event.ts';
import {
  type NewTemporalMetricEvent,
  type NewTemporalMetricEventSchema,
  type PolicyEngineService,
  RecordTemporalMetricEventResponseSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, reply } from '../../statements/answers.ts';
import { fits } from '../../statements/fits.ts';
import { typeOf } from '../../statements/parameters.ts';
import { rowsOf } from '../../statements/projection.ts';
import { type Part, write } from '../driver.ts';

/** Events of one call at most. */
const MAX_EVENTS = 10_000;

type Column = ColumnOf<typeof TemporalMetricEvent>;

const DEFAULTS: { readonly [C in Column]?: string } = {
  id: 'coalesce(new.id, gen_random_uuid())',
  occurred_at: 'coalesce(new.occurred_at, now())',
};

/** Columns of a new event, as keys of the JSON that carries it; an absent key is NULL. */
const names = [
  'id',
  'policy_id',
  'agent_id',
  'tenant_id',
  'metric',
  'value',
  'occurred_at',
  'action_type',
  'request_id',
] as const satisfies readonly Column[];

// One parameter whatever the number of events, so one prepared statement serves them all.
const insertEvents = statement(
  'policy_engine.insert_temporal_metric_events',
  `insert into ${table(TemporalMetricEvent)} (${columnList(TemporalMetricEvent, names)})
  select ${names.map((name) => DEFAULTS[name] ?? column(TemporalMetricEvent, name, 'new')).join(', ')}
  from jsonb_to_recordset($1::jsonb) as new (${names
    .map((name) => `${column(TemporalMetricEvent, name)} ${typeOf(TemporalMetricEvent, name)}`)
    .join(', ')})
  returning id, occurred_at`,
  rowsOf(
    RecordTemporalMetricEventResponseSchema,
    RecordTemporalMetricEventResponseSchema.fields.filter(({ name }) => name !== 'rows_affected'),
  ),
);

const eventRules: Rules<typeof NewTemporalMetricEventSchema> = {
  event_id: fits(TemporalMetricEvent, 'id'),
  policy_id: fits(TemporalMetricEvent, 'policy_id'),
  agent_id: fits(TemporalMetricEvent, 'agent_id'),
  tenant_id: fits(TemporalMetricEvent, 'tenant_id'),
  metric: required(fits(TemporalMetricEvent, 'metric')),
  value: required(),
  action_type: fits(TemporalMetricEvent, 'action_type'),
  request_id: fits(TemporalMetricEvent, 'request_id'),
};

const notTooMany: Rule<readonly unknown[]> = (events) =>
  events.length > MAX_EVENTS ? `must hold at most ${MAX_EVENTS}` : undefined;

const asJson = (event: NewTemporalMetricEvent): Readonly<Record<(typeof names)[number], unknown>> => ({
  id: event.eventId,
  policy_id: event.policyId,
  agent_id: event.agentId,
  tenant_id: event.tenantId,
  metric: event.metric,
  value: event.value,
  occurred_at: event.occurredAt && timestampToText(event.occurredAt),
  action_type: event.actionType,
  request_id: event.requestId,
});

/** Recording what temporal policies measure. */
export const metricEventRpcs = {
  recordTemporalMetricEvent: write(
    { event: required(), ...nested('event', eventRules) },
    reply(
      ({ event }) => insertEvents.with(JSON.stringify([asJson(event!)])),
      ([stored]) => ({ ...stored!, rowsAffected: 1n }),
    ),
  ),
  recordTemporalMetricEvents: write(
    { events: notTooMany, ...nested('events', eventRules) },
    affected(({ events }) => (events.length === 0 ? undefined : insertEvents.with(JSON.stringify(events.map(asJson))))),
  ),
} satisfies Part<typeof PolicyEngineService>;
