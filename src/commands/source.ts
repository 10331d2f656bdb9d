import type { Config } from '../config.ts';
import { readTarget } from '../database/target.ts';

/** A database to work on. */
export interface Source {
  readonly url: string;
  readonly description: string;
  /** Settles when it has gone for good, with why. */
  readonly failed: Promise<Error>;
  close(): Promise<void>;
}

/** The configured database, or the embedded one. */
export const openSource = async (
  { databaseUrl, dataDir }: Config,
  report?: (event: string) => void,
): Promise<Source> => {
  if (databaseUrl !== undefined) {
    const failed = new Promise<never>(() => {});
    return { url: databaseUrl, description: readTarget(databaseUrl).description, failed, close: async () => {} };
  }
  const { startEmbedded } = await import('../embedded/embedded.ts');
  const embedded = await startEmbedded({ dataDir, ...(report ? { report } : {}) });
  return {
    url: embedded.url,
    description: `embedded PostgreSQL in ${embedded.dataDir}`,
    failed: embedded.failed,
    close: () => embedded.stop(),
  };
};
