import type { Services } from '../../src/drivers/recovery-matcher/services.ts';

/** Nothing outside the database: a cache that keeps nothing, no providers. */
export const noServices: Services = {
  cache: { get: async () => undefined, set: async () => {} },
  embeddings: undefined,
  model: undefined,
  warn: () => {},
};
