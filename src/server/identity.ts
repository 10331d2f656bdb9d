import { hash, timingSafeEqual } from 'node:crypto';
import type { Logger } from 'pino';
import { type RpcError, refuse } from '../contract/errors.ts';
import type { ClientCertificate } from './certificate.ts';
import { watched } from './watched-file.ts';

/** Tells who calls. */
export interface Identity {
  /**
   * Identity behind an `authorization` header and the certificate of the connection. Every proof that is configured is
   * asked for; of several the token tells the name.
   *
   * @throws UNAUTHENTICATED when tokens are configured and this is none of them, or when the certificate has no name.
   */
  caller(authorization: string | undefined, certificate: ClientCertificate | undefined): string;
  close(): void;
}

/** Identity of every caller where no proof is asked for: whoever reaches the listener is trusted. */
const LOCAL_CALLER = 'local';

/** What a caller may be called in a tokens file: a SPIFFE id, too, so that its token and its certificate are one caller. */
export const CALLER_NAME = /[\w.@/:-]{0,127}[\w.@/-]/;

const LINE = new RegExp(`^(${CALLER_NAME.source}):\\s*([0-9a-f]{64})$`, 'i');

interface Token {
  readonly name: string;
  readonly hash: Buffer;
}

/**
 * Parses lines of `name: sha256-of-token` (hex), of which the last colon ends the name; blank lines and lines that start with
 * `#` are skipped. A name may have several tokens, so that one can take over from another; a token has one name.
 *
 * @throws Error naming the first bad line, never what it holds: it may be a token.
 */
export const parseTokens = (text: string): Token[] => {
  const lineOf = new Map<string, number>();
  return text.split(/\r?\n/).flatMap((raw, index) => {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) return [];
    const [, name, hex] = LINE.exec(line) ?? [];
    if (!name || !hex) throw new Error(`line ${index + 1} is not "name: sha256-of-token" (64 hexadecimal digits)`);
    const hash = Buffer.from(hex, 'hex');
    const earlier = lineOf.get(hash.toString('hex'));
    if (earlier !== undefined) throw new Error(`line ${index + 1} has the token of line ${earlier}`);
    lineOf.set(hash.toString('hex'), index + 1);
    return [{ name, hash }];
  });
};

const unauthenticated = (): RpcError => refuse('UNAUTHENTICATED', 'a valid bearer token is required');

/**
 * Callers are the names in a tokens file, which is read again when it changes; a bad new file, or none, changes nothing.
 *
 * @param onRemoved told the names that a new file no longer has.
 * @throws ConfigError naming the file, and the line that is wrong.
 */
export const tokenIdentity = (
  path: string,
  log: Logger,
  onRemoved: (callers: ReadonlySet<string>) => void = () => {},
): Identity => {
  const tokens = watched({ path, name: 'tokens file', parse: parseTokens }, log, (before, now) => {
    const removed = new Set(before.map(({ name }) => name));
    for (const { name } of now) removed.delete(name);
    if (removed.size > 0) onRemoved(removed);
  });
  return {
    caller: (authorization) => {
      const token = /^bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
      if (token === undefined) throw unauthenticated();
      const given = hash('sha256', token, 'buffer');
      let caller: string | undefined;
      // Every entry is compared, so that the time taken says nothing about which one matched.
      for (const candidate of tokens.current) if (timingSafeEqual(candidate.hash, given)) caller = candidate.name;
      if (caller === undefined) throw unauthenticated();
      return caller;
    },
    close: () => tokens.close(),
  };
};

/** Callers are the names of their certificates; where none is asked for, everybody who reaches the listener is the same. */
export const listenerIdentity: Identity = {
  caller: (_authorization, certificate) => {
    if (!certificate) return LOCAL_CALLER;
    if (certificate.name !== undefined) return certificate.name;
    throw refuse(
      'UNAUTHENTICATED',
      'the client certificate names nobody: it needs a URI, a DNS name or an e-mail address as alternative name',
    );
  },
  close: () => {},
};
