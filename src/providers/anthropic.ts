import { type LanguageModel, ProviderError } from '../drivers/recovery-matcher/services.ts';
import { below, postJson } from './post-json.ts';

/** An endpoint that speaks the Anthropic Messages API. */
export interface AnthropicOptions {
  /** Base URL, `https://api.anthropic.com`. */
  readonly url: string;
  readonly key: string;
  readonly model: string;
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 30_000;
const VERSION = '2023-06-01';
const MAX_TOKENS = 500;

/** A model behind the Anthropic Messages API: `POST <base>/v1/messages`. */
export const anthropicModel = ({ url, key, model, timeoutMs = TIMEOUT_MS }: AnthropicOptions): LanguageModel => ({
  complete: async (prompt, signal) => {
    const answer = await postJson({
      url: below(url, 'v1/messages'),
      headers: { 'x-api-key': key, 'anthropic-version': VERSION },
      body: { model, max_tokens: MAX_TOKENS, messages: [{ role: 'user', content: prompt }] },
      timeoutMs,
      signal,
    });
    const content = (answer as { content?: { text?: unknown }[] } | null)?.content;
    if (!Array.isArray(content) || content.length === 0) throw new ProviderError('the answer has no content');
    const text = content[0]?.text ?? '';
    if (typeof text !== 'string') throw new ProviderError('the answer holds no text');
    return text;
  },
});
