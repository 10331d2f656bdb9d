import type { SuggestionCache } from '../drivers/recovery-matcher/services.ts';

interface Entry {
  readonly value: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

/** Entries at most. */
const MAX_ENTRIES = 10_000;

/** A cache of this process. When it is full, the entry that has not been asked for the longest goes. */
export const memoryCache = (maxEntries = MAX_ENTRIES, now: () => number = Date.now): SuggestionCache => {
  // A Map keeps the order of insertion: the first entry is the one not used for the longest.
  const entries = new Map<string, Entry>();
  return {
    get: async (key) => {
      const entry = entries.get(key);
      if (!entry) return undefined;
      entries.delete(key);
      if (entry.expiresAt <= now()) return undefined;
      entries.set(key, entry);
      return entry.value;
    },
    set: async (key, value, ttlSeconds) => {
      entries.delete(key);
      entries.set(key, { value, expiresAt: now() + ttlSeconds * 1_000 });
      if (entries.size > maxEntries) entries.delete(entries.keys().next().value!);
    },
  };
};
