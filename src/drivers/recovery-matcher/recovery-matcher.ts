import { refuse } from '../../contract/errors.ts';
import { type Rules, uuid } from '../../contract/rules.ts';
import type { Session } from '../../database/session.ts';
import { abortSignalOf } from '../../database/signal.ts';
import { jsonToValue } from '../../database/values.ts';
import {
  RecoveryMatcherService,
  type SuggestHybridRequest,
  type SuggestRequest,
  type SuggestRequestSchema,
} from '../../gen/hoc/cus/policies/v1/recovery_matcher_pb.ts';
import { type CallContext, type Driver, driver, write } from '../driver.ts';
import { advicePrompt, parseAdvice } from './advice.ts';
import { candidateRpcs } from './candidates.ts';
import { UnreadableTime } from './confidence.ts';
import { databaseHistory, mostSimilarFailure } from './history.ts';
import { suggestHybrid } from './hybrid.ts';
import { ProviderError, type Services } from './services.ts';
import { type Failure, type MatchResult, type SimilarFailure, suggest } from './suggest.ts';

const DEFAULT_SOURCE = 'unknown';

const failureOf = ({ failureMatchId, failurePayload, source }: SuggestRequest | SuggestHybridRequest): Failure => ({
  failureMatchId: failureMatchId ?? '',
  report: failurePayload ?? {},
  source: source ?? DEFAULT_SOURCE,
});

const response = ({ matchedEntry, suggestedRecovery, candidateId, explain, ...rest }: MatchResult) => ({
  ...rest,
  explain: jsonToValue(explain),
  ...(matchedEntry === null ? {} : { matchedEntry: jsonToValue(matchedEntry) }),
  ...(suggestedRecovery === null ? {} : { suggestedRecovery }),
  ...(candidateId === null ? {} : { candidateId }),
});

/** FAILED_PRECONDITION for a stored failure whose time cannot be weighed: nothing in the request is wrong. */
const fromHistory = async (db: Session, failure: Failure, call: CallContext, services: Services) => {
  try {
    return await suggest(failure, databaseHistory(db, call, services), Date.now());
  } catch (error) {
    if (!(error instanceof UnreadableTime)) throw error;
    const { id } = error.cause as SimilarFailure;
    throw refuse('FAILURE_UNREADABLE', `created_at of failure ${id}: ${error.message}`, {
      metadata: { failure_match_id: id },
    });
  }
};

const rules: Rules<typeof SuggestRequestSchema> = {
  failure_match_id: (value: string) => (value === '' ? undefined : uuid(value)),
};

/** Asks outside; a provider that fails knows nothing. */
const asked = async <T>(services: Services, layer: string, ask: () => Promise<T>): Promise<T | undefined> => {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    services.warn(layer, error.message);
    return undefined;
  }
};

/** As what a provider takes. */
const stopOf = ({ signal }: CallContext): AbortSignal | undefined => signal && abortSignalOf(signal);

/** What is suggested from the rows of some tenants is kept for callers that see the same. */
const cacheOf = (cache: Services['cache'], { bound }: CallContext): Services['cache'] =>
  bound === undefined
    ? cache
    : {
        get: (key) => cache.get(`${key}:${bound}`),
        set: (key, value, seconds) => cache.set(`${key}:${bound}`, value, seconds),
      };

const hybrid = (services: Services, db: Session, failure: Failure, call: CallContext): Promise<MatchResult> => {
  const { cache, embeddings, model } = services;
  return suggestHybrid(failure, {
    cache: cacheOf(cache, call),
    mostSimilar:
      embeddings &&
      (async (message) => {
        const vector = await asked(services, 'embedding', () => embeddings.embed(message, stopOf(call)));
        return vector && mostSimilarFailure(db, call, services, vector);
      }),
    advise:
      model &&
      (async (errorCode, message) => {
        const text = await asked(services, 'llm', () => model.complete(advicePrompt(errorCode, message), stopOf(call)));
        if (text === undefined) return undefined;
        const advice = parseAdvice(text);
        if (!advice) services.warn('llm', 'the answer holds no advice');
        return advice;
      }),
    fallback: () => fromHistory(db, failure, call, services),
  });
};

/** `RecoveryMatcher`: suggestions and the candidates they become. */
export const recoveryMatcher = (services: Services): Driver =>
  driver(RecoveryMatcherService, {
    ...candidateRpcs,
    suggest: write(rules, async (db, request, call) =>
      response(await fromHistory(db, failureOf(request), call, services)),
    ),
    suggestHybrid: write(rules, async (db, request, call) =>
      response(await hybrid(services, db, failureOf(request), call)),
    ),
  });
