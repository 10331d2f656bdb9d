import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { type Database, type DatabaseOptions, openDatabase } from '../database/pool.ts';
import { Replicas } from '../database/replicas.ts';
import { problemOf } from '../database/sqlstate.ts';
import { readTarget, type Target } from '../database/target.ts';
import { drivers as driversFor } from '../drivers/drivers.ts';
import { Health } from '../gen/grpc/health/v1/health_pb.ts';
import { TransactionService } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import { createProviders } from '../providers/providers.ts';
import { PageTokens } from '../statements/page-tokens.ts';
import type { Telemetry } from '../telemetry/telemetry.ts';
import { transactionIdKey } from '../transactions/once.ts';
import { prune } from '../transactions/outcomes.ts';
import { sweepPrepared } from '../transactions/prepared.ts';
import { TransactionRegistry } from '../transactions/registry.ts';
import { TransactionIds } from '../transactions/transaction-id.ts';
import { ByteBudget } from './budget.ts';
import { shownId } from './call-log.ts';
import { CONNECTION_LIMITS, type ConnectionLimits } from './connections.ts';
import { driverEndpoints, type Served } from './endpoint.ts';
import { listenGrpc } from './grpc.ts';
import { type Guards, openGuards } from './guards.ts';
import { healthEndpoints, Readiness } from './health.ts';
import { listenHttp } from './http.ts';
import { listenerIdentity, tokenIdentity } from './identity.ts';
import { Pipeline } from './pipeline.ts';
import { type Condition, healthRoutes } from './probes.ts';
import { reflectionEndpoints } from './reflection.ts';
import { Certificates } from './tls.ts';
import { transactionEndpoints } from './transaction-service.ts';

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

/** How often stored answers past their retention are deleted. */
const PRUNE_MS = 600_000;
const OVERDUE = 'its lease ended while it was prepared';
const OVERDUE_KEPT = 'a prepared transaction is past its lease and could not be rolled back';
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

const targetOf = (url: string, log: Logger): Target =>
  readTarget(url, (problem) => {
    log.warn({ problem }, 'TLS files of the database not usable, those read before stay in use');
  });

