import { isHostPort, isSocketOrPort } from './address.ts';
import { readTarget } from './database/target.ts';

/** A setting that is no good; the message is one line for the user. */
export class ConfigError extends Error {}

/** An address that cannot be listened on; the message is one line for the user. */
export class AddressError extends ConfigError {}

/** Reads one setting's text. */
export type Parse<T> = (text: string) => T;

/** Numbers by what they count, told apart as long as they are parsed. */
export type Ms = number & { readonly counts: 'ms' };
export type Count = number & { readonly counts: 'things' };
export type Mode = number & { readonly counts: 'permissions' };

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

const durationUpTo =
  (days: number): Parse<Ms> =>
  (text) => {
    const [, amount, unit] = /^(\d{1,10})(ms|s|m|h|d)$/.exec(text) ?? [];
    if (!amount || !unit) throw new ConfigError('must be a duration such as 500ms, 30s, 5m, 24h or 7d');
    const ms = Number(amount) * UNITS[unit as keyof typeof UNITS];
    if (ms < 1 || ms > days * UNITS.d) throw new ConfigError(`must be between 1ms and ${days}d`);
    return ms as Ms;
  };

/**
 * `500ms`, `30s`, `5m`, `24h`, `7d` -> milliseconds. Past 2^31-1 of them a timer fires at once, and so it does for nothing.
 */
export const duration: Parse<Ms> = durationUpTo(24);

/** The same of what may last a tenth longer than it is set to. */
export const durationAndTenth: Parse<Ms> = durationUpTo(22);

/** A duration that may be none. */
export const durationOrOff: Parse<Ms> = (text) => (text === 'off' ? (0 as Ms) : duration(text));

const LARGEST = 2_147_483_647;

export const wholeNumber =
  (least: number): Parse<Count> =>
  (text) => {
    if (!/^\d{1,10}$/.test(text) || Number(text) < least || Number(text) > LARGEST) {
      throw new ConfigError(`must be a whole number from ${least} to ${LARGEST}`);
    }
    return Number(text) as Count;
  };

export const oneOf =
  <const C extends Readonly<Record<string, unknown>>>(choices: C): Parse<C[keyof C]> =>
  (text) => {
    if (!Object.hasOwn(choices, text)) throw new ConfigError(`must be one of ${Object.keys(choices).join(', ')}`);
    return choices[text as keyof C];
  };

/** A part of the whole, 0 to 1. */
export const share: Parse<Count> = (text) => {
  if (!/^(?:0|1|0?\.\d{1,9})$/.test(text)) throw new ConfigError('must be a share from 0 to 1 such as 0.01');
  return Number(text) as Count;
};

export const onOff = oneOf({ on: true, off: false });

export const hostPort: Parse<string> = (text) => {
  if (!isHostPort(text)) throw new ConfigError('must be host:port');
  return text;
};

export const socketOrPort: Parse<string> = (text) => (isSocketOrPort(text) ? text : hostPort(text));

export const fileMode: Parse<Mode> = (text) => {
  if (!/^0?[0-7]{3}$/.test(text)) throw new ConfigError('must be an octal file mode such as 0660');
  return Number.parseInt(text, 8) as Mode;
};

export const listOf =
  (one: Parse<string>): Parse<readonly string[]> =>
  (text) =>
    text
      .split(',')
      .map((each) => each.trim())
      .filter((each) => each !== '')
      .map(one);

export const hostName: Parse<string> = (text) => {
  if (text !== '*' && !/^[a-z\d_-]+(\.[a-z\d_-]+)*$/i.test(text)) {
    throw new ConfigError('must be names without ports, separated by commas, or *');
  }
  return text;
};

export const origin: Parse<string> = (text) => {
  if (!/^https?:/.test(text) || !URL.canParse(text) || new URL(text).origin !== text) {
    throw new ConfigError('must be origins such as https://console.example:8443, separated by commas');
  }
  return text;
};

/** What may be switched off. */
export const orOff =
  <T>(parse: Parse<T>): Parse<T | undefined> =>
  (text) =>
    text === 'off' ? undefined : parse(text);

/** The log, or a file. */
export type AuditPlace = 'log' | { readonly file: string };

export const auditPlace: Parse<AuditPlace | undefined> = (text) => {
  if (text === 'off') return undefined;
  if (text === 'log') return 'log';
  const [, file] = /^file:(.+)$/.exec(text) ?? [];
  if (file === undefined) throw new ConfigError('must be log, file:/path or off');
  return { file };
};

export const optional: Parse<string | undefined> = (text) => (text === '' ? undefined : text);

export const folder: Parse<string> = (text) => {
  if (text === '') throw new ConfigError('must name a folder');
  return text;
};

const isPort = (text: string): boolean =>
  text === '' || (/^\d{1,5}$/.test(text) && Number(text) > 0 && Number(text) < 65_536);

const UNENCODED =
  'has a user or password with a character that must be percent-encoded (# as %23, / as %2F, ? as %3F, @ as %40, % as %25)';

const problemOf = (url: string): Error | undefined => {
  try {
    readTarget(url);
    return undefined;
  } catch (error) {
    return error as Error;
  }
};

export const databaseUrl: Parse<string | undefined> = (text) => {
  if (text === '') return undefined;
  if (!/^postgres(ql)?:\/\//.test(text)) throw new ConfigError('must be a postgresql:// URL');
  const [, authority = '', path = '', query = ''] = /^[a-z]+:\/\/([^/?#]*)([^?#]*)\??(.*)$/s.exec(text) ?? [];
  // A slash in a password ends it, and what was meant as the host is taken for the database.
  if (/%(?![\da-fA-F]{2})/.test(authority) || (path.includes('@') && !authority.includes('@'))) {
    throw new ConfigError(UNENCODED);
  }
  const problem = problemOf(text);
  if (problem && text.includes('@') && !authority.includes('@')) throw new ConfigError(UNENCODED);
  const port = /:([^:@\]]*)$/.exec(authority)?.[1] ?? '';
  if (![port, new URLSearchParams(query).get('port') ?? ''].every(isPort)) {
    throw new ConfigError('must have a port from 1 to 65535');
  }
  if (problem) throw new ConfigError(problem.message);
  return text;
};

export const filled: Parse<string> = (text) => {
  if (text === '') throw new ConfigError('must not be empty');
  return text;
};

export const httpUrl: Parse<string> = (text) => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new ConfigError('must be an http:// or https:// URL without credentials and query');
  }
  return text;
};

export const redisUrl: Parse<string | undefined> = (text) => {
  if (text === '') return undefined;
  if (!URL.canParse(text) || !/^rediss?:$/.test(new URL(text).protocol)) {
    throw new ConfigError('must be a redis:// or rediss:// URL');
  }
  return text;
};
