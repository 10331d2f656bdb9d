import { createHash } from 'node:crypto';
import { EDGE_BLANKS, sanitizeErrorMessage } from './sanitizer.ts';

/** What is known of a failure; a field that is present counts, even if it is empty. */
export interface FailureReport {
  readonly errorType?: string | undefined;
  readonly errorCode?: string | undefined;
  readonly raw?: string | undefined;
  readonly errorMessage?: string | undefined;
}

/** A failure reduced to what is the same for its kind. */
export interface NormalizedError {
  readonly errorCode: string;
  /** 16 hex digits; no secret of the message goes into it. */
  readonly errorSignature: string;
}

/** Characters of a message that count. */
const MESSAGE_CHARACTERS = 500;
const SIGNATURE_DIGITS = 16;
/** Characters of a message that are looked at: the patterns take quadratic time on hostile text. */
const LONGEST_MESSAGE = 10_000;

/** The first so many code points of a text. */
export const firstCharacters = (text: string, count: number): string =>
  text.length <= count ? text : [...text.slice(0, 2 * count)].slice(0, count).join('');

/** The message of a failure as it was given, cut to what is looked at. */
export const messageOf = ({ raw, errorMessage }: FailureReport): string =>
  firstCharacters(raw ?? errorMessage ?? '', LONGEST_MESSAGE);

/** Kind and signature of a failure. Letter case and blanks around the message do not matter, case of the kind does. */
export const normalizeError = (report: FailureReport): NormalizedError => {
  const errorCode = report.errorType ?? report.errorCode ?? 'UNKNOWN';
  const lower = sanitizeErrorMessage(messageOf(report)).toLowerCase();
  const message = firstCharacters(lower.replace(EDGE_BLANKS, ''), MESSAGE_CHARACTERS);
  const digest = createHash('sha256').update(`${errorCode}:${message}`).digest('hex');
  return { errorCode, errorSignature: digest.slice(0, SIGNATURE_DIGITS) };
};

export { MESSAGE_CHARACTERS };
