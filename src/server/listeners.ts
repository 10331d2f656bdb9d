import type { Config } from '../config.ts';
import type { ByteBudget } from './budget.ts';
import { CONNECTION_LIMITS, type ConnectionLimits } from './connections.ts';
import type { Endpoint } from './endpoint.ts';
import { listenGrpc } from './grpc.ts';
import { listenHttp } from './http.ts';
import type { Listener } from './listener.ts';
import type { Pipeline } from './pipeline.ts';
import type { Routes } from './probes.ts';
import type { Opened } from './shutdown.ts';
import type { Certificates } from './tls.ts';

/** Where a sidecar can be reached. */
export interface Listeners {
  readonly grpc: Listener;
  /** Undefined when that is off. */
  readonly http: Listener | undefined;
}

/** Opens the listeners that are configured, on which nothing is let in yet that needs the database. */
export const openListeners = async (
  config: Config,
  {
    pipeline,
    endpoints,
    routes,
    budget,
    certificates,
    limits,
    opened,
  }: {
    readonly pipeline: Pipeline;
    readonly endpoints: readonly Endpoint[];
    /** What the HTTP port answers besides. */
    readonly routes: Routes;
    readonly budget: ByteBudget;
    readonly certificates: Certificates | undefined;
    /** Where they are not the default. */
    readonly limits: ConnectionLimits | undefined;
    readonly opened: Opened;
  },
): Promise<Listeners> => {
  const { maxMessageBytes, socketMode, connectionStreams: streams, connectionIdleMs, connectionAgeMs } = config;
  const shared = {
    maxMessageBytes,
    socketMode,
    certificates,
    budget,
    streams,
    limits: limits ?? {
      ...CONNECTION_LIMITS,
      idleMs: connectionIdleMs,
      ageMs: connectionAgeMs ?? Number.POSITIVE_INFINITY,
    },
  };
  const grpc = await listenGrpc(pipeline, endpoints, { listen: config.grpcListen, ...shared });
  opened.serving((patienceMs) => grpc.close(patienceMs));
  if (!config.httpListen) return { grpc, http: undefined };
  const { httpListen: listen, httpHosts: hosts, httpOrigins: origins, docs } = config;
  const http = await listenHttp(pipeline, endpoints, routes, { listen, web: { hosts, origins }, docs, ...shared });
  opened.serving((patienceMs) => http.close(patienceMs));
  return { grpc, http };
};
