import { computeConfidence, type Explanation } from './confidence.ts';
import { type FailureReport, normalizeError } from './normalize.ts';
import { generateSuggestion } from './suggestion.ts';

/** A failure to recover from. */
export interface Failure {
  /** The failure, empty if it has no id. */
  readonly failureMatchId: string;
  readonly report: FailureReport;
  /** Who reports it. */
  readonly source: string;
}

/** An earlier failure with the same error code. */
export interface SimilarFailure {
  readonly id: string;
  readonly errorCode: string;
  readonly recoverySuggestion: string;
  readonly recoverySucceeded: boolean | null;
  readonly category: string | null;
  /** ISO 8601 with offset. */
  readonly createdAt: string;
}

/** A suggestion. */
export interface MatchResult {
  /** What it comes from, as JSON. */
  readonly matchedEntry: Readonly<Record<string, unknown>> | null;
  readonly suggestedRecovery: string | null;
  readonly confidence: number;
  /** The stored candidate. */
  readonly candidateId: number | null;
  /** How it came about, as JSON. */
  readonly explain: Explanation;
  readonly failureMatchId: string;
  readonly errorCode: string;
  readonly errorSignature: string;
}

/** A candidate to store. */
export interface NewCandidate extends Omit<MatchResult, 'suggestedRecovery' | 'candidateId'> {
  readonly suggestion: string;
  readonly source: string;
}

/** Where `suggest` takes its knowledge from and leaves what it found. */
export interface History {
  /** Latest similar failures with a suggestion, newest first. */
  similarFailures(errorCode: string): Promise<readonly SimilarFailure[]>;
  /** Failures of the last seven days. */
  occurrences(errorCode: string): Promise<number>;
  /** Stores a candidate as well as possible; null if that was not possible. */
  store(candidate: NewCandidate): Promise<number | null>;
}

/** Least confidence of a candidate that is stored. */
const LEAST_CONFIDENCE = 0.1;

/**
 * Suggests a recovery from history and stores it as a candidate. A similar failure with a category counts as an exact
 * match, whether its recovery succeeded or not.
 *
 * @param now milliseconds since 1970.
 */
export const suggest = async (failure: Failure, history: History, now: number): Promise<MatchResult> => {
  const { failureMatchId, report, source } = failure;
  const { errorCode, errorSignature } = normalizeError(report);
  const similar = await history.similarFailures(errorCode);
  const occurrences = await history.occurrences(errorCode);
  const exact = similar.find(({ category }) => category);
  const matchedEntry = exact ? { catalog_id: exact.id, error_code: exact.errorCode, category: exact.category } : null;
  const { confidence, explain } = computeConfidence(similar, occurrences, exact !== undefined, now);
  const recoveries = similar
    .filter(({ recoverySucceeded, recoverySuggestion }) => recoverySucceeded && recoverySuggestion)
    .map(({ recoverySuggestion }) => recoverySuggestion);
  const suggestion = generateSuggestion(errorCode, recoveries);
  const found = { matchedEntry, confidence, explain, failureMatchId, errorCode, errorSignature };
  const candidateId = confidence >= LEAST_CONFIDENCE ? await history.store({ ...found, suggestion, source }) : null;
  return { ...found, suggestedRecovery: suggestion, candidateId };
};
