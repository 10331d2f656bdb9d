import { createHash } from 'node:crypto';
import { EVERYTHING, type SanitizerOptions, sanitize, stripped } from './sanitizer.ts';

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
export const MESSAGE_CHARACTERS = 500;
const SIGNATURE_DIGITS = 16;
/** Characters of a text that are looked at: the patterns take quadratic time on hostile text. */
const LONGEST_TEXT = 10_000;

/** The first so many code points of a text. */
export const firstCharacters = (text: string, count: number): string =>
  text.length <= count ? text : [...text.slice(0, 2 * count)].slice(0, count).join('');

/** What is left of a secret that ends beyond the cut: it would pass for harmless text. */
const CUT_OFF: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z ]+ PRIVATE KEY-----.*$/s, '[REDACTED_PRIVATE_KEY]'],
  [/\beyJ[a-zA-Z0-9_.-]*$/, '[REDACTED_JWT]'],
  [/(?:postgres(?:ql)?|mysql|mongodb|redis):\/\/[^@]*@?$/i, '[REDACTED_CONNECTION]'],
];

/** Characters of a last word that may be the first ones of a secret. */
const LONGEST_SECRET = 200;

/** A text without its last word, of a long one the end, and without groups of digits before it. */
const withoutLastWord = (text: string): string => {
  const word = /\S*$/.exec(text.slice(-LONGEST_SECRET))![0];
  const rest = text.slice(0, text.length - word.length);
  const groups = /[\d\s-]*$/.exec(rest.slice(-LONGEST_SECRET))![0];
  return rest.slice(0, rest.length - groups.length);
};

/** The beginning of a text that is looked at, without what the sanitizer removes. */
export const sanitizedStart = (text: string, options?: SanitizerOptions): string => {
  const start = firstCharacters(text, LONGEST_TEXT);
  const clean = sanitize(start, options);
  if (start === text) return clean;
  const marked = CUT_OFF.reduce((rest, [secret, marker]) => rest.replace(secret, marker), clean);
  return marked === clean ? withoutLastWord(clean) : marked;
};

/** The message of a failure as it was given. */
export const messageOf = ({ raw, errorMessage }: FailureReport): string => raw ?? errorMessage ?? '';

/** Kind and signature of a failure. Letter case and blanks around the message do not matter, case of the kind does. */
export const normalizeError = (report: FailureReport): NormalizedError => {
  const errorCode = report.errorType ?? report.errorCode ?? 'UNKNOWN';
  const lower = sanitizedStart(messageOf(report), EVERYTHING).toLowerCase();
  const message = firstCharacters(stripped(lower), MESSAGE_CHARACTERS);
  const digest = createHash('sha256').update(`${errorCode}:${message}`).digest('hex');
  return { errorCode, errorSignature: digest.slice(0, SIGNATURE_DIGITS) };
};
