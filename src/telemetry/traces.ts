import { AsyncLocalStorage } from 'node:async_hooks';
import { type Attributes, ROOT_CONTEXT, type SpanContext, SpanKind, TraceFlags, trace } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { type Sampler, SamplingDecision, type SpanProcessor } from '@opentelemetry/sdk-trace';
import { clockOffset, KeptSpan, newSpanId, newTraceId, type Teller } from './span.ts';
import type { Named } from './statements.ts';
import type { Arrived } from './telemetry.ts';

/** Codes that are the server's fault, by the conventions; the others leave the status of a span unset. */
const SERVER_FAULTS: ReadonlySet<string> = new Set([
  'UNKNOWN',
  'DEADLINE_EXCEEDED',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
]);

const SQLSTATE = /^[\dA-Z]{5}$/;

const propagator = new W3CTraceContextPropagator();
const getter = {
  keys: (carrier: object) => Object.keys(carrier),
  get: (carrier: object, key: string) => (carrier as Readonly<Record<string, string>>)[key],
};

/** The trace of a call. */
export interface Traced {
  readonly traceId: string;
  /** The span of the call; undefined: the trace is not kept. */
  readonly span: KeptSpan | undefined;
}

/** Spans of the traces that are kept: one a call, one below it for each statement. */
export class Traces {
  readonly #sampler: Sampler;
  readonly #processor: SpanProcessor;
  readonly #teller: Teller;
  readonly #current = new AsyncLocalStorage<KeptSpan>();

  /** @param processor takes every span at its end. */
  constructor(sampler: Sampler, processor: SpanProcessor, teller: Teller) {
    this.#sampler = sampler;
    this.#processor = processor;
    this.#teller = teller;
  }

  /** Begins the span of a call, below its caller's, unless the trace is not kept. */
  begin(sent: Arrived['trace'], method: string): Traced {
    const context = sent ? propagator.extract(ROOT_CONTEXT, sent, getter) : ROOT_CONTEXT;
    const parent = sent && trace.getSpanContext(context);
    const traceId = parent?.traceId ?? newTraceId();
    const kind = SpanKind.SERVER;
    const { decision, traceState = parent?.traceState } = this.#sampler.shouldSample(
      context,
      traceId,
      method,
      kind,
      {},
      [],
    );
    if (decision !== SamplingDecision.RECORD_AND_SAMPLED) return { traceId, span: undefined };
    const own = contextOf(traceId, traceState);
    return {
      traceId,
      span: new KeptSpan(this.#teller, { name: method, kind, context: own, parent, offset: clockOffset() }),
    };
  }

  /** Ends the span of a call. */
  end(span: KeptSpan, code: string, attributes: Attributes): void {
    span.end(attributes, SERVER_FAULTS.has(code));
    this.#processor.onEnd(span);
  }

  /** Does something as a part of a call. */
  within<T>(span: KeptSpan, work: () => T): T {
    return this.#current.run(span, work);
  }

  /** Begins the span of a statement; undefined where no trace of a call is kept. */
  statement({ summary }: Named): KeptSpan | undefined {
    const call = this.#current.getStore();
    if (!call || call.ended) return undefined;
    const parent = call.spanContext();
    const context = contextOf(parent.traceId, parent.traceState);
    const { offset } = call;
    return new KeptSpan(this.#teller, { name: summary, kind: SpanKind.CLIENT, context, parent, offset });
  }

  /** Ends the span of a statement. */
  endStatement(span: KeptSpan, attributes: Attributes, failed: string | undefined): void {
    const hasCode = failed !== undefined && SQLSTATE.test(failed);
    span.end(hasCode ? { ...attributes, 'db.response.status_code': failed } : attributes, failed !== undefined);
    this.#processor.onEnd(span);
  }

  /** Notes something that happened to the call that is under way, if its trace is kept. */
  event(name: string, attributes: Readonly<Record<string, string | number>>): void {
    const call = this.#current.getStore();
    if (call && !call.ended) call.event(name, attributes);
  }
}

const contextOf = (traceId: string, traceState: SpanContext['traceState']): SpanContext => ({
  traceId,
  spanId: newSpanId(),
  traceFlags: TraceFlags.SAMPLED,
  ...(traceState && { traceState }),
});
