import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { createProviders } from '../providers/providers.ts';
import { PageTokens } from '../statements/page-tokens.ts';
import type { Telemetry } from '../telemetry/telemetry.ts';
import { type EndedReport, type TransactionLimits, TransactionRegistry } from '../transactions/registry.ts';
import { sealingKey } from '../transactions/sealing-key.ts';
import { TransactionIds } from '../transactions/transaction-id.ts';
import { ByteBudget } from './budget.ts';
import { shownId } from './call-log.ts';
import { startChores } from './chores.ts';
import { CONNECTION_LIMITS, type ConnectionLimits } from './connections.ts';
import { openDatabases } from './databases.ts';
import type { Served } from './endpoint.ts';
import { listenGrpc } from './grpc.ts';
import { openGuards } from './guards.ts';
import { Readiness } from './health.ts';
import { listenHttp } from './http.ts';
import { listenerIdentity, tokenIdentity } from './identity.ts';
import { Pipeline } from './pipeline.ts';
import { type Condition, healthRoutes } from './probes.ts';
import { allServed } from './served.ts';
import { Certificates } from './tls.ts';

/** A sidecar that serves. */
export interface Sidecar {
  /** Where gRPC listens. */
  readonly grpcAddress: string;
  /** Where Connect, gRPC-Web and JSON listen; undefined when that is off. */
  readonly httpAddress: string | undefined;
  /** How far it is with serving calls. */
  readonly condition: Condition;
  /** Calls whose answers have not been sent, on all listeners together. */
  readonly callsUnderWay: number;
  /**
   * Drains: NOT_SERVING; where that is wanted, all calls are served until their callers are gone; then no new transactions,
   * open ones get what is left of the drain time and are rolled back.
   */
  stop(): Promise<void>;
}

/** What is left to do gets so long after the drain time: rolling back, the last calls, the last commands to the database. */
const ROLL_BACK_MS = 200;
const LAST_CALLS_MS = 200;
const LAST_COMMANDS_MS = 100;

/** Without a connection for so long, callers are taken to be gone: some connect anew for each call. */
const GONE_MS = 1_000;
const LOOK_MS = 50;

/** Waits until there has been no connection for a while, or until the time is over (milliseconds since 1970). */
const unused = async (open: () => number, deadline: number): Promise<void> => {
  for (let usedAt = Date.now(); Date.now() < Math.min(deadline, usedAt + GONE_MS); ) {
    await sleep(LOOK_MS);
    if (open() > 0) usedAt = Date.now();
  }
};

/** Closes something; what it is at may take so long (milliseconds). */
type Closer = (patienceMs: number) => unknown;

const leasesOf = (config: Config): TransactionLimits => ({
  idleLeaseMs: config.transactionIdleLeaseMs,
  idleLeaseMaxMs: config.transactionIdleLeaseMaxMs,
  firstUseMs: config.transactionFirstUseMs,
  totalLeaseMs: config.transactionTotalLeaseMs,
  totalLeaseMaxMs: config.transactionTotalLeaseMaxMs,
  queue: config.transactionQueue,
});

/**
 * Listens, and serves all drivers on both listeners as soon as the database is ready.
 *
 * @param url PostgreSQL connection string.
 * @param prepare what has to be true of the database before it is used; health answers NOT_SERVING meanwhile.
 * @param telemetry who watches; left out: nobody.
 * @param services what is served besides the drivers and transactions.
 * @param limits how long connections may be silent, where that is not the default.
 */
