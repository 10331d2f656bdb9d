import { monitorEventLoopDelay, performance } from 'node:perf_hooks';
import { type Meter, ValueType } from '@opentelemetry/api';
import { Durations } from './histograms.ts';
import type { Look } from './telemetry.ts';

/** Bounds of a call's and a statement's time, seconds: those of the conventions, and finer ones below. */
const CALL_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const STATEMENT_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10];

/** How long the event loop's delay is measured before it is told and measured anew, milliseconds. */
const WINDOW_MS = 10_000;
const NS = 1e9;
/** How often the event loop is looked at, milliseconds: what is measured holds that, too. */
const LOOK_MS = 10;

export const POOL = 'db.client.connection.pool.name';

/** Times of calls, statements and waits. */
export const createDurations = () => ({
  calls: new Durations('rpc.server.call.duration', 'Time of a call, from its headers to its answer', CALL_BOUNDS),
  statements: new Durations(
    'db.client.operation.duration',
    'Time of a statement, from its sending to its last row',
    STATEMENT_BOUNDS,
  ),
  waits: new Durations('db.client.connection.wait_time', 'Time until a connection was lent', STATEMENT_BOUNDS),
});

export type AllDurations = ReturnType<typeof createDurations>;

/** What is counted as it happens. */
export const createInstruments = (meter: Meter) => ({
  failures: meter.createCounter('policy_sidecar.call.failures', {
    description: 'Calls that failed, by reason',
    unit: '{call}',
  }),
  timeouts: meter.createCounter('db.client.connection.timeouts', {
    description: 'Waits for a connection that a clock ended',
    unit: '{timeout}',
  }),
  leaseEnds: meter.createCounter('policy_sidecar.transaction.ends', {
    description: 'Open transactions that ended, by cause',
    unit: '{transaction}',
  }),
  again: meter.createCounter('policy_sidecar.database.retries', {
    description: 'Work that was done again, by why',
    unit: '{retry}',
  }),
});

export type Instruments = ReturnType<typeof createInstruments>;

/** Numbers of the lanes and of open transactions, looked at for every collection. */
export const observeDatabase = (meter: Meter, looking: () => Look): void => {
  const gauge = (name: string, description: string, unit: string) =>
    meter.createObservableUpDownCounter(name, { description, unit, valueType: ValueType.INT });
  const count = gauge('db.client.connection.count', 'Connections of a lane, by state', '{connection}');
  const max = gauge('db.client.connection.max', 'Most connections of a lane', '{connection}');
  const pending = gauge('db.client.connection.pending_requests', 'Calls that wait for a connection', '{request}');
  const read = gauge('policy_sidecar.replica.read', 'Replicas: 1 where reads run there, 0 where it is left out', '1');
  const ready = gauge('policy_sidecar.ready', 'Whether calls are served: 1, or 0 where they are not', '1');
  const open = gauge('policy_sidecar.transaction.open', 'Open transactions', '{transaction}');
  const queued = gauge('policy_sidecar.queue.depth', 'Calls that wait for their turn, by queue', '{call}');
  meter.addBatchObservableCallback(
    (result) => {
      const { ready: isReady, lanes, replicas, writesWaiting, transactions } = looking();
      result.observe(ready, isReady ? 1 : 0);
      for (const lane of [...lanes, ...replicas.map((replica) => replica.lane)]) {
        const of = { [POOL]: lane.name };
        result.observe(count, lane.used, { ...of, 'db.client.connection.state': 'used' });
        result.observe(count, lane.idle, { ...of, 'db.client.connection.state': 'idle' });
        result.observe(max, lane.max, of);
        result.observe(pending, lane.pending, of);
      }
      for (const { lane, usable } of replicas) result.observe(read, usable ? 1 : 0, { [POOL]: lane.name });
      result.observe(open, transactions.length);
      result.observe(queued, writesWaiting, { queue: 'write' });
      let inside = 0;
      for (const { waiting } of transactions) inside += waiting;
      result.observe(queued, inside, { queue: 'transaction' });
    },
    [ready, count, max, pending, read, open, queued],
  );
};

/**
 * Numbers of the process.
 *
 * @returns what ends the measuring.
 */
export const observeProcess = (meter: Meter, version: string): (() => void) => {
  const delay = monitorEventLoopDelay({ resolution: LOOK_MS });
  delay.enable();
  let last: { p50: number; p99: number; max: number } | undefined;
  const late = (ns: number): number => Math.max(0, ns / NS - LOOK_MS / 1_000);
  const now = () => ({
    p50: late(delay.percentile(50)),
    p99: late(delay.percentile(99)),
    max: late(delay.max),
  });
  const window = setInterval(() => {
    last = now();
    delay.reset();
  }, WINDOW_MS).unref();
  const gauge = (name: string, description: string, unit: string, value: () => number) =>
    meter.createObservableGauge(name, { description, unit }).addCallback((result) => result.observe(value()));
  gauge(
    'nodejs.eventloop.delay.p50',
    'Median delay of the event loop in the last 10 s',
    's',
    () => (last ?? now()).p50,
  );
  gauge('nodejs.eventloop.delay.p99', '99 % of the delays in the last 10 s', 's', () => (last ?? now()).p99);
  gauge('nodejs.eventloop.delay.max', 'Longest delay in the last 10 s', 's', () => (last ?? now()).max);
  let busy = performance.eventLoopUtilization();
  gauge('nodejs.eventloop.utilization', 'Share of time that the event loop was busy since the last look', '1', () => {
    const since = performance.eventLoopUtilization(busy);
    busy = performance.eventLoopUtilization();
    return since.utilization;
  });
  gauge('process.memory.usage', 'Resident memory', 'By', () => process.memoryUsage.rss());
  gauge('v8js.memory.heap.used', 'Used heap', 'By', () => process.memoryUsage().heapUsed);
  meter
    .createObservableCounter('process.cpu.time', { description: 'CPU time, by mode', unit: 's' })
    .addCallback((result) => {
      const { user, system } = process.cpuUsage();
      result.observe(user / 1e6, { 'cpu.mode': 'user' });
      result.observe(system / 1e6, { 'cpu.mode': 'system' });
    });
  const build = { version, node: process.version };
  meter
    .createObservableGauge('policy_sidecar.build.info', { description: 'What runs here; always 1' })
    .addCallback((result) => result.observe(1, build));
  return () => {
    clearInterval(window);
    delay.disable();
  };
};
