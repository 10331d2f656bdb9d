import type { Attributes, Counter, Meter } from '@opentelemetry/api';
import { codeName, RpcError } from '../contract/errors.ts';
import type { Again, DatabaseObserver, Ended } from '../database/observer.ts';
import { isServerError } from '../database/sqlstate.ts';
import type { Statement } from '../database/statement.ts';
import type { Durations } from './histograms.ts';
import {
  type AllDurations,
  createInstruments,
  type Instruments,
  observeDatabase,
  observeProcess,
  POOL,
} from './instruments.ts';
import type { KeptSpan } from './span.ts';
import { attributesOf, namedOf } from './statements.ts';
import type { Arrived, Look, SeenCall } from './telemetry.ts';
import type { Traces } from './traces.ts';

/** A class of errors: the SQLSTATE, the reason of a refusal, or that the connection failed. */
const errorType = (error: unknown): string => {
  if (isServerError(error)) return error.code ?? '_OTHER';
  return error instanceof RpcError ? (error.reason ?? codeName(error.code)) : 'connection';
};

/** What a wait for a connection ends with where a clock ends it: the sidecar's, or the caller's. */
const BY_CLOCK: ReadonlySet<string> = new Set(['CONNECTION_WAIT_TIMEOUT', 'DEADLINE_EXCEEDED']);

const lanes = new Map<string, Attributes>();

/** One object for each lane. */
const laneAttributes = (lane: string): Attributes => {
  const known = lanes.get(lane) ?? { [POOL]: lane };
  lanes.set(lane, known);
  return known;
};

/** Time since, seconds. */
const since = (startedAt: number): number => (performance.now() - startedAt) / 1_000;

/** A method as it is called in one way. */
class Method {
  readonly name: string;
  readonly #system: string;
  readonly #outcomes = new Map<string, Attributes>();

  constructor(name: string, system: string) {
    this.name = name;
    this.#system = system;
  }

  /** What is told of its calls that end with that code: one object for each. */
  ended(code: string): Attributes {
    const known = this.#outcomes.get(code);
    if (known) return known;
    const made = {
      'rpc.system.name': this.#system,
      'rpc.method': this.name,
      'rpc.response.status_code': code,
      ...(code === 'OK' ? {} : { 'error.type': code }),
    };
    this.#outcomes.set(code, made);
    return made;
  }
}

/** Where calls are noted. */
interface Noted {
  readonly durations: Durations;
  readonly failures: Counter;
}

/** A call that is counted. */
class CountedCall implements SeenCall {
  readonly traceId: string | undefined;
  readonly #noted: Noted;
  readonly #method: Method;
  readonly #startedAt = performance.now();

  constructor(noted: Noted, method: Method, traceId: string | undefined) {
    this.#noted = noted;
    this.#method = method;
    this.traceId = traceId;
  }

  ended(failure: RpcError | undefined): void {
    if (failure) this.#noted.failures.add(1, { reason: failure.reason });
    this.told(codeName(failure?.code ?? 0));
  }

  /** @returns what is told of it. */
  protected told(code: string): Attributes {
    const attributes = this.#method.ended(code);
    this.#noted.durations.record(since(this.#startedAt), attributes);
    return attributes;
  }
}

/** A call whose trace is kept. */
class TracedCall extends CountedCall {
  readonly #traces: Traces;
  readonly #span: KeptSpan;

  constructor(noted: Noted, method: Method, traceId: string, traces: Traces, span: KeptSpan) {
    super(noted, method, traceId);
    this.#traces = traces;
    this.#span = span;
  }

  run<T>(work: () => T): T {
    return this.#traces.within(this.#span, work);
  }

  async *each<T>(pieces: AsyncGenerator<T>): AsyncGenerator<T> {
    try {
      for (;;) {
        const next = await this.run(() => pieces.next());
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await this.run(() => pieces.return(undefined));
    }
  }

  protected override told(code: string): Attributes {
    const attributes = super.told(code);
    this.#traces.end(this.#span, code, attributes);
    return attributes;
  }
}

/** Notes everything in instruments and, where calls are traced, in spans. */
export class Recorder implements DatabaseObserver {
  readonly #meter: Meter;
  readonly #durations: AllDurations;
  readonly #instruments: Instruments;
  readonly #calls: Noted;
  readonly #traces: Traces | undefined;
  readonly #methods = { grpc: new Map<string, Method>(), connectrpc: new Map<string, Method>() };
  /** Ends the measuring of the process. */
  readonly stop: () => void;

  constructor(meter: Meter, durations: AllDurations, traces: Traces | undefined, version: string) {
    this.#meter = meter;
    this.#durations = durations;
    this.#instruments = createInstruments(meter);
    this.#calls = { durations: durations.calls, failures: this.#instruments.failures };
    this.#traces = traces;
    this.stop = observeProcess(meter, version);
  }

  look(looking: () => Look): void {
    observeDatabase(this.#meter, looking);
  }

  call({ endpoint, system, trace }: Arrived): SeenCall {
    const method = this.#method(endpoint.path, system);
    const traces = this.#traces;
    if (!traces) return new CountedCall(this.#calls, method, undefined);
    const { traceId, span } = traces.begin(trace, method.name);
    // What is not kept has no use for knowing its statements.
    if (!span) return new CountedCall(this.#calls, method, traceId);
    return new TracedCall(this.#calls, method, traceId, traces, span);
  }

  /** The same object each time. */
  #method(path: string, system: Arrived['system']): Method {
    const methods = this.#methods[system];
    const known = methods.get(path);
    if (known) return known;
    const made = new Method(path.slice(1), system);
    methods.set(path, made);
    return made;
  }

  sent(what: Statement<unknown> | string): Ended {
    const named = namedOf(what);
    const span = this.#traces?.statement(named);
    const startedAt = performance.now();
    return (error) => {
      const failed = error === undefined ? undefined : errorType(error);
      const attributes = attributesOf(named, failed);
      this.#durations.statements.record(since(startedAt), attributes);
      if (span) this.#traces?.endStatement(span, attributes, failed);
    };
  }

  waiting(lane: string): Ended {
    const startedAt = performance.now();
    return (error) => {
      const waited = since(startedAt);
      const attributes = laneAttributes(lane);
      if (error === undefined) {
        this.#durations.waits.record(waited, attributes);
        this.#traces?.event('connection lent', { ...attributes, wait_seconds: waited });
        return;
      }
      const failed = errorType(error);
      if (BY_CLOCK.has(failed)) this.#instruments.timeouts.add(1, attributes);
      this.#traces?.event('no connection', { ...attributes, wait_seconds: waited, 'error.type': failed });
    };
  }

  again(why: Again): void {
    this.#instruments.again.add(1, { reason: why });
    this.#traces?.event('done again', { reason: why });
  }

  leaseEnded(state: string, why: string | undefined): void {
    const cause = why ?? state.replaceAll(' ', '_');
    this.#instruments.leaseEnds.add(1, { cause });
    this.#traces?.event('transaction ended', { cause });
  }
}
