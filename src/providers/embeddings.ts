import { type EmbeddingProvider, ProviderError } from '../drivers/recovery-matcher/services.ts';
import { below, postJson } from './post-json.ts';

/** An endpoint that speaks the OpenAI embeddings API. */
export interface EmbeddingOptions {
  /** Base URL, `https://api.openai.com/v1`. */
  readonly url: string;
  /** Bearer key; undefined: none is sent. */
  readonly key: string | undefined;
  readonly model: string;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 10_000;

const isVector = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length > 0 && value.every((each) => Number.isFinite(each));

/** Embeddings of an OpenAI-compatible endpoint: `POST <base>/embeddings`. */
export const openAiEmbeddings = ({ url, key, model, timeoutMs = TIMEOUT_MS }: EmbeddingOptions): EmbeddingProvider => ({
  embed: async (text, signal) => {
    const answer = await postJson({
      url: below(url, 'embeddings'),
      headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
      body: { model, input: text, encoding_format: 'float' },
      timeoutMs,
      signal,
    });
    const vector = (answer as { data?: { embedding?: unknown }[] } | null)?.data?.[0]?.embedding;
    if (!isVector(vector)) throw new ProviderError('the answer holds no vector');
    return vector;
  },
});
