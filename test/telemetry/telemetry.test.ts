import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { VERSION } from '../../src/version.ts';
import { type Caller, connectCaller, grpcCaller, refusal } from '../support/client.ts';
import { type Command, endAll, startCommand } from '../support/command.ts';
import { freePort } from '../support/port.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { useDatabase, useStarted } from '../support/use.ts';
import { violationWith } from '../support/violation.ts';
import { type ReceivedSpan, startCollector } from './collector.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;
const SECRET = 'what nobody but the caller may read';
const SERVER = 2;
const CLIENT = 3;
const FETCH = 'hoc.cus.policies.v1.PolicyEngineService/FetchRiskCeilings';

const violation = () => violationWith({ description: SECRET, evidence: jsonToValue({ [SECRET]: SECRET }) });

const newTrace = () => randomBytes(16).toString('hex');
const callerSpan = () => randomBytes(8).toString('hex');

/** A start with these variables, and how it is called. */
const start = async (database: TestDatabase, env: Readonly<Record<string, string>>) => {
  const probes = `127.0.0.1:${await freePort()}`;
  const sidecar = startCommand(['serve', '--probe-listen', probes], {
    DATABASE_URL: database.url,
    OTEL_BSP_SCHEDULE_DELAY: '50',
    OTEL_METRIC_EXPORT_INTERVAL: '200',
    OTEL_METRIC_EXPORT_TIMEOUT: '200',
    ...env,
  });
  const address = await sidecar.serving();
  const callers = { grpc: grpcCaller(address.grpc), connect: connectCaller(address.http) };
  const metrics = async () => (await fetch(`http://${probes}/metrics`)).text();
  return { sidecar, callers, metrics, probes };
};

afterAll(endAll);

