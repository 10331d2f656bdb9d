import { type Advice, fitsAnswer } from './advice.ts';
import { firstCharacters, MESSAGE_CHARACTERS, messageOf, normalizeError, sanitizedStart } from './normalize.ts';
import type { SuggestionCache } from './services.ts';
import type { Failure, MatchResult } from './suggest.ts';

/** A known failure. */
export interface KnownFailure {
  readonly id: string;
  readonly errorCode: string;
  readonly errorPattern: string | null;
  readonly recoveryAction: string | null;
  /** 0 where it is not known. */
  readonly successRate: number;
  /** Cosine similarity to the failure at hand. */
  readonly similarity: number;
}

/** What may know a recovery before history does. A layer answers undefined when it knows none. */
export interface Layers {
  readonly cache: SuggestionCache;
  /** Undefined: not configured. Takes the message without secrets. */
  readonly mostSimilar: ((message: string) => Promise<KnownFailure | undefined>) | undefined;
  /** Undefined: not configured. Takes the error code and the message without secrets. */
  readonly advise: ((errorCode: string, message: string) => Promise<Advice | undefined>) | undefined;
  /** The last resort. */
  readonly fallback: () => Promise<MatchResult>;
}

/** A suggestion as the cache keeps it. */
interface Cached {
  readonly suggestion: string | null;
  readonly confidence: number;
  readonly matched_entry: Readonly<Record<string, unknown>> | null;
}

const SIMILARITY_THRESHOLD = 0.85;
const CACHE_TTL_SECONDS = 3_600;
const MAX_CONFIDENCE = 0.95;
/** Confidence of a kept suggestion that has none. */
const CACHED_CONFIDENCE = 0.8;
/** Confidence of advice that has none. */
const ADVICE_CONFIDENCE = 0.5;

const cacheKey = (signature: string): string => `recovery:cache:${signature}`;

const isObject = (json: unknown): json is Record<string, unknown> =>
  typeof json === 'object' && json !== null && !Array.isArray(json);

/** What was kept; undefined for anything that is no suggestion, whoever wrote it. */
const readCached = (text: string): Cached | undefined => {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(json) || Object.keys(json).length === 0 || !fitsAnswer(json)) return undefined;
  const { suggestion = null, confidence = CACHED_CONFIDENCE, matched_entry = null } = json;
  if (suggestion !== null && typeof suggestion !== 'string') return undefined;
  if (typeof confidence !== 'number' || (matched_entry !== null && !isObject(matched_entry))) return undefined;
  return { suggestion, confidence, matched_entry };
};

const ofKnown = (known: KnownFailure): Cached => ({
  suggestion: known.recoveryAction,
  confidence: Math.min(MAX_CONFIDENCE, known.similarity * known.successRate),
  matched_entry: {
    id: known.id,
    error_code: known.errorCode,
    error_pattern: known.errorPattern,
    recovery_action: known.recoveryAction,
    success_rate: known.successRate,
    similarity: known.similarity,
    source: 'embedding',
  },
});

const ofAdvice = ({ suggestedAction, confidence, reasoning }: Advice): Cached => ({
  suggestion: suggestedAction === undefined ? '' : suggestedAction,
  confidence: confidence ?? ADVICE_CONFIDENCE,
  matched_entry: { source: 'llm', reasoning: reasoning ?? null },
});

/**
 * Suggests a recovery by the first layer that knows one: the cache, known failures, a language model, history.
 *
 * `explain` names the layers that were passed over because nothing is configured for them.
 */
export const suggestHybrid = async (failure: Failure, layers: Layers): Promise<MatchResult> => {
  const { errorCode, errorSignature } = normalizeError(failure.report);
  const key = cacheKey(errorSignature);
  const skipped: string[] = [];
  const explained = (explain: MatchResult['explain']): MatchResult['explain'] =>
    skipped.length === 0 ? explain : { ...explain, skipped_layers: skipped };
  const result = ({ suggestion, confidence, matched_entry }: Cached, explain: MatchResult['explain']): MatchResult => ({
    matchedEntry: matched_entry,
    suggestedRecovery: suggestion,
    confidence,
    candidateId: null,
    explain: explained(explain),
    failureMatchId: failure.failureMatchId,
    errorCode,
    errorSignature,
  });
  const keep = (value: Cached): Promise<void> => layers.cache.set(key, JSON.stringify(value), CACHE_TTL_SECONDS);

  const text = await layers.cache.get(key);
  const cached = text === undefined ? undefined : readCached(text);
  if (cached) return result(cached, { method: 'cache', cache_hit: true });

  const message = firstCharacters(sanitizedStart(messageOf(failure.report)), MESSAGE_CHARACTERS);
  if (!layers.mostSimilar) skipped.push('embedding');
  const known = await layers.mostSimilar?.(message);
  if (known && known.similarity >= SIMILARITY_THRESHOLD) {
    const value = ofKnown(known);
    await keep(value);
    return result(value, { method: 'embedding', similarity: known.similarity, catalog_id: known.id });
  }

  if (!layers.advise) skipped.push('llm');
  const advice = await layers.advise?.(errorCode, message);
  if (advice) {
    const value = ofAdvice(advice);
    await keep(value);
    const requiresHuman = advice.requiresHuman === undefined ? false : advice.requiresHuman;
    return result(value, { method: 'llm', requires_human: requiresHuman });
  }

  const found = await layers.fallback();
  return { ...found, explain: explained(found.explain) };
};
