/** Pieces of Python's regular expressions that JavaScript reads otherwise: digits, blanks and letters of all scripts. */
const WORD = '[\\p{L}\\p{N}_]';
const EDGE = `(?:(?<=${WORD})(?!${WORD})|(?<!${WORD})(?=${WORD}))`;
const DIGIT = '\\p{Nd}';
const BLANK = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

/** Letters beyond ASCII that Python takes for one of these where letter case does not matter. */
const ALIASES: Readonly<Record<string, string>> = { i: '\\u0130\\u0131', k: '\\u212a', s: '\\u017f' };

/** ASCII letters where letter case does not matter; for use between brackets. */
const LETTER = `a-zA-Z${Object.values(ALIASES).join('')}`;

/** A word in any letter case. */
const word = (text: string): string =>
  text.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}${ALIASES[letter] ?? ''}]`);

const QUOTE = `['"]?`;
const INNER = `[^${BLANK}'"]`;

/** Replaces what it finds in a text. */
type Remove = (text: string) => string;

/** Classes of letters of all scripts take long to compile: that is done when an expression is first used. */
const lazily = (expression: string, flags: string): (() => RegExp) => {
  let compiled: RegExp | undefined;
  return () => {
    compiled ??= new RegExp(expression, flags);
    return compiled;
  };
};

const pattern = (expression: string, replacement: string): Remove => {
  const compiled = lazily(expression, 'gu');
  return (text) => text.replace(compiled(), () => replacement);
};

const API_KEY = '[REDACTED_API_KEY]';

/** Always applied, in this order, each to what the ones before have left. */
const PATTERNS: readonly Remove[] = [
  pattern(`${EDGE}${word('sk-')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('sk_live_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('sk_test_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('pk_live_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('xox')}[baprsBAPRS\\u017f]-[${LETTER}0-9-]+${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('ghp_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('gho_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('ghu_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern(`${EDGE}${word('ghr_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern(`${EDGE}AKIA[0-9A-Z]{16}${EDGE}`, '[REDACTED_AWS_KEY]'),
  pattern(`${EDGE}${word('api')}[_-]?${word('key')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_-]{20,}${QUOTE}`, API_KEY),
  pattern(`${EDGE}${word('apikey')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_-]{20,}${QUOTE}`, API_KEY),
  pattern(`${word('bearer')}[${BLANK}]+[${LETTER}0-9_\\-.]+`, 'Bearer [REDACTED_TOKEN]'),
  pattern(`${word('authorization')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_\\-.]+${QUOTE}`, 'Authorization: [REDACTED]'),
  pattern(`${word('password')}[=:][${BLANK}]*${QUOTE}${INNER}{4,}${QUOTE}`, 'password=[REDACTED]'),
  pattern(`${word('passwd')}[=:][${BLANK}]*${QUOTE}${INNER}{4,}${QUOTE}`, 'passwd=[REDACTED]'),
  pattern(`${word('secret')}[=:][${BLANK}]*${QUOTE}${INNER}{8,}${QUOTE}`, 'secret=[REDACTED]'),
  pattern(`${word('postgresql')}://[^:]+:[^@]+@[^${BLANK}]+`, 'postgresql://[REDACTED_CONNECTION]'),
  pattern(`${word('postgres')}://[^:]+:[^@]+@[^${BLANK}]+`, 'postgres://[REDACTED_CONNECTION]'),
  pattern(`${word('mysql')}://[^:]+:[^@]+@[^${BLANK}]+`, 'mysql://[REDACTED_CONNECTION]'),
  pattern(`${word('mongodb')}://[^:]+:[^@]+@[^${BLANK}]+`, 'mongodb://[REDACTED_CONNECTION]'),
  pattern(`${word('redis')}://:[^@]+@[^${BLANK}]+`, 'redis://[REDACTED_CONNECTION]'),
  pattern('-----BEGIN [A-Z ]+ PRIVATE KEY-----[^]*?-----END [A-Z ]+ PRIVATE KEY-----', '[REDACTED_PRIVATE_KEY]'),
  pattern(`${EDGE}eyJ[a-zA-Z0-9_-]*\\.eyJ[a-zA-Z0-9_-]*\\.[a-zA-Z0-9_-]*${EDGE}`, '[REDACTED_JWT]'),
  pattern(
    `${EDGE}${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}${EDGE}`,
    '[REDACTED_CC]',
  ),
  pattern(`${EDGE}${DIGIT}{3}[-${BLANK}]?${DIGIT}{2}[-${BLANK}]?${DIGIT}{4}${EDGE}`, '[REDACTED_SSN]'),
];

const LOCAL_PART = lazily('[a-zA-Z0-9_.+-]', 'u');
const BOUNDARY = lazily(EDGE, 'uy');
const DOMAIN = lazily(`@[a-zA-Z0-9-]+\\.[a-zA-Z0-9.\\-]+${EDGE}`, 'uy');

const matchesAt = (expression: RegExp, text: string, at: number): boolean => {
  expression.lastIndex = at;
  return expression.test(text);
};

/**
 * E-mail addresses, found by their `@`: an expression would begin at every word before it, and come to the same end of the
 * domain each time, in seconds for a text of ten thousand characters.
 */
const EMAIL: Remove = (text) => {
  let clean = '';
  let done = 0;
  for (let at = text.indexOf('@'); at !== -1; at = text.indexOf('@', Math.max(at + 1, done))) {
    if (!matchesAt(DOMAIN(), text, at)) continue;
    const end = DOMAIN().lastIndex;
    let start = at;
    while (start > done && LOCAL_PART().test(text[start - 1]!)) start -= 1;
    while (start < at && !matchesAt(BOUNDARY(), text, start)) start += 1;
    if (start === at) continue;
    clean += `${text.slice(done, start)}[REDACTED_EMAIL]`;
    done = end;
  }
  return clean + text.slice(done);
};

const IP = pattern(`${EDGE}${DIGIT}{1,3}\\.${DIGIT}{1,3}\\.${DIGIT}{1,3}\\.${DIGIT}{1,3}${EDGE}`, '[REDACTED_IP]');
const HEX = pattern(`${EDGE}[a-fA-F0-9]{32,}${EDGE}`, '[REDACTED_HEX]');

/** Which kinds of text are removed besides those that always are. */
export interface SanitizerOptions {
  /** E-mail addresses; default true. */
  readonly redactEmails?: boolean;
  /** IPv4 addresses; default false. */
  readonly redactIps?: boolean;
  /** Hex numbers of 32 digits and more; default true. */
  readonly redactHexSecrets?: boolean;
}

const chosen = ({ redactEmails = true, redactIps = false, redactHexSecrets = true }: SanitizerOptions): Remove[] => [
  ...PATTERNS,
  ...(redactEmails ? [EMAIL] : []),
  ...(redactIps ? [IP] : []),
  ...(redactHexSecrets ? [HEX] : []),
];

/** Replaces secrets and personal data in a text by markers. */
export const sanitize = (text: string, options: SanitizerOptions = {}): string =>
  chosen(options).reduce((rest, remove) => remove(rest), text);

/** Removes all that can be removed: for messages of errors. */
export const EVERYTHING: SanitizerOptions = { redactEmails: true, redactIps: true, redactHexSecrets: true };

const IS_BLANK = new RegExp(`[${BLANK}]`, 'u');

/** A text without blanks of all scripts at both ends, as Python strips them. */
export const stripped = (text: string): string => {
  let start = 0;
  let end = text.length;
  while (start < end && IS_BLANK.test(text[start]!)) start += 1;
  while (end > start && IS_BLANK.test(text[end - 1]!)) end -= 1;
  return text.slice(start, end);
};
