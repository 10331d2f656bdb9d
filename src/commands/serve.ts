import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { migrateUp, migrationStatus, SchemaError } from '../database/migrate/migrate.ts';
import { growWithCalls } from '../engine.ts';
import { EXIT } from '../exit.ts';
import { createLog } from '../log.ts';
import { type Condition, healthRoutes, listenProbes, type Probes, type Routes, STARTING } from '../server/probes.ts';
import type { Sidecar } from '../server/sidecar.ts';
import type { Telemetry } from '../telemetry/telemetry.ts';
import { readWanted } from '../telemetry/wanted.ts';
import { complain, errors, exit, say } from './output.ts';
import { patiently } from './patience.ts';
import { openSource, type Source } from './source.ts';

/** A schema older than the program is only touched where the user has said so, or where nobody else uses it. */
const ensureSchema = async (config: Config, url: string, log: Logger): Promise<void> => {
  const { pending } = await migrationStatus(url);
  if (pending.length === 0) return;
  if (config.databaseUrl !== undefined && !config.migrate) throw new SchemaError(pending.length);
  await migrateUp(url, {
    say: (line) => log.info(line),
    onApplied: (migration) => log.info({ migration }, 'migration applied'),
  });
};

const EXAMPLE = 'hoc.cus.policies.v1.PolicyEngineService/FetchRiskCeilings';

/** No certificate has the name of all addresses. */
const WILDCARD = /^(?:0\.0\.0\.0|\[::\])(?=:\d+$)/;

const isFile = (address: string): boolean => address.startsWith('unix:');

/** Calls to try: one for each listener, but none that needs reflection where that is off. */
const trial = (config: Config, { grpcAddress, httpAddress }: Sidecar): string[] => {
  const { tokensFile, tlsCert, tlsClientCa, reflection } = config;
  const token = tokensFile ? `-H 'authorization: Bearer <token>' ` : '';
  const tls = tlsClientCa ? '<authority> -cert <file> -key <file>' : '<authority>';
  const named = (address: string): string => (tlsCert ? address.replace(WILDCARD, '<name>') : address);
  const calls: string[] = [];
  if (reflection) {
    const grpcTls = tlsCert && !isFile(grpcAddress) ? `-cacert ${tls}` : '-plaintext';
    calls.push(`grpcurl ${grpcTls} ${token}${named(grpcAddress).replace(/^unix:/, '-unix ')} ${EXAMPLE}`);
  }
  if (httpAddress !== undefined) {
    const httpTls = tlsCert && !isFile(httpAddress) ? ` --cacert ${tls.replaceAll(' -', ' --')}` : '';
    const where = isFile(httpAddress)
      ? `--unix-socket ${httpAddress.slice('unix:'.length)} http://localhost`
      : `${httpTls ? 'https' : 'http'}://${named(httpAddress)}`;
    calls.push(`curl ${token}-H 'content-type: application/json' -d '{}'${httpTls} ${where}/${EXAMPLE}`);
  }
  return calls.map((call, at) => `${(at === 0 ? 'try' : '').padEnd(10)}${call}`);
};

/** What is left of telemetry gets so long at the end, milliseconds. */
const LAST_NUMBERS_MS = 200;

/** Who watches, where somebody is to; its libraries are loaded only then. */
const openTelemetry = async (probes: boolean, log: Logger): Promise<Telemetry | undefined> => {
  const wanted = readWanted(process.env, probes);
  return wanted && (await import('../telemetry/sdk.ts')).openTelemetry(wanted, log);
};

const metricsRoute = (telemetry: Telemetry | undefined): Routes => {
  const metrics = telemetry?.metrics;
  if (!metrics) return {};
  const type = 'text/plain; version=0.0.4; charset=utf-8';
  return { '/metrics': async () => ({ status: 200, text: await metrics(), type }) };
};

/** Tells who started the server what it needs to know. */
export type Announce = (server: Sidecar, source: Source, probes: Probes | undefined) => void;

const announceToPeople =
  (config: Config): Announce =>
  (server, source, probes) => {
    if (probes) say(`probes    ${probes.address} (${probes.paths.join(', ')})`);
    say(`gRPC      ${server.grpcAddress}`);
    if (server.httpAddress)
      say(`HTTP      ${server.httpAddress} (Connect, gRPC-Web, JSON${config.docs ? ', /docs' : ''})`);
    say(`database  ${source.description}`);
    for (const line of trial(config, server)) say(line);
  };

/**
 * Serves until a signal, or until the database is gone for good.
 *
 * @param settings of an embedded database, where they are not the default.
 */
export const serve = async (
  config: Config,
  announce: Announce = announceToPeople(config),
  settings: Readonly<Record<string, string>> = {},
): Promise<number> => {
  const log = createLog(config.logLevel, errors);
  exit.onSignal(config.drainTimeoutMs);
  const stopping = new AbortController();
  void exit.requested.then(() => stopping.abort());
  const { probeListen } = config;
  const telemetry = await openTelemetry(probeListen !== undefined, log);
  let condition: Condition = STARTING;
  // Who watches over the process is answered from its beginning to its end, however long the database takes.
  const probes = probeListen
    ? await listenProbes(probeListen, { ...healthRoutes(() => condition), ...metricsRoute(telemetry) })
    : undefined;
  let source: Source | undefined;
  try {
    source = await openSource(config, (event) => log.warn(event), settings);
    const { url } = source;
    // A listener that cannot be bound is told in one line; this library would add a second.
    process.env['GRPC_VERBOSITY'] ??= 'NONE';
    const { startServer } = await import('../server/sidecar.ts');
    const prepare = (): Promise<void> =>
      patiently(
        config.databaseWaitMs,
        () => ensureSchema(config, url, log),
        (problem) => log.warn({ problem }, 'the database cannot be used yet, and is waited for'),
        stopping.signal,
      );
    const server = await startServer(config, { url, log, prepare, telemetry });
    condition = server.condition;
    growWithCalls(() => server.callsUnderWay);
    log.info({ node: process.version }, 'started');
    announce(server, source, probes);
    let problem: Error | undefined;
    void source.failed.then((error) => {
      problem = error;
      exit.request();
    });
    await exit.requested;
    log.info('draining');
    await server.stop();
    log.info('stopped');
    return problem ? complain(problem.message, EXIT.unreachable) : EXIT.done;
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
    log.info('stopped before the database could be used');
    return EXIT.done;
  } finally {
    await source?.close();
    await telemetry?.close(LAST_NUMBERS_MS);
    await probes?.close();
  }
};
