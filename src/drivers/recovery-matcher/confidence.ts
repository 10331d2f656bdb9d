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

/** A match whose time cannot be weighed. */
export class UnreadableTime extends Error {}

const TOO_FAR = 'too far in the future';

const TIME =
  /^((?!0000)\d{4}-\d\d-\d\d)[T ]([01]\d|2[0-3])(?::([0-5]\d)(?::([0-5]\d(?:[.,]\d+)?))?)?(?:Z|([+-])([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d))?)?)$/;

const seconds = (hours: string | undefined, minutes = '0', rest = '0'): number =>
  Number(hours) * 3_600 + Number(minutes) * 60 + Number(rest.replace(',', '.'));

/** Milliseconds since 1970 of ISO 8601 text; undefined for what is none, and for a time without zone. */
const instantOf = (text: string): number | undefined => {
  const [, date, hour, minute, second, sign, ...offset] = TIME.exec(text) ?? [];
  const midnight = date === undefined ? Number.NaN : Date.parse(date);
  // A day that its month does not have would pass as one of the next month.
  if (Number.isNaN(midnight) || new Date(midnight).toISOString().slice(0, 10) !== date) return undefined;
  const east = sign === undefined ? 0 : Number(`${sign}1`) * seconds(...(offset as [string, string?, string?]));
  return midnight + (seconds(hour, minute, second) - east) * 1_000;
};

const weightOf = (match: Match, now: number): number => {
  const { createdAt } = match;
  if (createdAt === undefined || createdAt === null) return 0;
  const instant = instantOf(createdAt);
  if (instant === undefined) throw new UnreadableTime('no ISO 8601 with a zone', { cause: match });
  const weight = timeWeight((now - instant) / DAY_MS);
  if (!Number.isFinite(weight)) throw new UnreadableTime(TOO_FAR, { cause: match });
  return weight;
};

/**
 * How likely a recovery is to help: matches weighed by age against the occurrences of the last seven days.
 *
 * @param now milliseconds since 1970.
 * @throws UnreadableTime for a time without zone, or too far in the future, with `cause` set to its match.
 */
export const computeConfidence = (
  matches: readonly Match[],
  occurrences: number,
  hasExactMatch: boolean,
  now: number,
): Confidence => {
  if (hasExactMatch) {
    return { confidence: EXACT_MATCH, explain: { method: 'exact_match', confidence: EXACT_MATCH } };
  }
  if (matches.length === 0 || occurrences === 0) {
    return { confidence: NO_HISTORY, explain: { method: 'no_history', confidence: NO_HISTORY } };
  }
  const basic = Math.min(1, matches.length / occurrences);
  const weights = matches.map((match) => weightOf(match, now));
  const weight = weights.reduce((sum, each) => sum + each, 0);
  const weighted = occurrences > 0 ? weight / (occurrences * timeWeight(OCCURRENCE_AGE_DAYS)) : basic;
  if (!Number.isFinite(weighted)) {
    throw new UnreadableTime(TOO_FAR, { cause: matches[weights.indexOf(Math.max(...weights))] });
  }
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
