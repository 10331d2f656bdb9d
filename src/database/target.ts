import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { type ConnectionOptions, checkServerIdentity, createSecureContext, type PeerCertificate } from 'node:tls';
import pg from 'pg';

/** A connection string that means nothing; the message is one line for the user and repeats no secret. */
export class TargetError extends Error {}

/** What a connection string means. */
export interface Target {
  /** User, password, host, port, database: what `pg` is to be told, TLS and settings apart. */
  readonly config: pg.ClientConfig;
  /**
   * TLS as the URL asks for it; `prefer` takes it where the server has it. The options are made anew each time they are
   * looked at, from what their files hold then.
   */
  readonly tls: { readonly mode: 'never' | 'prefer' | 'always'; readonly options: ConnectionOptions };
  /** Session settings of the user's own (`?options=-c work_mem=64MB`), in order. */
  readonly settings: readonly (readonly [name: string, value: string])[];
  /** Text for a person: which database this is, without password and other parameters. */
  readonly description: string;
}

/** Parameters of a URL that are read here, not by `pg`. */
const OURS = ['sslmode', 'ssl', 'sslrootcert', 'sslcert', 'sslkey', 'options', 'uselibpqcompat'] as const;

/** Parameters that `pg` would send at the start, which no pooler takes: settings like any other. */
const SETTINGS = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'] as const;

const readable = (parameter: string, path: string): Buffer => {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TargetError(`${parameter} ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`);
  }
};

/** As libpq: an address is looked for among the addresses of the certificate; only one without any name has its CN. */
const verifyHost =
  (host: string) =>
  (_servername: string, certificate: PeerCertificate): Error | undefined => {
    const problem = checkServerIdentity(host, certificate);
    if (problem && isIP(host) !== 0 && !certificate.subjectaltname && certificate.subject?.CN === host)
      return undefined;
    return problem;
  };

/** Files of TLS options, each with the parameter that names it. */
type Files = Readonly<Partial<Record<'ca' | 'cert' | 'key', readonly [parameter: string, path: string]>>>;
type Contents = Readonly<Partial<Record<keyof Files, Buffer>>>;

const contentsOf = (files: Files): Contents =>
  Object.fromEntries(Object.entries(files).map(([option, [parameter, path]]) => [option, readable(parameter, path)]));

/** @throws Error when no connection could be made with them. */
const judge = (contents: Contents): void => {
  createSecureContext(contents);
  // A file without any certificate would be taken in silence.
  if (contents.ca) new X509Certificate(contents.ca);
};

/**
 * What the files hold at each moment it is asked for; those that have become no good leave what was read before.
 *
 * @throws TargetError when one cannot be read at first.
 */
const following = (files: Files, onUnusable: (problem: string) => void): (() => Contents) => {
  let current = contentsOf(files);
  let told: string | undefined;
  return () => {
    try {
      const found = contentsOf(files);
      const isSame = Object.entries(found).every(([option, bytes]) => current[option as keyof Files]!.equals(bytes));
      if (!isSame) judge(found);
      current = found;
      told = undefined;
    } catch (error) {
      const problem = (error as Error).message.split('\n')[0]!;
      if (problem !== told) onUnusable(problem);
      told = problem;
    }
    return current;
  };
};

