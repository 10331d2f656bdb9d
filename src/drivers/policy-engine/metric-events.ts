import { nested, type Rule, required } from '../../contract/rules.ts';
import { statement } from '../../database/statement.ts';
import { columnNamed, table } from '../../database/table.ts';
import { TemporalMetricEvent } from '../../entities/temporal-metric-event.ts';
import {
  type NewTemporalMetricEvent,
  NewTemporalMetricEventSchema,
  type PolicyEngineService,
  RecordTemporalMetricEventResponseSchema,
} from '../../gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { affected, reply } from '../../statements/answers.ts';
import { insert } from '../../statements/insert.ts';
import { typeOf } from '../../statements/parameters.ts';
import { rowsOf } from '../../statements/projection.ts';
import { storedFields } from '../../statements/stored-fields.ts';
import { type Part, write } from '../driver.ts';

/** Events of one call at most. */
const MAX_EVENTS = 10_000;

const columns = { event_id: 'id' } as const;
const defaults: Readonly<Record<string, string>> = { event_id: 'gen_random_uuid()', occurred_at: 'now()' };

const { rules } = insert(TemporalMetricEvent, NewTemporalMetricEventSchema, { columns, defaults });

/** Columns of a new event, as keys of the JSON that carries it; an absent key is NULL. */
const fields = storedFields(TemporalMetricEvent, NewTemporalMetricEventSchema, { columns }).map(
  ({ field, name, bind }) => {
    const column = columnNamed(TemporalMetricEvent, name);
    const fallback = defaults[field.name];
    const stored = fallback === undefined ? `new.${column}` : `coalesce(new.${column}, ${fallback})`;
    return { field, name, bind, column, typed: `${column} ${typeOf(TemporalMetricEvent, name)}`, stored };
  },
);

const listed = (part: 'column' | 'typed' | 'stored'): string => fields.map((each) => each[part]).join(', ');

// One parameter whatever the number of events, so one prepared statement serves them all.
const insertEvents = statement(
  'policy_engine.insert_temporal_metric_events',
  `insert into ${table(TemporalMetricEvent)} (${listed('column')})
  select ${listed('stored')} from jsonb_to_recordset($1::jsonb) as new (${listed('typed')})
  returning id, occurred_at`,
  rowsOf(
    RecordTemporalMetricEventResponseSchema,
    RecordTemporalMetricEventResponseSchema.fields.filter(({ name }) => name !== 'rows_affected'),
  ),
);

const asJson = (event: NewTemporalMetricEvent) => {
  const values = event as unknown as Readonly<Record<string, unknown>>;
  return Object.fromEntries(fields.map(({ field, name, bind }) => [name, bind(values[field.localName])]));
};

const notTooMany: Rule<readonly unknown[]> = (events) =>
  events.length > MAX_EVENTS ? `must hold at most ${MAX_EVENTS}` : undefined;

/** Recording what temporal policies measure. */
export const metricEventRpcs = {
  recordTemporalMetricEvent: write(
    { event: required(), ...nested('event', rules) },
    reply(
      ({ event }) => insertEvents.with(JSON.stringify([asJson(event!)])),
      ([stored]) => ({ ...stored!, rowsAffected: 1n }),
    ),
  ),
  recordTemporalMetricEvents: write(
    { events: notTooMany, ...nested('events', rules) },
    affected(({ events }) => (events.length === 0 ? undefined : insertEvents.with(JSON.stringify(events.map(asJson))))),
  ),
} satisfies Part<typeof PolicyEngineService>;
