/** Keeps suggestions for a while, for this process or for several. Failing is missing: no method throws. */
export interface SuggestionCache {
  /** What was kept under the key; undefined if nothing, no longer, or not to be had now. */
  get(key: string): Promise<string | undefined>;
  set(key: string, value: string, ttlSeconds: number): Promise<void>;
}

/** Turns text into a vector. */
export interface EmbeddingProvider {
  /** @throws ProviderError when no vector can be had; the signal's reason when that fires. */
  embed(text: string, signal: AbortSignal | undefined): Promise<readonly number[]>;
}

/** Answers a prompt with text. */
export interface LanguageModel {
  /** @throws ProviderError when no answer can be had; the signal's reason when that fires. */
  complete(prompt: string, signal: AbortSignal | undefined): Promise<string>;
}

/** What went wrong outside. The message is for the log: it holds no secret and nothing of the answer. */
export class ProviderError extends Error {}

/** What the drivers use of the world outside the database. */
export interface Services {
  readonly cache: SuggestionCache;
  /** Undefined: none is configured. */
  readonly embeddings: EmbeddingProvider | undefined;
  /** Undefined: none is configured. */
  readonly model: LanguageModel | undefined;
  /** Told of a layer that could not do its part. */
  warn(layer: string, problem: string): void;
}
