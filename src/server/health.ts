import { setTimeout as sleep } from 'node:timers/promises';
import type { DescService } from '@bufbuild/protobuf';
import type { Logger } from 'pino';
import { refuse } from '../contract/errors.ts';
import type { Database } from '../database/pool.ts';
import { Ending, type Signal, untilAborted } from '../database/signal.ts';
import { problemOf } from '../database/sqlstate.ts';
import {
  Health,
  type HealthCheckRequest,
  HealthCheckResponse_ServingStatus as Status,
} from '../gen/grpc/health/v1/health_pb.ts';
import { type ControlCall, controlEndpoints, type Endpoint } from './endpoint.ts';
import { type Condition, STARTING } from './probes.ts';

/** From the start of a probe to the start of the next. */
const PROBE_MS = 1_000;
const PROBE_TIMEOUT_MS = 900;
/** Probes that must agree before the status changes: one lost probe takes no pod out of service. */
const FAILURES_TO_LEAVE = 3;
const SUCCESSES_TO_RETURN = 2;

/** What the database can be used for. */
type Usability = 'writes' | 'reads' | 'nothing';

const PROBE = `select current_setting('transaction_read_only')`;

const FOUND: Readonly<Record<Usability, string>> = {
  writes: 'the database answers',
  reads: 'the database takes no writes, it is a standby or has been made read-only',
  nothing: 'the database does not answer',
};

const SAID: Readonly<Record<Usability, string>> = {
  writes: `${FOUND.writes}: SERVING`,
  reads: `${FOUND.reads}: NOT_SERVING but for reads`,
  nothing: `${FOUND.nothing}: NOT_SERVING`,
};

/** Whether calls can be served. Follows the database with hysteresis, on a connection that no call can take. */
export class Readiness implements Condition {
  readonly #database: Database;
  readonly #log: Logger;
  readonly #stopped = new AbortController();
  #usable: Usability = 'nothing';
  #isStarted = false;
  #draining = false;
  /** Probes in a row that found something else. */
  #streak = 0;
  #changed = new Ending();
  #loop: Promise<void> | undefined;

  constructor(database: Database, log: Logger) {
    this.#database = database;
    this.#log = log;
  }

  /** True while calls are served, writes among them or not. */
  serves(writes: boolean): boolean {
    return !this.#draining && (this.#usable === 'writes' || (this.#usable === 'reads' && !writes));
  }

  /** Whether calls have been let in: true for good, whatever becomes of the database. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  get whyNot(): string | undefined {
    if (this.#draining) return 'it is being shut down';
    if (!this.#isStarted) return STARTING.whyNot;
    return this.#usable === 'writes' ? undefined : FOUND[this.#usable];
  }

  /** Fires at the next change. */
  get changed(): Signal {
    return this.#changed;
  }

  /** Starts probing; settles after the first probe. */
  async start(): Promise<void> {
    this.#set(await this.#probe());
    this.#loop = this.#watch();
  }

  /** Calls are let in from now on. */
  open(): void {
    this.#isStarted = true;
    this.#announce();
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
    const pause = (ms: number): Promise<unknown> => sleep(ms, undefined, { signal, ref: false }).catch(() => {});
    await pause(PROBE_MS);
    while (!signal.aborted) {
      const next = performance.now() + PROBE_MS;
      this.#count(await this.#probe());
      await pause(Math.max(0, next - performance.now()));
    }
  }

  async #probe(): Promise<Usability> {
    const timeout = AbortSignal.any([AbortSignal.timeout(PROBE_TIMEOUT_MS), this.#stopped.signal]);
    try {
      return await this.#database.reserve.use(timeout, async (connection) => {
        const { rows } = await connection.command(PROBE, { signal: timeout });
        if (rows[0]?.[0] !== 'on') return 'writes';
        // A failover is followed by connecting anew.
        connection.markUnusable();
        return 'reads';
      });
    } catch (error) {
      this.#log.debug({ problem: problemOf(error) }, 'health probe failed');
      return 'nothing';
    }
  }

  #count(found: Usability): void {
    this.#streak = found === this.#usable ? 0 : this.#streak + 1;
    if (this.#streak < (this.#usable === 'nothing' ? SUCCESSES_TO_RETURN : FAILURES_TO_LEAVE)) return;
    this.#streak = 0;
    // Which connections outlive an outage, and which can write now, nobody knows.
    if (found !== 'reads') this.#database.refresh(new Error(SAID[found]));
    this.#set(found);
  }

  #set(usable: Usability): void {
    if (usable === this.#usable) return;
    this.#usable = usable;
    this.#log[usable === 'writes' ? 'info' : 'error'](SAID[usable]);
    this.#announce();
  }

  #announce(): void {
    const changed = this.#changed;
    this.#changed = new Ending();
    changed.abort(undefined);
  }
}

/**
 * `grpc.health.v1` for the process, for its start, for the server as a whole and for each service; needs no token. Where the database
 * takes no writes, only services that never write are SERVING.
 *
 * @param services with whether one writes.
 */
export const healthEndpoints = (
  readiness: Readiness,
  services: readonly { readonly service: DescService; readonly writes: boolean }[],
  closing: AbortSignal,
): Endpoint[] => {
  const depending = (writes: boolean) => () => readiness.serves(writes);
  const known = new Map<string, () => boolean>([
    ['', depending(true)],
    ['liveness', () => true],
    ['readiness', depending(true)],
    ['startup', () => readiness.isStarted],
    ...services.map(({ service, writes }) => [service.typeName, depending(writes)] as const),
  ]);
  const status = (serves: () => boolean): Status => (serves() ? Status.SERVING : Status.NOT_SERVING);
  return controlEndpoints(
    Health,
    {
      check: {
        handle: ({ service }: HealthCheckRequest) => {
          const serves = known.get(service);
          if (!serves) throw refuse('SERVICE_UNKNOWN', 'there is no such service');
          return { status: status(serves) };
        },
      },
      list: {
        handle: () => ({
          statuses: Object.fromEntries([...known].map(([name, serves]) => [name, { status: status(serves) }])),
        }),
      },
      watch: {
        async *handle({ service }: HealthCheckRequest, { signal }: ControlCall) {
          const serves = known.get(service);
          if (!serves) {
            yield { status: Status.SERVICE_UNKNOWN };
            await untilAborted([signal, closing]);
            return;
          }
          let sent: Status | undefined;
          while (!signal.aborted && !closing.aborted) {
            const { changed } = readiness;
            if (status(serves) !== sent) {
              sent = status(serves);
              yield { status: sent };
            } else {
              await untilAborted([changed, signal, closing]);
            }
          }
        },
      },
    },
    { open: true, quiet: true },
  );
};
