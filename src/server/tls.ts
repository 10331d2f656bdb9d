import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { createSecureContext, createServer, type SecureContextOptions, type Server } from 'node:tls';
import type { Logger } from 'pino';
import { ConfigError } from '../setting-forms.ts';
import { noteCertificate } from './certificate.ts';
import type { ConnectionLimits } from './connections.ts';
import { watchFiles } from './file-watch.ts';

/** Files of a listener that speaks TLS, all in PEM. */
export interface TlsFiles {
  /** The certificate, followed by those between it and its authority. */
  readonly cert: string;
  readonly key: string;
  /** Authorities of callers; undefined: callers need no certificate. */
  readonly clientCa: string | undefined;
}

/** Makes a new connection a secure one, and hands that on; one with which that fails is closed. */
export type Secure = (socket: Socket, onSecure: (channel: Socket) => void) => void;

interface Loaded {
  readonly options: SecureContextOptions;
  /** When the certificate ends, for the log. */
  readonly validTo: string;
}

const bytesOf = (path: string): Buffer => {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new ConfigError(`the TLS file ${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
};

const judged = <T>(path: string, judge: () => T): T => {
  try {
    return judge();
  } catch (error) {
    throw new ConfigError(`the TLS file ${path} is no good: ${(error as Error).message.split('\n')[0]}`);
  }
};

/** @throws ConfigError with one line that names the file. */
const load = ({ cert, key, clientCa }: TlsFiles): Loaded => {
  const options: SecureContextOptions = { cert: bytesOf(cert), key: bytesOf(key), minVersion: 'TLSv1.2' };
  const { validTo } = judged(cert, () => new X509Certificate(options.cert as Buffer));
  judged(key, () => createSecureContext(options));
  if (clientCa === undefined) return { options, validTo };
  const ca = bytesOf(clientCa);
  // A file without any certificate would be taken in silence.
  judged(clientCa, () => new X509Certificate(ca));
  return { options: { ...options, ca }, validTo };
};

/** The same for both ends' views of a connection, and of no other that is open. */
const pairOf = ({ remoteAddress, remotePort, localAddress, localPort }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;

/**
 * The certificates that listeners speak TLS with. They are read again when they change; connections that are open keep
 * theirs. New files that are no good change nothing but the log.
 */
export class Certificates {
  readonly #files: TlsFiles;
  readonly #log: Logger;
  readonly #servers: Server[] = [];
  readonly #unwatch: () => void;
  #loaded: Loaded;

  /** @throws ConfigError with one line that names the file. */
  constructor(files: TlsFiles, log: Logger) {
    this.#files = files;
    this.#log = log;
    this.#loaded = load(files);
    const { cert, key, clientCa } = files;
    this.#unwatch = watchFiles([cert, key, ...(clientCa === undefined ? [] : [clientCa])], () => this.#reload());
  }

  #reload(): void {
    try {
      this.#loaded = load(this.#files);
    } catch (error) {
      const { message } = error as Error;
      this.#log.warn({ problem: message }, 'TLS files not usable, the certificates read before stay in use');
      return;
    }
    for (const server of this.#servers) server.setSecureContext(this.#loaded.options);
    this.#log.info({ validTo: this.#loaded.validTo }, 'TLS files read again');
  }

  /**
   * @param protocols of ALPN, the one liked best first.
   * @param handshakeMs how long a handshake may take, milliseconds.
   */
  secure(protocols: readonly string[], handshakeMs: number): Secure {
    const demanded = this.#files.clientCa !== undefined;
    const server = createServer({
      ...this.#loaded.options,
      ALPNProtocols: [...protocols],
      requestCert: demanded,
      rejectUnauthorized: demanded,
      handshakeTimeout: handshakeMs,
    });
    this.#servers.push(server);
    const expected = new Map<string, (channel: Socket) => void>();
    server.on('secureConnection', (channel) => {
      channel.on('error', () => channel.destroy());
      const onSecure = expected.get(pairOf(channel));
      if (!onSecure) {
        channel.destroy();
        return;
      }
      noteCertificate(channel);
      onSecure(channel);
    });
    server.on('tlsClientError', ({ message, code }: NodeJS.ErrnoException, channel) => {
      // Probes that only connect, and callers that leave, are no news.
      const level = code === 'ECONNRESET' ? 'debug' : 'info';
      this.#log[level]({ peer: channel.remoteAddress, problem: code ?? message }, 'TLS handshake failed');
      channel.destroy();
    });
    return (socket, onSecure) => {
      const pair = pairOf(socket);
      expected.set(pair, onSecure);
      socket.once('close', () => expected.delete(pair));
      server.emit('connection', socket);
    };
  }

  close(): void {
    this.#unwatch();
  }
}

/** What a listener does with new connections. Socket files are guarded by their mode, and speak no TLS. */
export const securing = (
  certificates: Certificates | undefined,
  listen: string,
  protocols: readonly string[],
  { handshakeMs }: ConnectionLimits,
): Secure =>
  certificates && !listen.startsWith('unix:')
    ? certificates.secure(protocols, handshakeMs)
    : (socket, onSecure) => onSecure(socket);
