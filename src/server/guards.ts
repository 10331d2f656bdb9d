import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { type Authorization, unrestricted } from './access.ts';
import { type Audit, openAudit } from './audit.ts';
import { CallLimits } from './call-limits.ts';
import type { Endpoint } from './endpoint.ts';

/** What stands between a known caller and what it asks for. */
export interface Guards {
  readonly authorization: Authorization;
  readonly limits: CallLimits;
  readonly audit: Audit;
}

const authorizationOf = async (
  { authorizationFile }: Config,
  endpoints: readonly Endpoint[],
  log: Logger,
): Promise<Authorization> => {
  if (authorizationFile === undefined) return unrestricted;
  // What checks its schema is only loaded where there is one.
  const { fileAuthorization } = await import('./authorization.ts');
  return fileAuthorization(authorizationFile, endpoints, log);
};

/**
 * The guards that are configured.
 *
 * @param endpoints the RPCs of the drivers.
 * @throws ConfigError naming the file that is no good.
 */
export const openGuards = async (config: Config, endpoints: readonly Endpoint[], log: Logger): Promise<Guards> => {
  const authorization = await authorizationOf(config, endpoints, log);
  const limits = new CallLimits({ perSecond: config.callsPerSecond, atOnce: config.callsAtOnce });
  try {
    return { authorization, limits, audit: await openAudit(config, endpoints, log) };
  } catch (error) {
    authorization.close();
    throw error;
  }
};
