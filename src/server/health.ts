import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { Code, RpcError } from '../database/errors.ts';
import type { Lane } from '../database/pool.ts';
import {
  Health,
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as Status,
} from '../gen/grpc/health/v1/health_pb.ts';
import { type ControlCall, controlEndpoints, type Endpoint } from './endpoint.ts';

const PROBE_MS = 1_000;
const PROBE_TIMEOUT_MS = 900;
/** Probes that must agree before the status changes: one lost probe takes no pod out of service. */
const FAILURES_TO_LEAVE = 3;
const SUCCESSES_TO_RETURN = 2;

/** Whether calls can be served. Follows the database with hysteresis, on a connection that no call can take. */
export class Readiness {
  readonly #lane: Lane;
  readonly #log: Logger;
  readonly #stopped = new AbortController();
  #serving = false;
  #draining = false;
  #streak = 0;
  #changed: PromiseWithResolvers<void> = Promise.withResolvers();
  #loop: Promise<void> | undefined;

  constructor(lane: Lane, log: Logger) {
    this.#lane = lane;
    this.#log = log;
  }

  get serving(): boolean {
    return this.#serving && !this.#draining;
  }

  /** Settles at the next change. */
  get changed(): Promise<void> {
    return this.#changed.promise;
  }

  /** Starts probing; the caller has just reached the database. */
  start(): void {
    this.#set(true);
    this.#loop = this.#watch();
  }

  /** NOT_SERVING from now on. */
  drain(): void {
    this.#draining = true;
    this.#announce();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#loop;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await sleep(PROBE_MS, undefined, { signal, ref: false }).catch(() => {});
      if (signal.aborted) return;
      this.#count(await this.#probe());
    }
  }

  async #probe(): Promise<boolean> {
    try {
      const timeout = AbortSignal.timeout(PROBE_TIMEOUT_MS);
      await this.#lane.use(timeout, (connection) => connection.command('select 1', undefined, timeout));
      return true;
    } catch (error) {
      this.#log.debug({ problem: (error as Error).message }, 'health probe failed');
      return false;
    }
  }

  #count(healthy: boolean): void {
    this.#streak = healthy === this.#serving ? 0 : this.#streak + 1;
    if (this.#streak < (this.#serving ? FAILURES_TO_LEAVE : SUCCESSES_TO_RETURN)) return;
    this.#streak = 0;
    this.#set(healthy);
    if (healthy) this.#log.info('the database answers again: SERVING');
    else this.#log.error('the database does not answer: NOT_SERVING');
  }

  #set(serving: boolean): void {
    this.#serving = serving;
    this.#announce();
  }

  #announce(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }
}

/** `grpc.health.v1` for the server as a whole and for each service; needs no token. */
export const healthEndpoints = (
  readiness: Readiness,
  services: readonly DescService[],
  closing: AbortSignal,
): Endpoint[] => {
  const known = new Set(['', ...services.map(({ typeName }) => typeName)]);
  const status = (): Status => (readiness.serving ? Status.SERVING : Status.NOT_SERVING);
  return controlEndpoints(
    Health,
    {
      check: {
        handle: ({ service }: HealthCheckRequest) => {
          if (!known.has(service)) throw new RpcError(Code.NOT_FOUND, 'SERVICE_UNKNOWN', 'there is no such service');
          return { status: status() };
        },
      },
      watch: {
        async *handle({ service }: HealthCheckRequest, { signal }: ControlCall) {
          if (!known.has(service)) {
            yield { status: Status.SERVICE_UNKNOWN };
            await ended(signal, closing);
            return;
          }
          let sent: Status | undefined;
          while (!signal.aborted && !closing.aborted) {
            const { changed } = readiness;
            if (status() !== sent) {
              sent = status();
              yield { status: sent };
            } else {
              await Promise.race([changed, ended(signal, closing)]);
            }
          }
        },
      },
    },
    { open: true, quiet: true },
  );
};

const ended = (...signals: AbortSignal[]): Promise<void> =>
  new Promise((resolve) => {
    const any = AbortSignal.any(signals);
    if (any.aborted) resolve();
    else any.addEventListener('abort', () => resolve(), { once: true });
  });
