import { EventEmitter } from 'node:events';
import { createServer, type Http2Server, type Http2Stream, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { letStreamsGo } from './open-streams.ts';

/** What the connections of a listener may take and how long they may be silent. Times are milliseconds. */
export interface ConnectionLimits {
  /** Until a new connection has said in which protocol it speaks. */
  readonly handshakeMs: number;
  /** From the first byte of a request to its last. */
  readonly requestMs: number;
  /** Without a call, until the connection is closed. */
  readonly idleMs: number;
  /** Until a connection takes no new calls, give or take a tenth. */
  readonly ageMs: number;
  /** Between two questions whether the other side is there. */
  readonly pingMs: number;
  /** Until such a question must be answered. */
  readonly pingTimeoutMs: number;
  /** How often requests that are late are looked for. */
  readonly checkMs: number;
}

/** A caller whose machine vanishes is noticed within 30 s. */
export const CONNECTION_LIMITS: ConnectionLimits = {
  handshakeMs: 10_000,
  requestMs: 60_000,
  idleMs: 300_000,
  ageMs: Number.POSITIVE_INFINITY,
  pingMs: 20_000,
  pingTimeoutMs: 10_000,
  checkMs: 5_000,
};

/** Calls beyond its limit in one go after which the connection is closed: a client that has read the limit sends none. */
const REJECTED_STREAMS = 10_000;

/** Header bytes and fields that are taken in, so that a call with too many can be told; HTTP/1.1 says 431 beyond. */
export const HEADER_BYTES_READ = 65_536;
const HEADER_FIELDS_READ = 512;

/**
 * Resets that one connection may send: at once, and every second for ever. A hundred calls at a time that all end by
 * deadlines of 100 ms send as many, and a slow query must last long before five times that number do; an attack is
 * slower than this only where it costs no more than ordinary calls do.
 */
const RESET_BURST = 20_000;
const RESETS_A_SECOND = 1_000;

/** A tenth more or less, so that connections that began together do not end together. */
export const aboutMs = (ms: number): number => ms * (0.9 + 0.2 * Math.random());

const ignore = (): void => {};

/** As emitters have it: a stream's own looks afterwards whether it is still to be read. */
const { removeAllListeners } = EventEmitter.prototype;

/**
 * Lets go of what a stream that has closed leads to. Node keeps each in memory until the heap is cleared as a whole, and
 * what it led to grew old with it: a call left three times as much behind as it does now.
 */
const forget = (stream: Http2Stream): void => {
  // Node listens to its streams' listeners, and told of each that goes it would cost more than all the rest of this.
  removeAllListeners.call(stream, 'removeListener');
  removeAllListeners.call(stream);
  stream.on('error', ignore);
};

/** Closes a session that does not begin, does not answer, is not used, or is old. */
const attend = (session: ServerHttp2Session, limits: ConnectionLimits): void => {
  const drop = (): void => session.destroy();
  const handshake = setTimeout(drop, limits.handshakeMs);
  session.once('remoteSettings', () => clearTimeout(handshake));

  let answered: NodeJS.Timeout | undefined;
  const ping = setInterval(() => {
    if (session.destroyed || answered) return;
    answered = setTimeout(drop, limits.pingTimeoutMs);
    const sent = session.ping((error) => {
      clearTimeout(answered);
      answered = undefined;
      if (error) drop();
    });
    if (!sent) drop();
  }, limits.pingMs);

  let streams = 0;
  const idle = setTimeout(() => {
    if (streams === 0) session.close();
  }, limits.idleMs);
  const old = Number.isFinite(limits.ageMs) ? setTimeout(() => session.close(), aboutMs(limits.ageMs)) : undefined;
  session.on('stream', (stream) => {
    streams += 1;
    stream.once('close', () => {
      streams -= 1;
      idle.refresh();
      forget(stream);
    });
  });

  session.once('close', () => {
    for (const timer of [handshake, ping, answered, idle, old]) clearTimeout(timer);
  });
};

/** The connections of one listener: all are known, so that all can be ended. */
export class Connections {
  /** Takes sockets that speak HTTP/2, by `connection` events. */
  readonly http2: Http2Server;
  readonly #sockets = new Set<Socket>();
  readonly #sessions = new Set<ServerHttp2Session>();
  /** Sockets that have not said anything yet. */
  readonly #silent = new Map<Socket, NodeJS.Timeout>();
  readonly #limits: ConnectionLimits;

  /**
   * @param streams calls under way on one connection; a client keeps back what goes beyond. Node counts a call that was
   *   reset until its next turn: this must be twice what a caller may end and begin anew at one moment.
   */
  constructor(limits: ConnectionLimits, streams: number) {
    this.#limits = limits;
    this.http2 = createServer({
      settings: { maxConcurrentStreams: streams, maxHeaderListSize: HEADER_BYTES_READ },
      maxHeaderListPairs: HEADER_FIELDS_READ,
      streamResetBurst: RESET_BURST,
      streamResetRate: RESETS_A_SECOND,
      maxSessionRejectedStreams: REJECTED_STREAMS,
      // Streams and their windows bound what a session holds; where Node enforces a number it stalls instead.
      maxSessionMemory: Number.MAX_SAFE_INTEGER,
      maxSendHeaderBlockLength: Number.MAX_SAFE_INTEGER,
      // A padded value would be dropped before anybody can refuse it.
      strictFieldWhitespaceValidation: false,
    });
    this.http2.on('session', (session) => {
      letStreamsGo(session);
      this.#sessions.add(session);
      session.once('close', () => this.#sessions.delete(session));
      attend(session, limits);
    });
  }

  /** Owns a new socket from now on; it must be handed over in time. */
  add(socket: Socket): void {
    this.#sockets.add(socket);
    const late = setTimeout(() => socket.destroy(), this.#limits.handshakeMs);
    this.#silent.set(socket, late);
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.handOver(socket);
    });
  }

  /** It has said in which protocol it speaks: whoever serves that watches it now. */
  handOver(socket: Socket): void {
    clearTimeout(this.#silent.get(socket));
    this.#silent.delete(socket);
  }

  /** Connections that are open. */
  get open(): number {
    return this.#sockets.size;
  }

  /** Lets calls under way end for at most that long, milliseconds, and then cuts them off. */
  async close(timeoutMs: number, closed: Promise<void>): Promise<void> {
    for (const socket of this.#silent.keys()) socket.destroy();
    for (const session of this.#sessions) session.close();
    const force = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, timeoutMs);
    await closed;
    clearTimeout(force);
  }
}
