import { nested, type Rule, type Rules, required } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { columnList, table } from '../../database/table.ts';
import { timestampToText } from '../../database/values.ts';
import { TemporalMetricEvent } from '../../entities/temporal-metric-event.ts';
import {
  type NewTemporalMetricEvent,
  type NewTemporalMetricEventSchema,
  RecordTemporalMetricEventResponseSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { fits } from '../../statements/fits.ts';
import { rowMapper } from '../../statements/projection.ts';
import { write } from '../driver.ts';
import type { Part } from './contract.ts';

/** Events of one call at most. */
const MAX_EVENTS = 10_000;

/** Columns of a new event and their types in the JSON that carries them; an absent key is NULL. */
const COLUMNS = {
  id: 'uuid',
  policy_id: 'uuid',
  agent_id: 'text',
  tenant_id: 'text',
  metric: 'text',
  value: 'double precision',
  occurred_at: 'timestamptz',
  action_type: 'text',
  request_id: 'text',
} as const;

const DEFAULTS: Readonly<Record<string, string>> = {
  id: 'coalesce(new.id, gen_random_uuid())',
  occurred_at: 'coalesce(new.occurred_at, now())',
};

const names = Object.keys(COLUMNS) as (keyof typeof COLUMNS)[];

// One parameter whatever the number of events, so one prepared statement serves them all.
const insertEvents = statement(
  'policy_engine.insert_temporal_metric_events',
  `insert into ${table(TemporalMetricEvent)} (${columnList(TemporalMetricEvent, names)})
  select ${names.map((name) => DEFAULTS[name] ?? `new.${name}`).join(', ')}
  from jsonb_to_recordset($1::jsonb) as new (${Object.entries(COLUMNS)
    .map(([name, type]) => `${name} ${type}`)
    .join(', ')})
  returning id, occurred_at`,
  rowMapper(
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

const asJson = (event: NewTemporalMetricEvent): Readonly<Record<keyof typeof COLUMNS, unknown>> => ({
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
  recordTemporalMetricEvent: write({ event: required(), ...nested('event', eventRules) }, async (db, { event }) => {
    const stored = await db.one(insertEvents, [JSON.stringify([asJson(event!)])]);
    return { ...stored, rowsAffected: 1n };
  }),
  recordTemporalMetricEvents: write({ events: notTooMany, ...nested('events', eventRules) }, async (db, { events }) => {
    if (events.length === 0) return { rowsAffected: 0n };
    return { rowsAffected: await db.execute(insertEvents, [JSON.stringify(events.map(asJson))]) };
  }),
} satisfies Part;