describe('with a collector', () => {
  const database = useDatabase();
  const collector = useStarted(startCollector, ({ close }) => close());
  let sidecar: Command;
  let callers: Readonly<Record<'grpc' | 'connect', Caller>>;
  let metrics: () => Promise<string>;
  beforeAll(async () => {
    ({ sidecar, callers, metrics } = await start(database, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_SERVICE_NAME: 'engines-sidecar',
      OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test',
    }));
  });
  afterAll(async () => {
    for (const caller of Object.values(callers ?? {})) caller.close();
    sidecar?.child.kill('SIGTERM');
    await sidecar?.ended;
  });

  /** The spans of a trace once it has one of that kind and name for each. */
  const spansOf = (traceId: string, ...names: readonly string[]): Promise<readonly ReceivedSpan[]> =>
    vi.waitFor(() => {
      const spans = collector.spans.filter((span) => span.traceId === traceId);
      expect(spans.map(({ name }) => name)).toEqual(expect.arrayContaining([...names]));
      return spans;
    });

  test.each(['grpc', 'connect'] as const)('%s: a call goes on with its caller’s trace', async (kind) => {
    const [traceId, spanId] = [newTrace(), callerSpan()];
    await callers[kind].unary(rpc.fetchRiskCeilings, {}, { headers: { traceparent: `00-${traceId}-${spanId}-01` } });
    const spans = await spansOf(traceId, FETCH, 'policy_engine.risk_ceilings');
    const call = spans.find(({ kind: is }) => is === SERVER)!;
    expect(call).toMatchObject({ name: FETCH, parentSpanId: spanId });
    expect(call.attributes).toEqual({
      'rpc.system.name': kind === 'grpc' ? 'grpc' : 'connectrpc',
      'rpc.method': FETCH,
      'rpc.response.status_code': 'OK',
    });
    expect(call.events).toMatchObject([
      { name: 'connection lent', attributes: { 'db.client.connection.pool.name': 'call' } },
    ]);
    const statement = spans.find(({ kind: is }) => is === CLIENT)!;
    expect(statement).toMatchObject({ parentSpanId: call.spanId });
    expect(statement.attributes).toEqual({
      'db.system.name': 'postgresql',
      'db.operation.name': 'SELECT',
      'db.query.summary': statement.name,
    });
    const line = await vi.waitFor(() => {
      const found = sidecar
        .err()
        .split('\n')
        .find((each) => each.includes(traceId));
      expect(found).toBeDefined();
      return JSON.parse(found!);
    });
    expect(line).toMatchObject({
      level: 'info',
      service: 'engines-sidecar',
      version: VERSION,
      trace_id: traceId,
      method: 'PolicyEngineService/FetchRiskCeilings',
    });
  });

  test('a statement lies within its call, and that within what its caller waited', async () => {
    const traceId = newTrace();
    const headers = { traceparent: `00-${traceId}-${callerSpan()}-01`, tracestate: 'vendor=what it likes' };
    const began = Date.now();
    await callers.grpc.unary(rpc.fetchRiskCeilings, {}, { headers });
    const ended = Date.now();
    const spans = await spansOf(traceId, FETCH, 'policy_engine.risk_ceilings');
    const at = (kind: number) => {
      const { startTimeUnixNano: from, endTimeUnixNano: to } = spans.find(({ kind: is }) => is === kind)!;
      return { from: BigInt(from), to: BigInt(to) };
    };
    const [call, statement] = [at(SERVER), at(CLIENT)];
    const times = [call.from, statement.from, statement.to, call.to];
    expect(times.toSorted((a, b) => Number(a - b))).toEqual(times);
    expect(statement.to).toBeGreaterThan(statement.from);
    // Both clocks are read in whole milliseconds at one place or the other.
    expect(Number(call.from / 1_000_000n)).toBeGreaterThanOrEqual(began - 2);
    expect(Number(call.to / 1_000_000n)).toBeLessThanOrEqual(ended + 2);
    for (const { traceState } of spans) expect(traceState).toBe('vendor=what it likes');
  });

  test('a caller that keeps no trace has none kept', async () => {
    const [left, kept] = [newTrace(), newTrace()];
    const { grpc } = callers;
    await grpc.unary(rpc.fetchRiskCeilings, {}, { headers: { traceparent: `00-${left}-${callerSpan()}-00` } });
    await grpc.unary(rpc.fetchRiskCeilings, {}, { headers: { traceparent: `00-${kept}-${callerSpan()}-01` } });
    await spansOf(kept, FETCH);
    expect(collector.spans.filter(({ traceId }) => traceId === left)).toEqual([]);
  });

  test('a trace context that cannot be read is no reason to refuse a call', async () => {
    const before = collector.spans.length;
    await callers.grpc.unary(rpc.fetchRiskCeilings, {}, { headers: { traceparent: 'nonsense' } });
    await vi.waitFor(() => {
      const calls = collector.spans.slice(before).filter(({ kind }) => kind === SERVER);
      expect(calls.find(({ parentSpanId, name }) => name === FETCH && !parentSpanId)).toBeDefined();
    });
  });

  test('what is refused ends its span with its code, and only a fault of the server is an error', async () => {
    const traceId = newTrace();
    const headers = { traceparent: `00-${traceId}-${callerSpan()}-01` };
    await refusal(callers.grpc.unary(rpc.insertViolation, violation(), { headers }));
    const [span] = await spansOf(traceId, 'hoc.cus.policies.v1.PolicyEngineService/InsertViolation');
    expect(span!.attributes).toMatchObject({
      'rpc.response.status_code': 'FAILED_PRECONDITION',
      'error.type': 'FAILED_PRECONDITION',
    });
    expect(span!.status.code ?? 0).toBe(0);
  });

  test('a statement that fails says with which SQLSTATE, below the call that sent it', async () => {
    const traceId = newTrace();
    const request = violation();
    await callers.grpc.unary(rpc.insertViolation, request, { transaction: 'single-use' });
    const headers = { traceparent: `00-${traceId}-${callerSpan()}-01` };
    await refusal(callers.grpc.unary(rpc.insertViolation, request, { transaction: 'single-use', headers }));
    const spans = await spansOf(traceId, 'policy_engine.insert_violation');
    const statement = spans.find(({ kind }) => kind === CLIENT)!;
    expect(statement.attributes).toMatchObject({ 'db.response.status_code': '23505', 'error.type': '23505' });
    expect(statement.status.code).toBe(2);
  });

  test('the calls of a transaction have their statements, and its end is told with its cause', async () => {
    const traceId = newTrace();
    const headers = { traceparent: `00-${traceId}-${callerSpan()}-01` };
    const { id = '' } = (await callers.grpc.unary(tx.begin, {}, { headers })).transaction ?? {};
    await callers.grpc.unary(rpc.insertViolation, violation(), { transaction: id, headers });
    await callers.grpc.unary(tx.commit, { transactionId: id }, { headers });
    const spans = await spansOf(traceId, 'transaction.begin', 'transaction.commit', 'policy_engine.insert_violation');
    const commit = spans.find(({ name }) => name.endsWith('/Commit'))!;
    expect(spans.find(({ name }) => name === 'transaction.commit')).toMatchObject({ parentSpanId: commit.spanId });
    expect(commit.events).toMatchObject([{ name: 'transaction ended', attributes: { cause: 'committed' } }]);
  });

  test('a stream is one span, and what it fetches hangs on it, also when its reader leaves early', async () => {
    for (const early of [false, true]) {
      const traceId = newTrace();
      const headers = { traceparent: `00-${traceId}-${callerSpan()}-01` };
      const stream = callers.grpc.stream(rpc.streamRiskCeilings, {}, { headers });
      for await (const _ of stream) if (early) break;
      const spans = await spansOf(
        traceId,
        'hoc.cus.policies.v1.PolicyEngineService/StreamRiskCeilings',
        'transaction.begin_read_only',
        'ROLLBACK',
      );
      const call = spans.find(({ kind }) => kind === SERVER)!;
      expect(spans.filter(({ kind }) => kind === SERVER)).toHaveLength(1);
      for (const { kind, parentSpanId } of spans) if (kind === CLIENT) expect(parentSpanId).toBe(call.spanId);
    }
  });

  test('the same numbers are pushed and can be asked for', async () => {
    await vi.waitFor(async () => {
      const names = new Set(collector.points.map(({ name }) => name));
      for (const name of ['rpc.server.call.duration', 'db.client.operation.duration', 'process.memory.usage']) {
        expect(names).toContain(name);
      }
      const ends = collector.points.filter(({ name }) => name === 'policy_sidecar.transaction.ends');
      expect(ends.findLast(({ attributes }) => attributes['cause'] === 'committed')?.value).toBe(1);
    });
    const text = await metrics();
    expect(text).toMatch(/^rpc_server_call_duration\w*_count\{[^}]*rpc_response_status_code="OK"[^}]*\} [1-9]/m);
    expect(text).toContain(`policy_sidecar_build_info{version="${VERSION}",node="${process.version}"} 1`);
    expect(text).toMatch(/^db_client_connection_count\{[^}]*pool_name="call"[^}]*state="idle"[^}]*\} [1-9]/m);
  });

  test('whoever sends is called by its name and version', () => {
    for (const resource of collector.resources) {
      expect(resource).toMatchObject({
        'service.name': 'engines-sidecar',
        'service.version': VERSION,
        'deployment.environment.name': 'test',
      });
    }
    expect(collector.resources.length).toBeGreaterThan(0);
  });

  test('no value, no parameter and no SQL is ever told', async () => {
    const told = `${collector.text()}${await metrics()}`;
    expect(told).toContain('policy_engine.insert_violation');
    for (const secret of [SECRET, 'insert into', 'select ', '"local"', database.url])
      expect(told).not.toContain(secret);
  });
});

describe('where a share of the traces is kept', () => {
  const database = useDatabase();
  const collector = useStarted(startCollector, ({ close }) => close());

  test('it goes by their ids, whatever their callers do: every call of a trace, or none', async () => {
    const { sidecar, callers } = await start(database, {
      OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
      OTEL_TRACES_SAMPLER: 'traceidratio',
      OTEL_TRACES_SAMPLER_ARG: '0.5',
    });
    const traces = Array.from({ length: 40 }, newTrace);
    for (const traceId of [...traces, ...traces.toReversed()]) {
      const headers = { traceparent: `00-${traceId}-${callerSpan()}-00` };
      await callers.grpc.unary(rpc.fetchRiskCeilings, {}, { headers });
    }
    for (const caller of Object.values(callers)) caller.close();
    sidecar.child.kill('SIGTERM');
    await sidecar.ended;
    const calls = collector.spans.filter(({ kind }) => kind === SERVER).map(({ traceId }) => traceId);
    const counts = traces.map((traceId) => calls.filter((each) => each === traceId).length);
    expect(new Set(counts)).toEqual(new Set([0, 2]));
  });
});
