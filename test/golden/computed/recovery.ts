import { type Advice, advicePrompt, parseAdvice, readAdvice } from '../../../src/drivers/recovery-matcher/advice.ts';
import { computeConfidence, timeWeight, UnreadableTime } from '../../../src/drivers/recovery-matcher/confidence.ts';
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
import {
  FailurePayloadSchema,
  SuggestRequestSchema,
} from '../../../src/gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { createProviders } from '../../../src/providers/providers.ts';
import { startProvider } from '../../support/provider.ts';
import type { Row } from '../compare.ts';
import { operation } from '../operations.ts';
import { parseInstant } from '../values.ts';
import { asked, type Computation, type Data, type Outcome, plain, type Subject } from './subject.ts';

/** What a request or a payload holds beyond these nobody reads. */
const known = (schema: typeof SuggestRequestSchema | typeof FailurePayloadSchema, data: Data): Data =>
  Object.fromEntries(schema.fields.filter(({ name }) => name in data).map(({ name }) => [name, data[name]]));

/** Whether the fields of a failure have the types that the contract gives them; null is a field left out. */
export const isTyped = (request: Data): boolean => {
  const { failure_payload, ...texts } = known(SuggestRequestSchema, request);
  const payload = failure_payload ?? {};
  if (typeof payload !== 'object' || Array.isArray(payload)) return false;
  return [...Object.values(texts), ...Object.values(known(FailurePayloadSchema, payload))].every(
    (each) => each === null || typeof each === 'string',
  );
};

const NO_SOURCE = 'unknown';
/** What the file's fallback stores. */
const FALLBACK_CANDIDATE = 7;

const failureOf = ({ failure_match_id, failure_payload, source }: Data): Failure => ({
  failureMatchId: failure_match_id ?? '',
  report: {
    errorType: failure_payload?.error_type ?? undefined,
    errorCode: failure_payload?.error_code ?? undefined,
    raw: failure_payload?.raw ?? undefined,
    errorMessage: failure_payload?.error_message ?? undefined,
  },
  source: source ?? NO_SOURCE,
});

/** A request as the RPC takes it. */
const sent = (subject: Subject, name: string, request: Data, result: (response: Row) => Outcome = (each) => each) => {
  const { failure_payload: payload, ...rest } = known(SuggestRequestSchema, request);
  const failure_payload =
    typeof payload === 'object' && payload !== null ? known(FailurePayloadSchema, payload) : payload;
  const args = { ...rest, ...('failure_payload' in request ? { failure_payload } : {}) };
  return asked(subject, operation('recovery_matcher', name), args, (response) => result(response) as never);
};

/** A computation over stored times; one that cannot be weighed fails it as it fails the original. */
const weighing =
  (computation: Computation): Computation =>
  async (input, subject, golden) => {
    try {
      return await computation(input, subject, golden);
    } catch (error) {
      if (!(error instanceof UnreadableTime)) throw error;
      const failed = (golden.output as Data)?.error;
      return { error: TIME_ERRORS.has(failed?.type) ? failed : { type: 'UnreadableTime', message: error.message } };
    }
  };

/** How Python says that it cannot read a time, has no zone for it, or cannot weigh it. */
const TIME_ERRORS = new Set(['ValueError', 'TypeError', 'OverflowError']);

/** A clock that stands still, milliseconds since 1970. */
const clock = (now: string): number => Number(parseInstant(now)!.micros) / 1_000;

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

const suggested: Computation = async (input, subject) => {
  const { now, request, similar_failures, occurrences_7d, upsert_returns } = input;
  if (!isTyped(request)) return sent(subject, 'suggest', request);
  const { history, stored } = historyOf(similar_failures, occurrences_7d, upsert_returns);
  const result = await suggest(failureOf(request), history, clock(now));
  return plain({ result: resultOf(result), upsert_calls: stored.map(upsertOf) });
};

const hybrid: Computation = async ({ now, request, cached_value, embedding_rows, llm_result }, subject) => {
  if (!isTyped(request)) return sent(subject, 'suggest_hybrid', request);
  const { history, stored } = historyOf([], 0, FALLBACK_CANDIDATE);
  const failure = failureOf(request);
  const writes: Data[] = [];
  const [similar] = embedding_rows ?? [];
  const result = await suggestHybrid(failure, {
    cache: {
      get: async () => (cached_value === null ? undefined : JSON.stringify(cached_value)),
      set: async (key, value) => {
        writes.push({ signature: key.slice(key.lastIndexOf(':') + 1), value: JSON.parse(value) });
      },
    },
    mostSimilar: async () =>
      similar && {
        id: similar.id,
        errorCode: similar.error_code,
        errorPattern: similar.error_pattern,
        recoveryAction: similar.recovery_action,
        successRate: similar.success_rate,
        similarity: similar.similarity,
      },
    advise: async () => (llm_result === null ? undefined : readAdvice(llm_result)),
    fallback: () => suggest(failure, history, clock(now)),
  });
  return plain({ result: resultOf(result), cache_writes: writes, upsert_calls: stored.map(upsertOf) });
};

const adviceOf = ({ suggestedAction, confidence, reasoning, requiresHuman }: Advice) => ({
  suggested_action: suggestedAction,
  confidence,
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
    return plain(advice && { ...unread(output), ...adviceOf(advice) });
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
  sent(subject, 'suggest', { failure_payload: payload }, ({ fields }) => [
    fields.get('error_code')!,
    fields.get('error_signature')!,
  ]);

/** A code that is no text is for the RPC: it knows nothing of the code then, and finds no history for it. */
const generated: Computation = ({ error_code, similar_recoveries }, subject) =>
  typeof error_code === 'string' || similar_recoveries.length > 0
    ? generateSuggestion(error_code, similar_recoveries)
    : sent(subject, 'suggest', { failure_payload: { error_code } }, ({ fields }) => fields.get('suggested_recovery')!);

/** `RecoveryMatcher`, as far as it needs no database: under a clock that stands still, with answers given. */
export const recovery: Readonly<Record<string, Computation>> = {
  'RecoveryMatcher.suggest': weighing(suggested),
  'RecoveryMatcher.suggest_hybrid': hybrid,
  'RecoveryMatcher._escalate_to_llm': escalated,
  'RecoveryMatcher._normalize_error': normalized,
  'RecoveryMatcher._calculate_time_weight(each)': ({ age_days }) => age_days.map(timeWeight),
  'RecoveryMatcher._compute_confidence': weighing(({ matches, occurrences, has_exact_match, now }) =>
    plain(
      computeConfidence(
        matches.map((match: Data) => ({ createdAt: match.created_at })),
        occurrences,
        has_exact_match,
        clock(now),
      ),
    ),
  ),
  'RecoveryMatcher._generate_suggestion': generated,
};
