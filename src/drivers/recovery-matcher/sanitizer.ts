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

interface Pattern {
  readonly name: string;
  readonly expression: RegExp;
  readonly replacement: string;
}

/** Classes of letters of all scripts take long to compile: that is done when a pattern is first applied. */
const pattern = (name: string, expression: string, replacement: string): Pattern => {
  let compiled: RegExp | undefined;
  return {
    name,
    get expression() {
      compiled ??= new RegExp(expression, 'gu');
      return compiled;
    },
    replacement,
  };
};

const API_KEY = '[REDACTED_API_KEY]';

/** Always applied, in this order, each to what the ones before have left. */
const PATTERNS: readonly Pattern[] = [
  pattern('openai_key', `${EDGE}${word('sk-')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern('stripe_live_key', `${EDGE}${word('sk_live_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern('stripe_test_key', `${EDGE}${word('sk_test_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern('stripe_pk_key', `${EDGE}${word('pk_live_')}[${LETTER}0-9]{20,}${EDGE}`, API_KEY),
  pattern('slack_token', `${EDGE}${word('xox')}[baprsBAPRS\\u017f]-[${LETTER}0-9-]+${EDGE}`, API_KEY),
  pattern('github_pat', `${EDGE}${word('ghp_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern('github_oauth', `${EDGE}${word('gho_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern('github_user', `${EDGE}${word('ghu_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern('github_refresh', `${EDGE}${word('ghr_')}[${LETTER}0-9]{36}${EDGE}`, API_KEY),
  pattern('aws_access_key', `${EDGE}AKIA[0-9A-Z]{16}${EDGE}`, '[REDACTED_AWS_KEY]'),
  pattern(
    'generic_api_key',
    `${EDGE}${word('api')}[_-]?${word('key')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_-]{20,}${QUOTE}`,
    API_KEY,
  ),
  pattern('generic_apikey', `${EDGE}${word('apikey')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_-]{20,}${QUOTE}`, API_KEY),
  pattern('bearer_token', `${word('bearer')}[${BLANK}]+[${LETTER}0-9_\\-.]+`, 'Bearer [REDACTED_TOKEN]'),
  pattern(
    'auth_header',
    `${word('authorization')}[=:][${BLANK}]*${QUOTE}[${LETTER}0-9_\\-.]+${QUOTE}`,
    'Authorization: [REDACTED]',
  ),
  pattern('password', `${word('password')}[=:][${BLANK}]*${QUOTE}${INNER}{4,}${QUOTE}`, 'password=[REDACTED]'),
  pattern('passwd', `${word('passwd')}[=:][${BLANK}]*${QUOTE}${INNER}{4,}${QUOTE}`, 'passwd=[REDACTED]'),
  pattern('secret', `${word('secret')}[=:][${BLANK}]*${QUOTE}${INNER}{8,}${QUOTE}`, 'secret=[REDACTED]'),
  pattern('postgres_url', `${word('postgresql')}://[^:]+:[^@]+@[^${BLANK}]+`, 'postgresql://[REDACTED_CONNECTION]'),
  pattern('postgres_url_alt', `${word('postgres')}://[^:]+:[^@]+@[^${BLANK}]+`, 'postgres://[REDACTED_CONNECTION]'),
  pattern('mysql_url', `${word('mysql')}://[^:]+:[^@]+@[^${BLANK}]+`, 'mysql://[REDACTED_CONNECTION]'),
  pattern('mongodb_url', `${word('mongodb')}://[^:]+:[^@]+@[^${BLANK}]+`, 'mongodb://[REDACTED_CONNECTION]'),
  pattern('redis_url', `${word('redis')}://:[^@]+@[^${BLANK}]+`, 'redis://[REDACTED_CONNECTION]'),
  pattern(
    'private_key',
    '-----BEGIN [A-Z ]+ PRIVATE KEY-----[^]*?-----END [A-Z ]+ PRIVATE KEY-----',
    '[REDACTED_PRIVATE_KEY]',
  ),
  pattern('jwt_token', `${EDGE}eyJ[a-zA-Z0-9_-]*\\.eyJ[a-zA-Z0-9_-]*\\.[a-zA-Z0-9_-]*${EDGE}`, '[REDACTED_JWT]'),
  pattern(
    'credit_card',
    `${EDGE}${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}[${BLANK}-]?${DIGIT}{4}${EDGE}`,
    '[REDACTED_CC]',
  ),
  pattern('ssn', `${EDGE}${DIGIT}{3}[-${BLANK}]?${DIGIT}{2}[-${BLANK}]?${DIGIT}{4}${EDGE}`, '[REDACTED_SSN]'),
];

const EMAIL = pattern('email', `${EDGE}[a-zA-Z0-9_.+-]+@[a-zA-Z0-9-]+\\.[a-zA-Z0-9.\\-]+${EDGE}`, '[REDACTED_EMAIL]');
const IP = pattern(
  'ip_address',
  `${EDGE}${DIGIT}{1,3}\\.${DIGIT}{1,3}\\.${DIGIT}{1,3}\\.${DIGIT}{1,3}${EDGE}`,
  '[REDACTED_IP]',
);
const HEX = pattern('hex_secret', `${EDGE}[a-fA-F0-9]{32,}${EDGE}`, '[REDACTED_HEX]');

/** Which kinds of text are removed besides those that always are. */
export interface SanitizerOptions {
  /** E-mail addresses; default true. */
  readonly redactEmails?: boolean;
  /** IPv4 addresses; default false. */
  readonly redactIps?: boolean;
  /** Hex numbers of 32 digits and more; default true. */
  readonly redactHexSecrets?: boolean;
}

const chosen = ({ redactEmails = true, redactIps = false, redactHexSecrets = true }: SanitizerOptions): Pattern[] => [
  ...PATTERNS,
  ...(redactEmails ? [EMAIL] : []),
  ...(redactIps ? [IP] : []),
  ...(redactHexSecrets ? [HEX] : []),
];

/** Replaces secrets and personal data in a text by markers. */
export const sanitize = (text: string, options: SanitizerOptions = {}): string =>
  chosen(options).reduce((rest, { expression, replacement }) => rest.replace(expression, () => replacement), text);

/** Removes all that can be removed: for messages of errors. */
export const EVERYTHING: SanitizerOptions = { redactEmails: true, redactIps: true, redactHexSecrets: true };

/** Blanks of all scripts at both ends, as Python strips them. */
export const EDGE_BLANKS = new RegExp(`^[${BLANK}]+|[${BLANK}]+$`, 'gu');
