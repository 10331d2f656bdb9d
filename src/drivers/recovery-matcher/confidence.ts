/** A similar failure, as far as confidence goes. */
export interface Match {
  /** ISO 8601 with offset; a match without counts, but carries no weight. */
  readonly createdAt?: string | null;
}

/** How a confidence came about, a JSON object. */
export type Explanation = Readonly<Record<string, unknown>>;

/** A confidence, 0 to 1, and how it came about. */
export interface Confidence {
  readonly confidence: number;
  readonly explain: Explanation;
}

const HALF_LIFE_DAYS = 30;
const DECAY = Math.LN2 / HALF_LIFE_DAYS;
/** Share of the weighted score. */
const ALPHA = 0.7;
const EXACT_MATCH = 0.95;
const NO_HISTORY = 0.2;
/** Age that all occurrences are taken to have, days. */
const OCCURRENCE_AGE_DAYS = 7;
const DAY_MS = 86_400_000;

/** Weight of a match by its age in days: halves every 30 days, above 1 for the future. */
export const timeWeight = (ageDays: number): number => Math.exp(-DECAY * ageDays);

/** To four decimals; what lies exactly between two goes to the even one, where `toFixed` goes up. */
const rounded = (value: number): number => {
  const scaled = value * 10_000;
  const floor = Math.floor(scaled);
  // A double lies exactly between two only as an odd number of thirty-seconds.
  const isTie = Number.isInteger(value * 32) && scaled - floor === 0.5;
  if (isTie) return (floor % 2 === 0 ? floor : floor + 1) / 10_000;
  return Number(value.toFixed(4));
};

const ZONED = /(?:Z|[+-]\d\d:?\d\d)$/;

const ageDays = (createdAt: string, now: Date): number => {
  const instant = ZONED.test(createdAt) ? Date.parse(createdAt) : Number.NaN;
  if (Number.isNaN(instant)) throw new TypeError('a time needs its zone');
  return (now.getTime() - instant) / DAY_MS;
};

/**
 * How likely a recovery is to help: matches weighed by age against the occurrences of the last seven days.
 *
 * @throws TypeError for a time without zone.
 */
export const computeConfidence = (
  matches: readonly Match[],
  occurrences: number,
  hasExactMatch: boolean,
  now: Date,
): Confidence => {
  if (hasExactMatch) {
    return { confidence: EXACT_MATCH, explain: { method: 'exact_match', confidence: EXACT_MATCH } };
  }
  if (matches.length === 0 || occurrences === 0) {
    return { confidence: NO_HISTORY, explain: { method: 'no_history', confidence: NO_HISTORY } };
  }
  const basic = Math.min(1, matches.length / occurrences);
  const weight = matches.reduce(
    (sum, { createdAt }) => (createdAt ? sum + timeWeight(ageDays(createdAt, now)) : sum),
    0,
  );
  const weighted = weight / (occurrences * timeWeight(OCCURRENCE_AGE_DAYS));
  const confidence = Math.min(1, Math.max(0, ALPHA * weighted + (1 - ALPHA) * basic));
  return {
    confidence,
    explain: {
      method: 'weighted_time_decay',
      matches: matches.length,
      occurrences,
      score_basic: rounded(basic),
      score_weighted: rounded(weighted),
      alpha: ALPHA,
      half_life_days: HALF_LIFE_DAYS,
      confidence: rounded(confidence),
    },
  };
};
