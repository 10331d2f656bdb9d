import { AsyncLocalStorage } from 'node:async_hooks';
import {
  type Context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
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

const propagator = new W3CTraceContextPropagator();
const getter = {
  keys: (carrier: object) => Object.keys(carrier),
  get: (carrier: object, key: string) => (carrier as Readonly<Record<string, string>>)[key],
};

/** The span of a call, and what its statements' spans hang on. */
export interface CallSpan {
  readonly span: Span;
  readonly context: Context;
}

/** Spans: one a call, one below it for each statement. */
export class Traces {
  readonly #tracer: Tracer;
  readonly #current = new AsyncLocalStorage<CallSpan>();

  constructor(tracer: Tracer) {
    this.#tracer = tracer;
  }

  /** Begins the span of a call, below its caller's. */
  begin({ system, trace: sent }: Arrived, method: string): CallSpan {
    const parent = sent ? propagator.extract(ROOT_CONTEXT, sent, getter) : ROOT_CONTEXT;
    const attributes = { 'rpc.system.name': system, 'rpc.method': method };
    const span = this.#tracer.startSpan(method, { kind: SpanKind.SERVER, attributes }, parent);
    return { span, context: span.isRecording() ? trace.setSpan(parent, span) : parent };
  }

  /** Ends the span of a call. */
  end({ span }: CallSpan, code: string): void {
    if (!span.isRecording()) return;
    span.setAttribute('rpc.response.status_code', code);
    if (code !== 'OK') span.setAttribute('error.type', code);
    if (SERVER_FAULTS.has(code)) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  }

  /** Does something as a part of a call. */
  within<T>(call: CallSpan, work: () => T): T {
    return this.#current.run(call, work);
  }

  /** Begins the span of a statement; undefined where no trace of a call is kept. */
  statement({ summary, attributes }: Named): Span | undefined {
    const call = this.#current.getStore();
    if (!call?.span.isRecording()) return undefined;
    return this.#tracer.startSpan(summary, { kind: SpanKind.CLIENT, attributes }, call.context);
  }

  /** Notes something that happened to the call that is under way, if its trace is kept. */
  event(name: string, attributes: Readonly<Record<string, string | number>>): void {
    const span = this.#current.getStore()?.span;
    if (span?.isRecording()) span.addEvent(name, attributes);
  }
}

/** Ends the span of a statement. */
export const endStatement = (span: Span, failed: string | undefined): void => {
  if (failed !== undefined) {
    span.setAttribute('error.type', failed);
    if (/^[\dA-Z]{5}$/.test(failed)) span.setAttribute('db.response.status_code', failed);
    span.setStatus({ code: SpanStatusCode.ERROR });
  }
  span.end();
};
