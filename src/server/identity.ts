import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { ConfigError } from '../config.ts';
import { type RpcError, refuse } from '../contract/errors.ts';
import type { ClientCertificate } from './certificate.ts';
import { watchFiles } from './watch.ts';

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

const LINE = /^([\w.@/-]{1,128}):\s*([0-9a-f]{64})$/i;

/**
 * Parses lines of `name: sha256-of-token` (hex); blank lines and lines that start with `#` are skipped.
 *
 * @throws Error naming the first bad line.
 */
export const parseTokens = (text: string): { name: string; hash: Buffer }[] =>
  text.split(/\r?\n/).flatMap((line, index) => {
    if (line.trim() === '' || line.startsWith('#')) return [];
    const [, name, hash] = LINE.exec(line.trim()) ?? [];
    if (!name || !hash) throw new Error(`line ${index + 1} is not "name: sha256-of-token"`);
    return [{ name, hash: Buffer.from(hash, 'hex') }];
  });

const unauthenticated = (): RpcError => refuse('UNAUTHENTICATED', 'a valid bearer token is required');

/** @throws ConfigError with one line that names the file. */
const readTokens = (path: string): { name: string; hash: Buffer }[] => {
  try {
    return parseTokens(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new ConfigError(`the tokens file ${path} ${code ? `cannot be read (${code})` : `is no good: ${message}`}`);
  }
};

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
  let tokens = readTokens(path);
  const unwatch = watchFiles([path], () => {
    const before = tokens;
    try {
      tokens = readTokens(path);
    } catch (error) {
      log.warn({ problem: (error as Error).message }, 'tokens file not usable, the tokens read before stay in force');
      return;
    }
    log.info({ tokens: tokens.length }, 'tokens file read again');
    const removed = new Set(before.map(({ name }) => name));
    for (const { name } of tokens) removed.delete(name);
    if (removed.size > 0) onRemoved(removed);
  });
  return {
    caller: (authorization) => {
      const token = /^bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
      if (token === undefined) throw unauthenticated();
      const hash = createHash('sha256').update(token).digest();
      let caller: string | undefined;
      // Every entry is compared, so that the time taken says nothing about which one matched.
      for (const candidate of tokens) if (timingSafeEqual(candidate.hash, hash)) caller = candidate.name;
      if (caller === undefined) throw unauthenticated();
      return caller;
    },
    close: unwatch,
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
