import type { Attributes, Meter } from '@opentelemetry/api';
import { codeName, RpcError } from '../contract/errors.ts';
import type { Again, DatabaseObserver, Ended } from '../database/observer.ts';
import { isServerError } from '../database/sqlstate.ts';
import type { Statement } from '../database/statement.ts';
import {
  type AllDurations,
  createInstruments,
  type Instruments,
  observeDatabase,
  observeProcess,
  POOL,
} from './instruments.ts';
import { causeOf } from './lease-ends.ts';
import { attributesOf, namedOf } from './statements.ts';
import type { Arrived, Look, SeenCall } from './telemetry.ts';
import { type CallSpan, endStatement, type Traces } from './traces.ts';

/** A class of errors: the SQLSTATE, the reason of a refusal, or that the connection failed. */
const errorType = (error: unknown): string => {
  if (isServerError(error)) return error.code ?? '_OTHER';
  return error instanceof RpcError ? (error.reason ?? codeName(error.code)) : 'connection';
};

const straight = <T>(work: () => T): T => work();
const straightEach = <T>(pieces: AsyncGenerator<T>): AsyncGenerator<T> => pieces;

const lanes = new Map<string, Attributes>();

/** One object for each lane. */
const laneAttributes = (lane: string): Attributes => {
  const known = lanes.get(lane) ?? { [POOL]: lane };
  lanes.set(lane, known);
  return known;
};

/** Time since, seconds. */
const since = (startedAt: number): number => (performance.now() - startedAt) / 1_000;

/** Notes everything in instruments and, where calls are traced, in spans. */
export class Recorder implements DatabaseObserver {
  readonly #meter: Meter;
  readonly #durations: AllDurations;
  readonly #instruments: Instruments;
  readonly #traces: Traces | undefined;
  readonly #calls = new Map<string, Attributes>();
  /** Ends the measuring of the process. */
  readonly stop: () => void;

  constructor(meter: Meter, durations: AllDurations, traces: Traces | undefined, version: string) {
    this.#meter = meter;
    this.#durations = durations;
    this.#instruments = createInstruments(meter);
    this.#traces = traces;
    this.stop = observeProcess(meter, version);
  }

  look(looking: () => Look): void {
    observeDatabase(this.#meter, looking);
  }

  call(arrived: Arrived): SeenCall {
    const traces = this.#traces;
    const startedAt = performance.now();
    const method = arrived.endpoint.path.slice(1);
    const span = traces?.begin(arrived, method);
    const ended = (failure: RpcError | undefined): void => {
      const code = codeName(failure?.code ?? 0);
      this.#durations.calls.record(since(startedAt), this.#attributes(arrived.system, method, code));
      if (span) traces?.end(span, code);
    };
    const traceId = span?.span.spanContext().traceId;
    // What is not kept has no use for knowing its statements.
    if (!traces || !span?.span.isRecording()) return { traceId, run: straight, each: straightEach, ended };
    return {
      traceId,
      run: (work) => traces.within(span, work),
      each: (pieces) => each(traces, span, pieces),
      ended,
    };
  }

  /** The same object each time. */
  #attributes(system: string, method: string, code: string): Attributes {
    const key = `${system} ${method} ${code}`;
    const known = this.#calls.get(key);
    if (known) return known;
    const made = {
      'rpc.system.name': system,
      'rpc.method': method,
      'rpc.response.status_code': code,
      ...(code === 'OK' ? {} : { 'error.type': code }),
    };
    this.#calls.set(key, made);
    return made;
  }

  sent(what: Statement<unknown> | string): Ended {
    const named = namedOf(what);
    const span = this.#traces?.statement(named);
    const startedAt = performance.now();
    return (error) => {
      const failed = error === undefined ? undefined : errorType(error);
      this.#durations.statements.record(since(startedAt), attributesOf(named, failed));
      if (span) endStatement(span, failed);
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
      if (failed === 'CONNECTION_WAIT_TIMEOUT') this.#instruments.timeouts.add(1, attributes);
      this.#traces?.event('no connection', { ...attributes, wait_seconds: waited, 'error.type': failed });
    };
  }

  again(why: Again): void {
    this.#instruments.again.add(1, { reason: why });
    this.#traces?.event('done again', { reason: why });
  }

  leaseEnded(state: string, how: string): void {
    const cause = causeOf(state, how);
    this.#instruments.leaseEnds.add(1, { cause });
    this.#traces?.event('transaction ended', { cause });
  }
}

/** Pieces, each made as a part of the call. */
async function* each<T>(traces: Traces, span: CallSpan, pieces: AsyncGenerator<T>): AsyncGenerator<T> {
  try {
    for (;;) {
      const next = await traces.within(span, () => pieces.next());
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await traces.within(span, () => pieces.return(undefined));
  }
}
