import type { Services } from '../drivers/recovery-matcher/services.ts';
import { anthropicModel } from './anthropic.ts';
import { openAiEmbeddings } from './embeddings.ts';
import { memoryCache } from './memory-cache.ts';
import { redisCache } from './redis-cache.ts';

/** Settings of what is outside; undefined: not configured. */
export interface ProviderSettings {
  /** Redis to share suggestions through; undefined: each process has its own. */
  readonly redisUrl: string | undefined;
  /** Key of the language model; without it there is none. */
  readonly anthropicApiKey: string | undefined;
  readonly llmUrl: string;
  readonly llmModel: string;
  /** Base URL of the embedding endpoint; without it there is none. */
  readonly embeddingUrl: string | undefined;
  readonly embeddingKey: string | undefined;
  readonly embeddingModel: string;
}

/** What the drivers use of the world outside, and how to leave it. */
export interface Providers extends Services {
  close(): void;
}

/** Makes what is configured; connects to nothing yet. */
export const createProviders = (
  settings: ProviderSettings,
  warn: (layer: string, problem: string) => void,
): Providers => {
  const { redisUrl, anthropicApiKey, embeddingUrl } = settings;
  const shared = redisUrl === undefined ? undefined : redisCache(redisUrl, (problem) => warn('cache', problem));
  return {
    cache: shared ?? memoryCache(),
    embeddings:
      embeddingUrl === undefined
        ? undefined
        : openAiEmbeddings({ url: embeddingUrl, key: settings.embeddingKey, model: settings.embeddingModel }),
    model:
      anthropicApiKey === undefined
        ? undefined
        : anthropicModel({ url: settings.llmUrl, key: anthropicApiKey, model: settings.llmModel }),
    warn,
    close: () => shared?.close(),
  };
};
