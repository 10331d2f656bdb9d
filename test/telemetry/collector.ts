import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

type Values = Readonly<Record<string, unknown>>;

/** A span as a collector has it, with its attributes as a record. */
export interface ReceivedSpan {
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly traceState?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: Values;
  readonly events: readonly { readonly name: string; readonly attributes: Values }[];
  readonly status: { readonly code?: number };
}

/** One point of a metric: its labels, and its value or count. */
export interface ReceivedPoint {
  readonly name: string;
  readonly unit: string;
  readonly attributes: Values;
  readonly value: number;
}

/** A receiver of OTLP over HTTP that keeps what it gets. */
export interface Collector {
  readonly url: string;
  readonly spans: readonly ReceivedSpan[];
  readonly points: readonly ReceivedPoint[];
  /** Attributes of the resources that sent something. */
  readonly resources: readonly Values[];
  /** Everything as it came. */
  text(): string;
  close(): Promise<void>;
}

interface Attribute {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}
type Listed = Readonly<Record<string, unknown>> & { readonly attributes?: readonly Attribute[] };

const valuesOf = (attributes: readonly Attribute[] = []): Values =>
  Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));

const listOf = (of: unknown, key: string): Listed[] => ((of as Record<string, unknown>)[key] as Listed[]) ?? [];

/** Listens on a free port of loopback. */
export const startCollector = async (): Promise<Collector> => {
  const spans: ReceivedSpan[] = [];
  const points: ReceivedPoint[] = [];
  const resources: Values[] = [];
  let text = '';
  const takeSpans = (group: Listed): void => {
    for (const scope of listOf(group, 'scopeSpans')) {
      for (const span of listOf(scope, 'spans')) {
        const events = listOf(span, 'events').map((event) => ({ ...event, attributes: valuesOf(event.attributes) }));
        spans.push({ ...span, attributes: valuesOf(span.attributes), events } as unknown as ReceivedSpan);
      }
    }
  };
  const takePoints = (group: Listed): void => {
    for (const scope of listOf(group, 'scopeMetrics')) {
      for (const metric of listOf(scope, 'metrics')) {
        const { name, unit } = metric as unknown as ReceivedPoint;
        const data = metric['histogram'] ?? metric['sum'] ?? metric['gauge'];
        for (const point of listOf(data, 'dataPoints')) {
          const value = Number(point['count'] ?? point['asDouble'] ?? point['asInt']);
          points.push({ name, unit, attributes: valuesOf(point.attributes), value });
        }
      }
    }
  };
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    text += body;
    const read: unknown = JSON.parse(body);
    for (const group of [...listOf(read, 'resourceSpans'), ...listOf(read, 'resourceMetrics')]) {
      resources.push(valuesOf((group['resource'] as Listed).attributes));
      takeSpans(group);
      takePoints(group);
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    points,
    resources,
    text: () => text,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
};
