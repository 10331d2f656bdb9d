import type { RpcError } from '../contract/errors.ts';
import type { DatabaseObserver, LaneState, ReplicaState } from '../database/observer.ts';

/** A call as it is told of: its method and where it comes from, and nothing of who calls. */
export interface Arrived {
  readonly endpoint: { readonly path: string };
  readonly system: 'grpc' | 'connectrpc';
  readonly trace: { readonly traceparent: string; readonly tracestate: string | undefined } | undefined;
}

/** A call that is watched. */
export interface SeenCall {
  /** Undefined where calls are not traced. */
  readonly traceId: string | undefined;
  /** Does a piece of the call; statements that it sends belong to it. Absent where its trace is not kept, and nobody asks. */
  run?<T>(work: () => T): T;
  /** As {@link SeenCall.run}, for what comes in pieces. */
  each?<T>(pieces: AsyncGenerator<T>): AsyncGenerator<T>;
  /** The call is over. */
  ended(failure: RpcError | undefined): void;
}

/** What is looked at when numbers are collected. */
export interface Look {
  /** Whether calls are served, as `/ready` says it. */
  readonly ready: boolean;
  readonly lanes: readonly LaneState[];
  /** The lanes of replicas, and whether reads run there. */
  readonly replicas: readonly ReplicaState[];
  /** Single-use writes that wait for their turn. */
  readonly writesWaiting: number;
  /** The open transactions, and the calls that wait inside each. */
  readonly transactions: readonly { readonly waiting: number }[];
}

/** Watches over calls, statements, transactions and the process, and tells it in the words of OpenTelemetry. */
export interface Telemetry extends DatabaseObserver {
  call(arrived: Arrived): SeenCall;
  /** A transaction has ended: its state, and why the sidecar has ended it, where it has. */
  leaseEnded(state: string, cause: string | undefined): void;
  /** From now on this is looked at for every collection. */
  look(looking: () => Look): void;
  /** All numbers in the text format of Prometheus; undefined where they are not asked for. */
  readonly metrics: (() => Promise<string>) | undefined;
  /** Sends what is left, in so many milliseconds at most. */
  close(ms: number): Promise<void>;
}
