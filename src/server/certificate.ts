import type { X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/** A certificate by which the other end of a connection has shown who it is. */
export interface ClientCertificate {
  /** The first URI among its alternative names, else the first DNS name, else the first e-mail address. */
  readonly name: string | undefined;
}

const KINDS = ['URI', 'DNS', 'email'] as const;

/** As Node writes alternative names: a value that could be taken for several is quoted as in JSON. */
const ENTRY = /(?:^|, )([^:,"]+):("(?:[^"\\]|\\.)*"|[^,]*)/g;

/** A name goes into answers and log lines: visible ASCII, as long as the longest SPIFFE id. */
const USABLE = /^[!-~]{1,2048}$/;

/** Name of who holds a certificate; undefined where no alternative name says it. */
export const nameOf = ({ subjectAltName = '' }: Pick<X509Certificate, 'subjectAltName'>): string | undefined => {
  const names = [...subjectAltName.matchAll(ENTRY)].map(([, kind, value = '']) => ({ kind, value }));
  for (const wanted of KINDS) {
    // What is quoted holds a character that is in no name.
    const found = names.find(({ kind, value }) => kind === wanted && !value.startsWith('"') && USABLE.test(value));
    if (found) return found.value;
  }
  return undefined;
};

const NOTED = Symbol('client certificate');

/** Reads the certificate of a new connection, once for all of its calls. */
export const noteCertificate = (channel: TLSSocket): void => {
  const certificate = channel.getPeerX509Certificate();
  if (certificate) Object.assign(channel, { [NOTED]: { name: nameOf(certificate) } });
};

/** Certificate of the other end; undefined where none is asked for. The socket may be what HTTP/2 shows of it. */
export const certificateOf = (socket: Socket | undefined): ClientCertificate | undefined =>
  (socket as { [NOTED]?: ClientCertificate } | undefined)?.[NOTED];