export const startServer = async (
  config: Config,
  {
    url,
    log,
    limits: connectionLimits,
    telemetry,
    services = [],
    prepare = async () => {},
  }: {
    readonly url: string;
    readonly log: Logger;
    readonly limits?: ConnectionLimits;
    readonly telemetry?: Telemetry | undefined;
    readonly services?: readonly Served[];
    readonly prepare?: () => Promise<void>;
  },
): Promise<Sidecar> => {
  const closing = new AbortController();
  /** What serves is closed before what that stands on. */
  const closers: Readonly<Record<'serving' | 'below', Closer[]>> = { serving: [], below: [] };
  const close = async (callsMs: number): Promise<void> => {
    closing.abort();
    await Promise.all(closers.serving.map((closer) => closer(callsMs)));
    await Promise.all(closers.below.map((closer) => closer(LAST_COMMANDS_MS)));
  };
  try {
    const identity = config.tokensFile
      ? tokenIdentity(config.tokensFile, log, (callers) => {
          transactions.remove(callers, 'its caller is no longer in the tokens file');
        })
      : listenerIdentity;
    closers.below.push(() => identity.close());
    const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa } = config;
    const certificates = cert && key ? new Certificates({ cert, key, clientCa }, log) : undefined;
    closers.below.push(() => certificates?.close());
    const databases = openDatabases(config, { url, telemetry, log });
    closers.below.push((patienceMs) => databases.end(patienceMs));
    const { database, replicas } = databases;
    const providers = createProviders(config, (layer, problem) => {
      log.warn({ layer, problem }, 'a layer of suggestions could not do its part');
    });
    closers.below.push(() => providers.close());
    const tokens = new PageTokens();
    const ids = new TransactionIds(`${hostname()}/${process.pid}`);
    const report: EndedReport = ({ id, caller, label, lastMethod }, how) => {
      log.warn({ transaction: shownId(id), caller, label, lastMethod, how }, 'transaction ended by the sidecar');
    };
    const transactions = new TransactionRegistry(database, ids, leasesOf(config), report);
    const readiness = new Readiness(database, log);
    closers.serving.push(() => readiness.stop());
    const { ofDrivers, endpoints } = allServed({
      providers,
      tokens,
      database,
      transactions,
      readiness,
      services,
      reflection: config.reflection,
      closing: closing.signal,
    });
    const guards = await openGuards(config, ofDrivers, log);
    const { audit, authorization } = guards;
    closers.below.push(() => authorization.close());
    closers.below.push((patienceMs) => audit.close(patienceMs));
    transactions.onEnded = (transaction, state, how, cause) => {
      audit.ended(transaction, state, how);
      telemetry?.leaseEnded(state, cause);
    };
    telemetry?.look(() => ({
      ready: readiness.whyNot === undefined,
      lanes: [database.calls.state, database.transactions.state, database.reserve.state],
      replicas: replicas?.states ?? [],
      writesWaiting: database.writes.pending,
      transactions: transactions.list(),
    }));
    const pipeline = new Pipeline({
      database,
      replicas,
      transactions,
      identity,
      guards,
      calls: { log, sample: config.logSample },
      telemetry,
      callTimeoutMs: config.callTimeoutMs,
      maxResponseBytes: config.maxResponseBytes,
    });
    const { maxMessageBytes, maxRequestBytes, socketMode } = config;
    const budget = new ByteBudget(maxRequestBytes, maxMessageBytes);
    const shared = {
      maxMessageBytes,
      socketMode,
      certificates,
      budget,
      streams: config.connectionStreams,
      limits: connectionLimits ?? {
        ...CONNECTION_LIMITS,
        idleMs: config.connectionIdleMs,
        ageMs: config.connectionAgeMs ?? Number.POSITIVE_INFINITY,
      },
    };
    const grpc = await listenGrpc(pipeline, endpoints, { listen: config.grpcListen, ...shared });
    closers.serving.push((patienceMs) => grpc.close(patienceMs));
    const http = config.httpListen
      ? await listenHttp(
          pipeline,
          endpoints,
          healthRoutes(() => readiness),
          {
            listen: config.httpListen,
            web: { hosts: config.httpHosts, origins: config.httpOrigins },
            docs: config.docs,
            ...shared,
          },
        )
      : undefined;
    closers.serving.push((patienceMs) => http?.close(patienceMs));
    await prepare();
    const sealing = await sealingKey(database.reserve);
    ids.open(sealing);
    tokens.open(sealing);
    await readiness.start();
    pipeline.open();
    readiness.open();
    const retentionMs = config.requestRetentionMs;
    closers.below.push(startChores({ database, retentionMs, transactions, audit, log }));
    return {
      grpcAddress: grpc.address,
      httpAddress: http?.address,
      condition: readiness,
      get callsUnderWay() {
        return budget.requests;
      },
      stop: async () => {
        const deadline = Date.now() + config.drainTimeoutMs;
        readiness.drain();
        if (config.drain === 'linger') await unused(() => grpc.open + (http?.open ?? 0), deadline);
        const rollBackMs = Math.max(0, deadline - Date.now());
        // A database that does not answer rolls back by itself when it sees that its connections are gone.
        await Promise.race([
          transactions.drain(rollBackMs),
          sleep(rollBackMs + ROLL_BACK_MS, undefined, { ref: false }),
        ]);
        await close(Math.max(LAST_CALLS_MS, deadline - Date.now()));
      },
    };
  } catch (error) {
    await close(0);
    throw error;
  }
};