const openReplicas = (config: Config, database: Database, options: DatabaseOptions, log: Logger): Replicas =>
  new Replicas(
    database,
    config.replicaUrls.map((url) => targetOf(url, log)),
    {
      ...options,
      waitMs: config.replicaWaitMs,
      maxLagMs: config.replicaMaxLagMs,
      report: (replica, problem, cause) => {
        if (problem === undefined) log.info({ replica }, 'a replica is read from now on');
        else log.warn({ replica, problem, ...(cause === undefined ? {} : { cause }) }, 'a replica is left out');
      },
    },
  );

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
  let onRemoved = (_callers: ReadonlySet<string>): void => {};
  const identity = config.tokensFile
    ? tokenIdentity(config.tokensFile, log, (callers) => onRemoved(callers))
    : listenerIdentity;
  const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa } = config;
  const certificates = cert && key ? new Certificates({ cert, key, clientCa }, log) : undefined;
  const target = targetOf(url, log);
  const options = {
    pooler: config.pooler,
    observer: telemetry,
    statementMs: config.callTimeoutMs,
    lockMs: config.lockTimeoutMs,
    calls: { max: config.poolMax, queue: config.poolQueue, waitMs: config.poolWaitMs },
    transactions: { max: config.transactionsMax, queue: config.poolQueue, waitMs: config.poolWaitMs },
    marks: config.replicaUrls.length > 0,
  };
  const database = openDatabase(target, options);
  const replicas = config.replicaUrls.length > 0 ? openReplicas(config, database, options, log) : undefined;
  const closing = new AbortController();
  const listeners: { close(graceMs: number): Promise<void> }[] = [];
  const providers = createProviders(config, (layer, problem) => {
    log.warn({ layer, problem }, 'a layer of suggestions could not do its part');
  });
  let guards: Guards | undefined;
  try {
    const tokens = new PageTokens();
    const ids = new TransactionIds(`${hostname()}/${process.pid}`);
    const limits = {
      idleLeaseMs: config.transactionIdleLeaseMs,
      idleLeaseMaxMs: config.transactionIdleLeaseMaxMs,
      firstUseMs: config.transactionFirstUseMs,
      totalLeaseMs: config.transactionTotalLeaseMs,
      totalLeaseMaxMs: config.transactionTotalLeaseMaxMs,
      queue: config.transactionQueue,
    };
    const transactions = new TransactionRegistry(database, ids, limits, ({ id, caller, label, lastMethod }, how) => {
      log.warn({ transaction: id.slice(0, 10), caller, label, lastMethod, how }, 'transaction ended by the sidecar');
    });
    onRemoved = (callers) => {
      const how = 'its caller is no longer in the tokens file';
      for (const transaction of transactions.list()) {
        if (!callers.has(transaction.caller)) continue;
        transactions.report(transaction, how);
        void transaction.abandon(how);
      }
    };
    const readiness = new Readiness(database, log);
    const drivers = driversFor(providers).map((driver) => ({
      service: driver.service,
      writes: Object.values(driver.rpcs).some(({ kind }) => kind === 'write'),
      endpoints: driverEndpoints(tokens)(driver),
    }));
    const ofDrivers = drivers.flatMap(({ endpoints }) => endpoints);
    const ofTransactions = transactionEndpoints(database, transactions, ofDrivers, closing.signal);
    const served: readonly Served[] = [
      ...drivers,
      { service: TransactionService, writes: true, endpoints: ofTransactions },
      ...services,
    ];
    const endpoints = [
      ...served.flatMap(({ endpoints }) => endpoints),
      ...healthEndpoints(readiness, [...served, { service: Health, writes: false }], closing.signal),
      ...(config.reflection ? reflectionEndpoints([...served.map(({ service }) => service), Health]) : []),
    ];
    guards = await openGuards(config, ofDrivers, log);
    const { audit } = guards;
    transactions.onEnded = (transaction, state, how) => {
      audit.ended(transaction, state, how);
      telemetry?.leaseEnded(state, how);
    };
    telemetry?.look(() => ({
      lanes: [database.calls.state, database.transactions.state, database.reserve.state],
      replicas: replicas?.states ?? [],
      writesWaiting: database.writes.pending,
      transactions: transactions.list(),
    }));
    const calls = { log, sample: config.logSample };
    const pipeline = new Pipeline(database, transactions, identity, calls, config, guards, telemetry, replicas);
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
    listeners.push(grpc);
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
    if (http) listeners.push(http);
    await prepare();
    const sealing = await transactionIdKey(database.reserve);
    ids.open(sealing);
    tokens.open(sealing);
    await readiness.start();
    pipeline.open();
    readiness.open();
    const pruning = setInterval(() => {
      prune(database.reserve, config.requestRetentionMs).catch((error: unknown) => {
        log.warn({ problem: problemOf(error) }, 'stored answers could not be pruned');
      });
    }, PRUNE_MS).unref();
    const sweeping = sweepPrepared(database, {
      ended: (id) => {
        transactions.settled(id, 'rolled back', OVERDUE);
        audit.overdue(id, OVERDUE);
        log.warn({ transaction: shownId(id) }, 'a prepared transaction was rolled back: nobody ended it in its lease');
      },
      failed: (error, id) => {
        if (id === undefined) log.warn({ problem: problemOf(error) }, 'prepared transactions cannot be looked through');
        else log.warn({ problem: problemOf(error), transaction: shownId(id) }, OVERDUE_KEPT);
      },
    });
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
        closing.abort();
        const rest = Math.max(LAST_CALLS_MS, deadline - Date.now());
        await Promise.all([grpc.close(rest), http?.close(rest), readiness.stop()]);
        clearInterval(pruning);
        clearInterval(sweeping);
        identity.close();
        guards?.authorization.close();
        certificates?.close();
        providers.close();
        await Promise.all([
          database.end(LAST_COMMANDS_MS),
          replicas?.end(LAST_COMMANDS_MS),
          audit.close(LAST_COMMANDS_MS),
        ]);
      },
    };
  } catch (error) {
    closing.abort();
    await Promise.all(listeners.map((listener) => listener.close(0)));
    identity.close();
    guards?.authorization.close();
    certificates?.close();
    providers.close();
    await Promise.all([database.end(LAST_COMMANDS_MS), replicas?.end(LAST_COMMANDS_MS)]);
    throw error;
  }
};
