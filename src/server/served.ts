import type { Database } from '../database/pool.ts';
import { drivers as driversFor } from '../drivers/drivers.ts';
import { Health } from '../gen/grpc/health/v1/health_pb.ts';
import { TransactionService } from '../gen/hoc/cus/policies/v1/transaction_pb.ts';
import type { Providers } from '../providers/providers.ts';
import type { PageTokens } from '../statements/page-tokens.ts';
import type { TransactionRegistry } from '../transactions/registry.ts';
import { type DriverEndpoint, driverEndpoints, type Endpoint, type Served } from './endpoint.ts';
import { healthEndpoints, type Readiness } from './health.ts';
import { reflectionEndpoints } from './reflection.ts';
import { transactionEndpoints } from './transaction-service.ts';

/** What is served, RPC by RPC. */
export interface AllServed {
  readonly ofDrivers: readonly DriverEndpoint[];
  /** Those of the drivers and all others. */
  readonly endpoints: readonly Endpoint[];
}

/**
 * The drivers, transactions, and the health of all of it.
 *
 * @param providers what drivers use of the world outside the database.
 * @param tokens by which lists go on.
 * @param services what is served besides.
 * @param reflection whether the services can be asked for.
 * @param closing fires when streams are to end.
 */
export const allServed = ({
  providers,
  tokens,
  database,
  transactions,
  readiness,
  services,
  reflection,
  closing,
}: {
  readonly providers: Providers;
  readonly tokens: PageTokens;
  readonly database: Database;
  readonly transactions: TransactionRegistry;
  readonly readiness: Readiness;
  readonly services: readonly Served[];
  readonly reflection: boolean;
  readonly closing: AbortSignal;
}): AllServed => {
  const drivers = driversFor(providers).map((driver) => ({
    service: driver.service,
    writes: Object.values(driver.rpcs).some(({ kind }) => kind === 'write'),
    endpoints: driverEndpoints(tokens)(driver),
  }));
  const ofDrivers = drivers.flatMap(({ endpoints }) => endpoints);
  const ofTransactions = transactionEndpoints(database, transactions, ofDrivers, closing);
  const served: readonly Served[] = [
    ...drivers,
    { service: TransactionService, writes: true, endpoints: ofTransactions },
    ...services,
  ];
  const endpoints = [
    ...served.flatMap(({ endpoints }) => endpoints),
    ...healthEndpoints(readiness, [...served, { service: Health, writes: false }], closing),
    ...(reflection ? reflectionEndpoints([...served.map(({ service }) => service), Health]) : []),
  ];
  return { ofDrivers, endpoints };
};
