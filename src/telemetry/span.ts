import { randomFillSync } from 'node:crypto';
import { type Attributes, type HrTime, type SpanContext, type SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { hrTimeDuration, type InstrumentationScope, millisToHrTime } from '@opentelemetry/core';
import type { Resource } from '@opentelemetry/resources';
import type { ReadableSpan, TimedEvent } from '@opentelemetry/sdk-trace';

const TRACE_ID_BYTES = 16;
const SPAN_ID_BYTES = 8;

const random = Buffer.alloc(256 * TRACE_ID_BYTES);
let used = random.length;

const randomHex = (bytes: number): string => {
  if (used + bytes > random.length) {
    randomFillSync(random);
    used = 0;
  }
  used += bytes;
  return random.toString('hex', used - bytes, used);
};

export const newTraceId = (): string => randomHex(TRACE_ID_BYTES);
export const newSpanId = (): string => randomHex(SPAN_ID_BYTES);

/** What is between this process's clock and that of the world, milliseconds. */
export const clockOffset = (): number => Date.now() - performance.now();

/** Who tells of spans. */
export interface Teller {
  readonly resource: Resource;
  readonly instrumentationScope: InstrumentationScope;
}

/** What a span is when it begins. */
interface Beginning {
  readonly name: string;
  readonly kind: SpanKind;
  readonly context: SpanContext;
  readonly parent: SpanContext | undefined;
  /** As {@link clockOffset} had it when the call began: the spans of one call do not jump when the clock is set. */
  readonly offset: number;
}

/**
 * A piece of a trace that is kept. The SDK's own copies its attributes twice and looks at each, though they are this
 * program's and few; with every trace kept that cost a call more than everything else that is told of it. Times become what
 * exporters take when one asks.
 */
export class KeptSpan implements ReadableSpan {
  readonly name: string;
  readonly kind: SpanKind;
  readonly parentSpanContext?: SpanContext;
  readonly events: TimedEvent[] = [];
  readonly links = [];
  readonly droppedAttributesCount = 0;
  readonly droppedEventsCount = 0;
  readonly droppedLinksCount = 0;
  readonly resource: Resource;
  readonly instrumentationScope: InstrumentationScope;
  readonly offset: number;
  readonly #context: SpanContext;
  readonly #began = performance.now();
  #ended: number | undefined;
  #isFault = false;
  attributes: Attributes = {};

  constructor({ resource, instrumentationScope }: Teller, { name, kind, context, parent, offset }: Beginning) {
    this.name = name;
    this.kind = kind;
    this.resource = resource;
    this.instrumentationScope = instrumentationScope;
    this.offset = offset;
    this.#context = context;
    if (parent) this.parentSpanContext = parent;
  }

  readonly spanContext = (): SpanContext => this.#context;

  get startTime(): HrTime {
    return millisToHrTime(this.#began + this.offset);
  }

  get endTime(): HrTime {
    return millisToHrTime((this.#ended ?? this.#began) + this.offset);
  }

  get duration(): HrTime {
    return hrTimeDuration(this.startTime, this.endTime);
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  get status() {
    return { code: this.#isFault ? SpanStatusCode.ERROR : SpanStatusCode.UNSET };
  }

  /** Something has happened meanwhile. */
  event(name: string, attributes: Attributes): void {
    this.events.push({ name, attributes, time: millisToHrTime(performance.now() + this.offset) });
  }

  /** @param isFault whether it failed in a way that is an error of a span. */
  end(attributes: Attributes, isFault: boolean): void {
    this.#ended = performance.now();
    this.#isFault = isFault;
    this.attributes = attributes;
  }
}
