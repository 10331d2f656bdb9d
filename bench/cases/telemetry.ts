import type { Case } from '../bench.ts';
import { point } from '../calls.ts';
import { Rounds, type Side } from '../rounds.ts';
import { type Command, type Served, serve } from '../server.ts';
import { answerBytes, loaded } from '../sides.ts';
import { sink } from '../sink.ts';

const CALLERS = 16;
const OFF = 'telemetry off';
const METRICS = 'metrics';
const SAMPLED = 'metrics, 1 % of the traces';
const TRACED = 'metrics, every trace';

/** What it costs to be watched. */
export const telemetry: Case = {
  name: 'telemetry',
  run: async ({ sidecar, report, id, roundMs: ms, ...pace }) => {
    const collector = await sink();
    const pushed = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_METRIC_EXPORT_INTERVAL: '1000' };
    const traced = (ratio: string) => ({
      ...pushed,
      OTEL_TRACES_SAMPLER: 'parentbased_traceidratio',
      OTEL_TRACES_SAMPLER_ARG: ratio,
    });
    const ways: readonly [string, Command['env']][] = [
      [OFF, {}],
      [METRICS, { ...pushed, OTEL_TRACES_EXPORTER: 'none' }],
      [SAMPLED, traced('0.01')],
      [TRACED, traced('1')],
    ];
    const servers: Served[] = [];
    try {
      const sides = new Map<string, Side>();
      for (const [name, env] of ways) {
        const served = await serve({ ...sidecar, name, env: { ...sidecar.env, ...env } });
        servers.push(served);
        const call = point(id);
        sides.set(
          name,
          loaded(served, { calls: [call], bytes: await answerBytes(served, call), callers: CALLERS, ms }),
        );
      }
      const found = await Rounds.of(sides, pace);
      report.rates(`Point read by id, watched, ${CALLERS} callers`, found);
      report.target('point read with metrics, of one without', found.ratio(METRICS, OFF), '>=', 0.9);
      report.target('point read with 1 % of the traces, of one without', found.ratio(SAMPLED, OFF), '>=', 0.9);
      report.target('point read with every trace, of one without', found.ratio(TRACED, OFF), '>=', 0.9);
    } finally {
      await Promise.all(servers.map(({ stop }) => stop()));
      await collector.close();
    }
  },
};
