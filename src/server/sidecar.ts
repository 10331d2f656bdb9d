import { hostname } from 'node:os';
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
import type { ConnectionLimits } from './connections.ts';
import { openDatabases } from './databases.ts';
import type { Served } from './endpoint.ts';
import { openGuards } from './guards.ts';
import { Readiness } from './health.ts';
import { listenerIdentity, tokenIdentity } from './identity.ts';
import { openListeners } from './listeners.ts';
import { Pipeline } from './pipeline.ts';
import { type Condition, healthRoutes } from './probes.ts';
import { allServed } from './served.ts';
import { drained, Opened } from './shutdown.ts';
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
    limits,
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
  const opened = new Opened();
  try {
    const identity = config.tokensFile
      ? tokenIdentity(config.tokensFile, log, (callers) => {
          transactions.remove(callers, 'its caller is no longer in the tokens file');
        })
      : listenerIdentity;
    opened.below(() => identity.close());
    const { tlsCert: cert, tlsKey: key, tlsClientCa: clientCa } = config;
    const certificates = cert && key ? new Certificates({ cert, key, clientCa }, log) : undefined;
    opened.below(() => certificates?.close());
    const databases = openDatabases(config, { url, telemetry, log });
    opened.below((patienceMs) => databases.end(patienceMs));
    const { database, replicas } = databases;
    const providers = createProviders(config, (layer, problem) => {
      log.warn({ layer, problem }, 'a layer of suggestions could not do its part');
    });
    opened.below(() => providers.close());
    const tokens = new PageTokens();
    const ids = new TransactionIds(`${hostname()}/${process.pid}`);
    const report: EndedReport = ({ id, caller, label, lastMethod }, how) => {
      log.warn({ transaction: shownId(id), caller, label, lastMethod, how }, 'transaction ended by the sidecar');
    };
    const transactions = new TransactionRegistry(database, ids, leasesOf(config), report);
    const readiness = new Readiness(database, log);
    opened.serving(() => readiness.stop());
    const { ofDrivers, endpoints } = allServed({
      providers,
      tokens,
      database,
      transactions,
      readiness,
      services,
      reflection: config.reflection,
      closing: opened.closing,
    });
    const guards = await openGuards(config, ofDrivers, log);
    const { audit, authorization } = guards;
    opened.below(() => authorization.close());
    opened.below((patienceMs) => audit.close(patienceMs));
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
    const budget = new ByteBudget(config.maxRequestBytes, config.maxMessageBytes);
    const { grpc, http } = await openListeners(config, {
      pipeline,
      endpoints,
      routes: healthRoutes(() => readiness),
      budget,
      certificates,
      limits,
      opened,
    });
    await prepare();
    const sealing = await sealingKey(database.reserve);
    ids.open(sealing);
    tokens.open(sealing);
    await readiness.start();
    pipeline.open();
    readiness.open();
    const retentionMs = config.requestRetentionMs;
    opened.below(startChores({ database, retentionMs, transactions, audit, log }));
    return {
      grpcAddress: grpc.address,
      httpAddress: http?.address,
      condition: readiness,
      get callsUnderWay() {
        return budget.requests;
      },
      stop: async () => {
        readiness.drain();
        await opened.close(await drained(config, transactions, () => grpc.open + (http?.open ?? 0)));
      },
    };
  } catch (error) {
    await opened.close(0);
    throw error;
  }
};
