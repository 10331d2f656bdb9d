import type { Http2Session } from 'node:http2';
import { certificateOf } from './certificate.ts';
import type { Arrival } from './inbound.ts';

type OtherSide = Pick<Arrival, 'peer' | 'certificate'>;

const otherSides = new WeakMap<Http2Session, OtherSide>();

/** Who is at the other end of a connection; asked once. */
export const otherSide = (session: Http2Session | undefined): OtherSide => {
  const known = session && otherSides.get(session);
  if (known) return known;
  const socket = session?.socket;
  const peer = socket?.remoteAddress ? `${socket.remoteAddress}:${socket.remotePort}` : 'unknown';
  const found = { peer, certificate: certificateOf(socket) };
  if (session) otherSides.set(session, found);
  return found;
};
