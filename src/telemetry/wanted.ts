import { ConfigError } from '../setting-forms.ts';

type Env = Readonly<Record<string, string | undefined>>;

/** Decides which traces are kept, by the names of OpenTelemetry. */
export interface Sampling {
  readonly root: 'always_on' | 'always_off' | 'traceidratio';
  /** True where a caller that has decided already is followed. */
  readonly parent: boolean;
  /** Share of the traces, for `traceidratio`. */
  readonly ratio: number;
}

/** What is to be told, and to whom. */
export interface Wanted {
  /** Traces by OTLP; undefined: none. */
  readonly traces: Sampling | undefined;
  /** Numbers by OTLP. */
  readonly push: boolean;
  /** Numbers for Prometheus, on the probe listener. */
  readonly pull: boolean;
}

const SAMPLER = /^(parentbased_)?(always_on|always_off|traceidratio)$/;

const samplingOf = (env: Env): Sampling => {
  const name = env['OTEL_TRACES_SAMPLER'] || 'parentbased_always_on';
  const [, parent, root] = SAMPLER.exec(name) ?? [];
  if (!root) {
    throw new ConfigError(
      `OTEL_TRACES_SAMPLER must be always_on, always_off or traceidratio, or parentbased_ one of them, not "${name}"`,
    );
  }
  const text = env['OTEL_TRACES_SAMPLER_ARG'] || '1';
  const ratio = Number(text);
  if (!(ratio >= 0 && ratio <= 1)) throw new ConfigError(`OTEL_TRACES_SAMPLER_ARG must be from 0 to 1, not "${text}"`);
  return { root: root as Sampling['root'], parent: parent !== undefined, ratio };
};

/** The exporters that a variable names; without it the endpoint decides. */
const exportersOf = (env: Env, signal: 'TRACES' | 'METRICS', known: readonly string[]): readonly string[] => {
  const variable = `OTEL_${signal}_EXPORTER`;
  const isPlaced = Boolean(env['OTEL_EXPORTER_OTLP_ENDPOINT'] || env[`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`]);
  const names = (env[variable] || (isPlaced ? 'otlp' : 'none')).split(',').map((each) => each.trim());
  const strange = names.find((name) => !known.includes(name));
  if (strange !== undefined) throw new ConfigError(`${variable} must be of ${known.join(', ')}, not "${strange}"`);
  return names;
};

const OVER_HTTP = new Set(['http/json', 'http/protobuf']);

/**
 * Reads the standard variables of OpenTelemetry.
 *
 * @param env its endpoints, headers, intervals and limits are read by its own packages.
 * @param probes whether there is a listener that Prometheus can ask.
 * @returns undefined where nothing is wanted.
 * @throws ConfigError with one line that names the variable.
 */
export const readWanted = (env: Env, probes: boolean): Wanted | undefined => {
  if (env['OTEL_SDK_DISABLED']?.toLowerCase() === 'true') return undefined;
  const traces = exportersOf(env, 'TRACES', ['otlp', 'none']).includes('otlp');
  const push = exportersOf(env, 'METRICS', ['otlp', 'prometheus', 'none']).includes('otlp');
  if (!traces && !push && !probes) return undefined;
  for (const signal of ['', ...(traces ? ['TRACES_'] : []), ...(push ? ['METRICS_'] : [])]) {
    const variable = `OTEL_EXPORTER_OTLP_${signal}PROTOCOL`;
    const protocol = env[variable] || 'http/json';
    if ((traces || push) && !OVER_HTTP.has(protocol)) {
      throw new ConfigError(`${variable} must be http/json or http/protobuf, not "${protocol}"`);
    }
  }
  return { traces: traces ? samplingOf(env) : undefined, push, pull: probes };
};
