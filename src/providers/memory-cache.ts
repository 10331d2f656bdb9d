import { LRUCache } from 'lru-cache';
import type { SuggestionCache } from '../drivers/recovery-matcher/services.ts';

/** Most entries. */
const MAX_ENTRIES = 10_000;
/** Most characters of all values together. */
const MAX_CHARACTERS = 8_388_608;

/** A cache of this process. When it is full, the entries that have not been asked for the longest go. */
export const memoryCache = (
  { maxEntries = MAX_ENTRIES, maxCharacters = MAX_CHARACTERS } = {},
  now: () => number = () => performance.now(),
): SuggestionCache => {
  const entries = new LRUCache<string, string>({
    max: maxEntries,
    maxSize: maxCharacters,
    sizeCalculation: (value) => value.length,
    perf: { now },
    ttlResolution: 0,
  });
  return {
    get: async (key) => entries.get(key),
    set: async (key, value, ttlSeconds) => {
      entries.set(key, value, { ttl: ttlSeconds * 1_000 });
    },
  };
};
