import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Metadata } from '@grpc/grpc-js';
import { certificateOf } from './certificate.ts';
import type { Admitted, Arrival } from './pipeline.ts';

/** A call that was let in, and the stream that it came by. */
export interface Arrived {
  readonly admitted: Admitted;
  readonly stream: ServerHttp2Stream;
}

/** Calls that were let in and whose body is on its way. */
export class Arrivals {
  /** Replaces whatever a caller may have sent under this name. */
  static readonly HEADER = 'sidecar-call';
  readonly #calls = new Map<string, Arrived>();
  #last = 0;

  /**
   * Leads from the headers that the library hands to a handler back to the call.
   *
   * @returns what ends that: the call has been answered, and its handler is to do nothing; or its stream has closed.
   */
  add(admitted: Admitted, headers: IncomingHttpHeaders, stream: ServerHttp2Stream): () => void {
    this.#last += 1;
    const id = String(this.#last);
    headers[Arrivals.HEADER] = id;
    this.#calls.set(id, { admitted, stream });
    return () => void this.#calls.delete(id);
  }

  /** The call of a handler; undefined when its stream has closed meanwhile. */
  of(call: { readonly metadata: Metadata }): Arrived | undefined {
    return this.#calls.get(String(call.metadata.get(Arrivals.HEADER)[0]));
  }
}

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
