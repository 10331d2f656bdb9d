import { setTimeout as sleep } from 'node:timers/promises';
import { DiagLogLevel, diag } from '@opentelemetry/api';
import { getNumberFromEnv } from '@opentelemetry/core';
import { OTLPMetricExporter } from '@opentelemetry/exporter-metrics-otlp-http';
import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import {
  type IMetricReader,
  MeterProvider,
  type MetricProducer,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics';
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
} from '@opentelemetry/sdk-trace';
import type { Logger } from '../log.ts';
import { SERVICE } from '../log.ts';
import { VERSION } from '../version.ts';
import { producerOf } from './histograms.ts';
import { createDurations } from './instruments.ts';
import { Recorder } from './recorder.ts';
import type { Telemetry } from './telemetry.ts';
import { Traces } from './traces.ts';
import type { Sampling, Wanted } from './wanted.ts';

const SCOPE = 'policy-sidecar';
const SCHEMA = { schemaUrl: 'https://opentelemetry.io/schemas/1.40.0' };

/** How often what exporters complain of is told, milliseconds: a collector that is away fails every export. */
const COMPLAIN_MS = 60_000;

const samplerOf = ({ root, parent, ratio }: Sampling): Sampler => {
  const roots = {
    always_on: () => new AlwaysOnSampler(),
    always_off: () => new AlwaysOffSampler(),
    traceidratio: () => new TraceIdRatioBasedSampler(ratio),
  };
  const sampler = roots[root]();
  return parent ? new ParentBasedSampler({ root: sampler }) : sampler;
};

/** What exporters complain of, in the log and not too often. */
const listen = (log: Logger): void => {
  let toldAt = Number.NEGATIVE_INFINITY;
  const complain = (problem: string): void => {
    const now = performance.now();
    if (now - toldAt < COMPLAIN_MS) return;
    toldAt = now;
    log.warn({ problem }, 'telemetry could not be sent');
  };
  const quiet = (): void => {};
  diag.setLogger({ error: complain, warn: complain, info: quiet, debug: quiet, verbose: quiet }, DiagLogLevel.WARN);
};

/** Numbers, sent now and then; what the variables do not say is as the specification has it. */
const pushed = (metricProducers: MetricProducer[]): IMetricReader => {
  const exportIntervalMillis = getNumberFromEnv('OTEL_METRIC_EXPORT_INTERVAL') ?? 60_000;
  const exportTimeoutMillis = getNumberFromEnv('OTEL_METRIC_EXPORT_TIMEOUT') ?? 30_000;
  return new PeriodicExportingMetricReader({
    exporter: new OTLPMetricExporter(),
    metricProducers,
    exportIntervalMillis,
    exportTimeoutMillis: Math.min(exportTimeoutMillis, exportIntervalMillis),
  });
};

/** Spans, sent together. */
const batched = (): BatchSpanProcessor =>
  new BatchSpanProcessor({
    exporter: new OTLPTraceExporter(),
    scheduledDelayMillis: getNumberFromEnv('OTEL_BSP_SCHEDULE_DELAY') ?? 5_000,
    exportTimeoutMillis: getNumberFromEnv('OTEL_BSP_EXPORT_TIMEOUT') ?? 30_000,
    maxQueueSize: getNumberFromEnv('OTEL_BSP_MAX_QUEUE_SIZE') ?? 2_048,
    maxExportBatchSize: getNumberFromEnv('OTEL_BSP_MAX_EXPORT_BATCH_SIZE') ?? 512,
  });

/** Starts the SDK of OpenTelemetry with what is wanted. */
export const openTelemetry = ({ traces, push, pull }: Wanted, log: Logger): Telemetry => {
  listen(log);
  const resource = defaultResource()
    .merge(resourceFromAttributes({ 'service.name': SERVICE, 'service.version': VERSION }))
    .merge(detectResources({ detectors: [envDetector] }));
  const scope = { name: SCOPE, version: VERSION, ...SCHEMA };
  const durations = createDurations();
  const producers = [producerOf(scope, Object.values(durations))];
  const prometheus = pull
    ? new PrometheusExporter({ preventServerStart: true, withoutScopeInfo: true, metricProducers: producers })
    : undefined;
  const readers: IMetricReader[] = prometheus ? [prometheus] : [];
  if (push) readers.push(pushed(producers));
  const meters = new MeterProvider({ resource, readers });
  const spans = traces && batched();
  const recorder = new Recorder(
    meters.getMeter(SCOPE, VERSION, SCHEMA),
    durations,
    spans && new Traces(samplerOf(traces), spans, { resource, instrumentationScope: scope }),
    VERSION,
  );
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  return Object.assign(recorder, {
    metrics:
      prometheus && (async (): Promise<string> => serializer.serialize((await prometheus.collect()).resourceMetrics)),
    close: async (ms: number): Promise<void> => {
      recorder.stop();
      const sent = Promise.allSettled([meters.shutdown(), spans?.shutdown()]);
      await Promise.race([sent, sleep(ms, undefined, { ref: false })]);
    },
  });
};
