import { type Advice, advicePrompt, parseAdvice } from '../../../src/drivers/recovery-matcher/advice.ts';
import { computeConfidence, timeWeight } from '../../../src/drivers/recovery-matcher/confidence.ts';
import { suggestHybrid } from '../../../src/drivers/recovery-matcher/hybrid.ts';
import { ProviderError } from '../../../src/drivers/recovery-matcher/services.ts';
import {
  type Failure,
  type History,
  type MatchResult,
  type NewCandidate,
  suggest,
} from '../../../src/drivers/recovery-matcher/suggest.ts';
import { generateSuggestion } from '../../../src/drivers/recovery-matcher/suggestion.ts';
import { createProviders } from '../../../src/providers/index.ts';
import { startProvider } from '../../support/provider.ts';
import type { Row } from '../compare.ts';
import { operation } from '../operations.ts';
import { asked, type Computation, type Data, plain } from './subject.ts';

const NO_SOURCE = 'unknown';
/** What the file's fallback stores. */
const FALLBACK_CANDIDATE = 7;

const failureOf = ({ failure_match_id, failure_payload = {}, source }: Data): Failure => ({
  failureMatchId: failure_match_id ?? '',
  report: {
    errorType: failure_payload.error_type,
    errorCode: failure_payload.error_code,
    raw: failure_payload.raw,
    errorMessage: failure_payload.error_message,
  },
  source: source ?? NO_SOURCE,
});

/** History as a case tells it, and what is stored in it. */
const historyOf = (similar: Data[], occurrences: number, stores: number | string) => {
  const stored: NewCandidate[] = [];
  const history: History = {
    similarFailures: async () =>
      similar.map((each) => ({
        id: each.id,
        errorCode: each.error_code,
        recoverySuggestion: each.recovery_suggestion,
        recoverySucceeded: each.recovery_succeeded,
        category: each.category,
        createdAt: each.created_at,
      })),
    occurrences: async () => occurrences,
    store: async (candidate) => {
      stored.push(candidate);
      return typeof stores === 'number' ? stores : null;
    },
  };
  return { history, stored };
};

const resultOf = (result: MatchResult) => ({
  matched_entry: result.matchedEntry,
  suggested_recovery: result.suggestedRecovery,
  confidence: result.confidence,
  candidate_id: result.candidateId,
  explain: result.explain,
  failure_match_id: result.failureMatchId,
  error_code: result.errorCode,
  error_signature: result.errorSignature,
});

const upsertOf = (candidate: NewCandidate) => ({
  failure_match_id: candidate.failureMatchId,
  suggestion: candidate.suggestion,
  confidence: candidate.confidence,
  explain: candidate.explain,
  error_code: candidate.errorCode,
  error_signature: candidate.errorSignature,
  matched_entry: candidate.matchedEntry,
  source: candidate.source,
});

const suggested: Computation = async ({ now, request, similar_failures, occurrences_7d, upsert_returns }) => {
  const { history, stored } = historyOf(similar_failures, occurrences_7d, upsert_returns);
  const result = await suggest(failureOf(request), history, new Date(now));
  return plain({ result: resultOf(result), upsert_calls: stored.map(upsertOf) });
};

const hybrid: Computation = async ({ now, request, cached_value, embedding_rows, llm_result }) => {
  const { history, stored } = historyOf([], 0, FALLBACK_CANDIDATE);
  const failure = failureOf(request);
  const writes: Data[] = [];
  const [known] = embedding_rows ?? [];
  const result = await suggestHybrid(failure, {
    cache: {
      get: async () => (cached_value === null ? undefined : JSON.stringify(cached_value)),
      set: async (key, value) => {
        writes.push({ signature: key.slice(key.lastIndexOf(':') + 1), value: JSON.parse(value) });
      },
    },
    mostSimilar: async () =>
      known && {
        id: known.id,
        errorCode: known.error_code,
        errorPattern: known.error_pattern,
        recoveryAction: known.recovery_action,
        successRate: known.success_rate,
        similarity: known.similarity,
      },
    advise: async () =>
      llm_result === null
        ? undefined
        : {
            suggestedAction: llm_result.suggested_action,
            confidence: llm_result.confidence,
            reasoning: llm_result.reasoning,
            requiresHuman: llm_result.requires_human,
          },
    fallback: () => suggest(failure, history, new Date(now)),
  });
  return plain({ result: resultOf(result), cache_writes: writes, upsert_calls: stored.map(upsertOf) });
};

/** A yes or no counts as 1 or 0, and is shown as it was said. */
const adviceOf = ({ suggestedAction, confidence, reasoning, requiresHuman }: Advice, isYesOrNo: boolean) => ({
  suggested_action: suggestedAction,
  confidence: isYesOrNo ? confidence === 1 : confidence,
  reasoning,
  requires_human: requiresHuman,
  source: 'llm',
});

const ADVICE = ['suggested_action', 'confidence', 'reasoning', 'requires_human', 'source'];

/** What a model says beyond advice: the original hands it on, and nobody reads it. */
const unread = (output: Data): Data =>
  Object.fromEntries(Object.entries(output ?? {}).filter(([name]) => !ADVICE.includes(name)));

/** The model's answer goes over a socket, as the model would send it. */
const escalated: Computation = async (input, _subject, { output }) => {
  const { error_code, error_message, api_key_set, http_status, response_body } = input;
  const provider = await startProvider();
  provider.answer = { status: http_status, json: response_body };
  const providers = createProviders(
    {
      redisUrl: undefined,
      anthropicApiKey: api_key_set ? 'key' : undefined,
      llmUrl: provider.url,
      llmModel: 'model',
      embeddingUrl: undefined,
      embeddingKey: undefined,
      embeddingModel: 'model',
    },
    () => {},
  );
  try {
    const text = await providers.model?.complete(advicePrompt(error_code, error_message), undefined);
    const advice = text === undefined ? undefined : parseAdvice(text);
    return plain(
      advice && { ...unread(output), ...adviceOf(advice, typeof (output as Data)?.confidence === 'boolean') },
    );
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    return null;
  } finally {
    providers.close();
    await provider.close();
  }
};

/** A suggestion says how it has read the failure; one for no failure stores nothing. */
const normalized: Computation = ({ payload }, subject) =>
  asked(subject, operation('recovery_matcher', 'suggest'), { failure_payload: payload }, ({ fields }: Row) => [
    fields.get('error_code')!,
    fields.get('error_signature')!,
  ]);

/** `RecoveryMatcher`, as far as it needs no database: under a clock that stands still, with answers given. */
export const recovery: Readonly<Record<string, Computation>> = {
  'RecoveryMatcher.suggest': suggested,
  'RecoveryMatcher.suggest_hybrid': hybrid,
  'RecoveryMatcher._escalate_to_llm': escalated,
  'RecoveryMatcher._normalize_error': normalized,
  'RecoveryMatcher._calculate_time_weight(each)': ({ age_days }) => age_days.map(timeWeight),
  'RecoveryMatcher._compute_confidence': ({ matches, occurrences, has_exact_match, now }) =>
    plain(
      computeConfidence(
        matches.map((match: Data) => ({ createdAt: match.created_at })),
        occurrences,
        has_exact_match,
        new Date(now),
      ),
    ),
  'RecoveryMatcher._generate_suggestion': ({ error_code, similar_recoveries }) =>
    generateSuggestion(error_code, similar_recoveries),
};
