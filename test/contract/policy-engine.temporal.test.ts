import { randomUUID } from 'node:crypto';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { beforeEach, describe, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { collect, refusal } from '../support/client.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const single = { transaction: 'single-use' };
const HOUR = 3_600_000;
const policyId = '0026cafe-00ab-4bcd-8ef0-000000000001';

/** The start of the hour that many hours ago, plus so many milliseconds. */
const hourAgo = (hours: number, ms = 0) => timestampFromMs((Math.floor(Date.now() / HOUR) - hours) * HOUR + ms);

const sidecar = useSidecar();
beforeEach(() =>
  sidecar.sql('truncate policy.temporal_policies, policy.temporal_metric_events, policy.temporal_metric_windows'),
);

describe.each(['grpc', 'connect'] as const)('temporal policies and their metrics over %s', (listener) => {
  const caller = () => sidecar[listener];
  const record = (...events: object[]) =>
    caller().unary(
      rpc.recordTemporalMetricEvents,
      { events: events.map((event) => ({ policyId, metric: 'cost', value: 1, ...event })) },
      single,
    );
  const compact = (compactHours = 24n, retentionHours = 168n) =>
    caller().unary(rpc.compactTemporalEvents, { compactHours, retentionHours }, single);
  const windows = async (filter = {}) =>
    (await caller().unary(rpc.fetchTemporalMetricWindows, { policyId, ...filter })).windows;
  const sum = async (windowSeconds: bigint) =>
    (await caller().unary(rpc.fetchTemporalMetricSum, { policyId, windowSeconds })).total;
  const eventCount = async () => Number((await caller().unary(rpc.fetchTemporalStats, {})).eventCount);

  test('a temporal policy is recorded, filtered and used for utilisation', async () => {
    const sent = {
      name: 'tp',
      temporalType: 'burst_limit',
      metric: 'cost',
      maxValue: -1.5,
      windowSeconds: 0,
      breachAction: 'escalate',
      cooldownOnBreach: 15,
    };
    const { policyId: id } = await caller().unary(rpc.insertTemporalPolicy, sent, single);
    const list = async (request = {}) => (await caller().unary(rpc.fetchTemporalPolicies, request)).temporalPolicies;
    expect(await list()).toMatchObject([{ id, ...sent, isActive: true, breachCount: 0 }]);
    expect(await list({ metric: 'retries' })).toEqual([]);
    expect(await list({ metric: '' })).toHaveLength(1);
    await sidecar.sql('update policy.temporal_policies set is_active = false');
    expect(await list({ metric: 'cost' })).toEqual([]);
    expect(await list({ metric: 'cost', includeInactive: true })).toHaveLength(1);
    expect(await collect(caller().stream(rpc.streamTemporalPolicies, { includeInactive: true }))).toHaveLength(1);
    const utilization = async (request: string) =>
      (await caller().unary(rpc.fetchTemporalPolicyForUtilization, { policyId: request })).utilization;
    expect(await utilization(id)).toMatchObject({ maxValue: -1.5, windowSeconds: 0 });
    expect(await utilization(randomUUID())).toBeUndefined();
    expect(await refusal(caller().unary(rpc.insertTemporalPolicy, sent, single))).toMatchObject({
      code: 'ALREADY_EXISTS',
      metadata: { constraint: 'temporal_policies_name_key' },
    });
    expect((await refusal(caller().unary(rpc.insertTemporalPolicy, {}, single))).fields).toHaveLength(7);
  });

  test('an event keeps its own id and instant, or gets both', async () => {
    const eventId = randomUUID();
    const event = { eventId, policyId, metric: 'cost', value: 2.5, occurredAt: { seconds: 1n, nanos: 1_999 } };
    const recorded = await caller().unary(rpc.recordTemporalMetricEvent, { event }, single);
    expect(recorded).toMatchObject({ eventId, rowsAffected: 1n, occurredAt: { seconds: 1n, nanos: 1_000 } });
    expect((await refusal(caller().unary(rpc.recordTemporalMetricEvent, { event }, single))).code).toBe(
      'ALREADY_EXISTS',
    );
    const other = await caller().unary(
      rpc.recordTemporalMetricEvent,
      { event: { policyId, metric: '', value: 0 } },
      single,
    );
    expect(Number(other.occurredAt?.seconds)).toBeGreaterThan(1_700_000_000);
    expect((await refusal(caller().unary(rpc.recordTemporalMetricEvent, {}, single))).fields).toEqual(['event']);
    const bad = await refusal(caller().unary(rpc.recordTemporalMetricEvent, { event: { policyId: 'x' } }, single));
    expect([...bad.fields].sort()).toEqual(['event.metric', 'event.policy_id', 'event.value']);
  });

  test('events in bulk are stored all or not at all', async () => {
    expect((await record()).rowsAffected).toBe(0n);
    const texts = { agentId: 'a "q" ü\\', tenantId: '', actionType: "it's", requestId: '{NULL}' };
    expect((await record(texts, { value: 0.1 }, { value: -1e300 })).rowsAffected).toBe(3n);
    const [stored] = await sidecar.sql(
      `select agent_id as "agentId", tenant_id as "tenantId", action_type as "actionType", request_id as "requestId"
      from policy.temporal_metric_events where agent_id is not null`,
    );
    expect(stored).toEqual(texts);
    const eventId = randomUUID();
    expect((await refusal(record({}, { eventId }, { eventId }))).code).toBe('ALREADY_EXISTS');
    const error = await refusal(record({}, { policyId: 'x' }, { requestId: 'r'.repeat(129) }));
    expect(error.fields).toEqual(['events[1].policy_id', 'events[2].request_id']);
    expect(await eventCount()).toBe(3);
    expect((await refusal(record(...Array.from({ length: 10_001 }, () => ({}))))).fields).toEqual(['events']);
  });

  // As many as are allowed were refused for the number of their fields where each had all of them.
  test('as many events as are allowed may have all their fields', async () => {
    const full = () => ({
      eventId: randomUUID(),
      agentId: 'a',
      tenantId: 't',
      occurredAt: { seconds: 1n, nanos: 1_000 },
      actionType: 'x',
      requestId: 'r',
    });
    expect((await record(...Array.from({ length: 10_000 }, full))).rowsAffected).toBe(10_000n);
  });

  test('the sum counts events later than the cut-off, of the future too', async () => {
    const now = Date.now();
    await record(
      { occurredAt: timestampFromMs(now - 10_000), value: 1.5 },
      { occurredAt: timestampFromMs(now - 100_000), value: 2 },
      { occurredAt: timestampFromMs(now + 100_000), value: 4, tenantId: 't' },
    );
    expect(await sum(50n)).toBe(5.5);
    expect(await sum(0n)).toBe(4);
    expect(await sum(-1_000_000n)).toBe(0);
    expect(await sum(200_000_000_000n)).toBe(7.5);
    expect(await sum(-200_000_000_000n)).toBe(0);
    expect((await refusal(sum(200_000_000_001n))).fields).toEqual(['window_seconds']);
    expect((await refusal(caller().unary(rpc.fetchTemporalMetricSum, { policyId: 'x' }))).fields).toEqual([
      'policy_id',
      'window_seconds',
    ]);
  });

  test('old events go, whichever the sign of the age', async () => {
    const remove = async (retentionHours: bigint) =>
      (await caller().unary(rpc.deleteOldTemporalEvents, { retentionHours }, single)).rowsAffected;
    await record({ occurredAt: hourAgo(5) }, { occurredAt: hourAgo(3) }, { occurredAt: hourAgo(-2) });
    expect(await remove(50_000_000n)).toBe(0n);
    expect(await remove(4n)).toBe(1n);
    expect(await remove(0n)).toBe(1n);
    expect(await remove(-5n)).toBe(1n);
    expect((await refusal(remove(50_000_001n))).fields).toEqual(['retention_hours']);
    expect((await refusal(caller().unary(rpc.deleteOldTemporalEvents, {}, single))).fields).toEqual([
      'retention_hours',
    ]);
  });

  test('the cap keeps the newest of each policy', async () => {
    const cap = async (request: object) => (await caller().unary(rpc.capTemporalEvents, request, single)).rowsAffected;
    const same = hourAgo(1);
    await record({ value: 1, occurredAt: hourAgo(2) }, { value: 2, occurredAt: same }, { value: 3, occurredAt: same });
    await record({ policyId: randomUUID() });
    expect(await cap({})).toBe(0n);
    expect(await cap({ maxPerPolicy: 3n })).toBe(0n);
    expect(await cap({ maxPerPolicy: 2n })).toBe(1n);
    expect(await sum(1_000_000n)).toBe(5);
    expect(await cap({ maxPerPolicy: -1n })).toBe(3n);
  });

  test('compaction keeps policies, tenants, agents and hours apart', async () => {
    const owners = [
      {},
      { agentId: '' },
      { tenantId: '' },
      { agentId: 'a' },
      { tenantId: 'a' },
      { agentId: 'a', tenantId: 'b' },
    ];
    for (const occurredAt of [hourAgo(30), hourAgo(30, HOUR - 1), hourAgo(31)]) {
      await record(...owners.map((owner, index) => ({ ...owner, occurredAt, value: index + 1 })));
    }
    await record({ occurredAt: hourAgo(1) }, { occurredAt: hourAgo(200) });
    expect(await compact()).toMatchObject({ rowsAffected: 18n, windowsWritten: 12n });
    const written = await windows();
    expect(written).toHaveLength(12);
    const newest = written.filter((each) => each.windowStart?.seconds === hourAgo(30).seconds);
    expect(
      newest
        .map((each) => [each.agentId, each.tenantId, each.currentSum, each.currentCount, each.currentMax])
        .sort((left, right) => Number(left[2]) - Number(right[2])),
    ).toEqual(
      owners.map((owner: { agentId?: string; tenantId?: string }, index) => [
        owner.agentId,
        owner.tenantId,
        2 * (index + 1),
        2,
        index + 1,
      ]),
    );
    expect(newest[0]?.windowEnd?.seconds).toBe(hourAgo(29).seconds);
    expect(await eventCount()).toBe(2);
    await record({ agentId: 'a', occurredAt: hourAgo(30, 5), value: 100 });
    expect(await compact()).toMatchObject({ rowsAffected: 1n, windowsWritten: 1n });
    expect(await windows({ agentId: 'a', tenantId: '' })).toHaveLength(4);
    expect((await windows()).find((each) => each.currentMax === 100)).toMatchObject({
      currentSum: 108,
      currentCount: 3,
    });
    expect(await compact(168n, 24n)).toMatchObject({ rowsAffected: 0n, windowsWritten: 0n });
  });

  test('a window that another writer began is added to, not doubled', async () => {
    await sidecar.sql(
      `insert into policy.temporal_metric_windows
        (policy_id, agent_id, window_key, current_sum, current_count, current_max, window_start, window_end)
      select $1, 'a', 'legacy', 5, 2, 3, hour, hour + interval '1 hour'
      from (select date_trunc('hour', now(), 'UTC') - interval '30 hours' as hour) hours`,
      [policyId],
    );
    await record(
      { agentId: 'a', occurredAt: hourAgo(30), value: 7 },
      { agentId: 'b', occurredAt: hourAgo(30), value: 1 },
    );
    await compact();
    expect(await windows({ agentId: 'a' })).toMatchObject([
      { windowKey: 'legacy', currentSum: 12, currentCount: 3, currentMax: 7 },
    ]);
    expect(await windows({ agentId: 'b' })).toHaveLength(1);
  });

  test('no event is lost or counted twice while writers and compactions are at work', async () => {
    let expected = 0;
    let stop = false;
    const writing = [0, 1].map(async (tenant) => {
      for (let round = 0; round < 30; round += 1) {
        const events = Array.from({ length: 20 }, (_, index) => ({
          value: index,
          tenantId: `t${tenant}`,
          agentId: index % 2 === 0 ? '' : 'a',
          occurredAt: hourAgo(30 + (index % 3), round),
        }));
        await record(...events);
        expected += 190;
      }
    });
    const compacting = [0, 1].map(async () => {
      while (!stop) await compact();
    });
    let last = 0;
    const watching = (async () => {
      while (!stop) {
        const { total } = await caller().unary(rpc.fetchTemporalMetricTotal, { policyId, windowSeconds: 1_000_000n });
        expect(total).toBeGreaterThanOrEqual(last);
        last = total;
      }
    })();
    await Promise.all(writing);
    stop = true;
    await Promise.all([...compacting, watching]);
    await compact();
    expect(await eventCount()).toBe(0);
    expect((await windows()).reduce((total, each) => total + each.currentSum, 0)).toBe(expected);
    expect(await windows()).toHaveLength(12);
  });

  test('the total says how much of it comes from windows that overlap only in part', async () => {
    await record(
      { occurredAt: hourAgo(30, 10 * 60_000), value: 1 },
      { occurredAt: hourAgo(30, 50 * 60_000), value: 2, tenantId: 't' },
      { occurredAt: hourAgo(28), value: 4, agentId: 'a' },
      { occurredAt: hourAgo(1), value: 8 },
    );
    await compact();
    const total = (sinceHoursAgo: number, filter = {}) => {
      const windowSeconds = BigInt(Math.round(Date.now() / 1000)) - hourAgo(sinceHoursAgo).seconds - 1800n;
      return caller().unary(rpc.fetchTemporalMetricTotal, { policyId, windowSeconds, ...filter });
    };
    expect(await total(30)).toMatchObject({
      total: 15,
      eventSum: 8,
      windowSum: 4,
      partialWindowSum: 3,
      eventCount: 4n,
    });
    expect(await total(30, { tenantId: 't' })).toMatchObject({ total: 2, partialWindowSum: 2, eventCount: 1n });
    expect(await total(30, { agentId: 'a', tenantId: '' })).toMatchObject({ total: 4, windowSum: 4 });
    expect(await total(29)).toMatchObject({ total: 12, windowSum: 4, partialWindowSum: 0 });
    expect(await sum(1_000_000n)).toBe(8);
  });

  test('windows are listed newest first and streamed alike', async () => {
    await record({ occurredAt: hourAgo(30) }, { occurredAt: hourAgo(32) }, { occurredAt: hourAgo(31) });
    await compact();
    const listed = await windows();
    expect(listed.map((each) => each.windowStart?.seconds)).toEqual(
      [30, 31, 32].map((hours) => hourAgo(hours).seconds),
    );
    expect(
      (await collect(caller().stream(rpc.streamTemporalMetricWindows, { policyId }))).map((each) => each.window),
    ).toEqual(listed);
    expect(await windows({ since: hourAgo(30) })).toHaveLength(1);
    expect(await windows({ limit: 2 })).toHaveLength(2);
    expect((await refusal(windows({ policyId: 'x', limit: -1 }))).fields).toEqual(['policy_id', 'limit']);
  });

  test('statistics count rows and name extremes', async () => {
    const empty = await caller().unary(rpc.fetchTemporalStorageStats, {});
    expect(empty).toMatchObject({ eventCount: 0n, windowCount: 0n, policiesWithEvents: 0n });
    expect([empty.oldestEvent, empty.newestEvent]).toEqual([undefined, undefined]);
    await record(
      { occurredAt: hourAgo(30) },
      { occurredAt: hourAgo(3), policyId: randomUUID() },
      { occurredAt: hourAgo(2) },
    );
    await compact();
    expect(await caller().unary(rpc.fetchTemporalStats, {})).toMatchObject({ eventCount: 2n, windowCount: 1n });
    expect(await caller().unary(rpc.fetchTemporalStorageStats, {})).toMatchObject({
      eventCount: 2n,
      windowCount: 1n,
      oldestEvent: hourAgo(3),
      newestEvent: hourAgo(2),
      policiesWithEvents: 2n,
      eventsSize: expect.stringMatching(/^\d+ (bytes|kB)$/),
      windowsSize: expect.stringMatching(/^\d+ (bytes|kB)$/),
    });
  });
});