/** TLS options for a libpq `sslmode`. */
const tlsOf = (
  host: string,
  parameters: ReadonlyMap<string, string>,
  onUnusable: (problem: string) => void,
): Target['tls'] => {
  const inUrl =
    parameters.get('sslmode') ??
    { true: 'verify-full', '1': 'verify-full', 'no-verify': 'require' }[parameters.get('ssl') ?? ''];
  const mode = (inUrl ?? process.env['PGSSLMODE']) || 'prefer';
  // A socket file needs no TLS, and libpq offers none there.
  if (mode === 'disable' || host.startsWith('/')) return { mode: 'never', options: {} };
  const root = parameters.get('sslrootcert');
  const certificate = parameters.get('sslcert');
  const key = parameters.get('sslkey');
  const files: Files = {
    ...(root !== undefined && root !== 'system' ? { ca: ['sslrootcert', root] } : {}),
    ...(certificate === undefined ? {} : { cert: ['sslcert', certificate] }),
    ...(key === undefined ? {} : { key: ['sslkey', key] }),
  };
  const contents = following(files, onUnusable);
  const tls = (taken: 'prefer' | 'always', options: ConnectionOptions): Target['tls'] => ({
    mode: taken,
    get options() {
      return { ...contents(), ...options };
    },
  });
  switch (mode) {
    case 'allow':
    case 'prefer':
      return tls('prefer', { rejectUnauthorized: false });
    case 'no-verify':
      return tls('always', { rejectUnauthorized: false });
    case 'require':
      if (root === undefined) return tls('always', { rejectUnauthorized: false });
      return tls('always', { checkServerIdentity: () => undefined });
    case 'verify-ca':
      if (root === undefined) throw new TargetError('sslmode=verify-ca needs sslrootcert, the file of the authority');
      return tls('always', { checkServerIdentity: () => undefined });
    case 'verify-full':
      return tls('always', { checkServerIdentity: verifyHost(host) });
    default:
      throw new TargetError('sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full');
  }
};

/** `-c name=value` and `--name=value`, blanks escaped by a backslash -> settings. */
const settingsOf = (options: string): [string, string][] => {
  const words = (options.match(/(?:\\.|[^\s\\])+/gs) ?? []).map((word) => word.replace(/\\(.)/gs, '$1'));
  const given = words.flatMap((word, at) => {
    if (word === '-c') return [];
    return words[at - 1] === '-c' ? [word] : [/^(?:-c|--)(.*)$/s.exec(word)?.[1] ?? ''];
  });
  return given.map((text) => {
    const [, name, value] = /^([\w.-]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || value === undefined) {
      throw new TargetError('options must be settings of the form "-c name=value"');
    }
    return [name.replaceAll('-', '_'), value];
  });
};

/** Takes the parameters that are read here out of a URL. */
const split = (url: string): { rest: string; parameters: Map<string, string> } => {
  const [base = '', query = ''] = url.split(/\?(.*)/s);
  const all = new URLSearchParams(query);
  const parameters = new Map<string, string>();
  for (const name of [...OURS, ...SETTINGS]) {
    const value = all.get(name);
    if (value !== null) parameters.set(name, value);
    all.delete(name);
  }
  return { rest: all.size === 0 ? base : `${base}?${all}`, parameters };
};

/**
 * Reads a connection string as libpq would: TLS modes mean what they mean there, and `options` are settings of the
 * session that ours are made after.
 *
 * @param onUnusable told once when files of TLS have become no good; those read before stay in use.
 * @throws TargetError with one line.
 */
export const readTarget = (url: string, onUnusable: (problem: string) => void = () => {}): Target => {
  const { rest, parameters } = split(url);
  const client = (() => {
    try {
      return new pg.Client({ connectionString: rest, ssl: false });
    } catch {
      throw new TargetError('must be a postgresql:// URL; special characters of a password are percent-encoded');
    }
  })();
  const { user, password, host, port, database } = client;
  if (!Number.isInteger(port)) throw new TargetError('must have a number as its port');
  const at = host.startsWith('/') ? host : `${host.includes(':') ? `[${host}]` : host}:${port}`;
  return {
    config: {
      host,
      port,
      ...(user === undefined ? {} : { user }),
      ...(database === undefined ? {} : { database }),
      ...(password === null || password === undefined ? {} : { password }),
      ssl: false,
    },
    tls: tlsOf(host, parameters, onUnusable),
    settings: [
      ...settingsOf(parameters.get('options') ?? process.env['PGOPTIONS'] ?? ''),
      ...SETTINGS.flatMap((name): [string, string][] => (parameters.has(name) ? [[name, parameters.get(name)!]] : [])),
    ],
    description: `postgresql://${user ? `${user}@` : ''}${at}/${database ?? ''}`,
  };
};
