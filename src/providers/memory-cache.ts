import type { SuggestionCache } from '../drivers/recovery-matcher/services.ts';

interface Entry {
  readonly value: string;
  /** Milliseconds since 1970. */
  readonly expiresAt: number;
}

/** Most entries. */
const MAX_ENTRIES = 10_000;
/** Most characters of all values together. */
const MAX_CHARACTERS = 8_388_608;

/** A cache of this process. When it is full, the entries that have not been asked for the longest go. */
export const memoryCache = (
  { maxEntries = MAX_ENTRIES, maxCharacters = MAX_CHARACTERS } = {},
  now: () => number = Date.now,
): SuggestionCache => {
  // A Map keeps the order of insertion: the first entry is the one not used for the longest.
  const entries = new Map<string, Entry>();
  let characters = 0;
  const drop = (key: string): void => {
    characters -= entries.get(key)?.value.length ?? 0;
    entries.delete(key);
  };
  return {
    get: async (key) => {
      const entry = entries.get(key);
      if (!entry) return undefined;
      if (entry.expiresAt <= now()) {
        drop(key);
        return undefined;
      }
      entries.delete(key);
      entries.set(key, entry);
      return entry.value;
    },
    set: async (key, value, ttlSeconds) => {
      drop(key);
      entries.set(key, { value, expiresAt: now() + ttlSeconds * 1_000 });
      characters += value.length;
      while (entries.size > maxEntries || characters > maxCharacters) drop(entries.keys().next().value!);
    },
  };
};
