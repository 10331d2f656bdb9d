import type { Http2Stream, ServerHttp2Session } from 'node:http2';

/** A map of streams by their numbers, in an object: the table of one leads nowhere when another takes its place. */
class OpenStreams extends Map<number, Http2Stream> {
  #streams: Record<number, Http2Stream> = {};
  #size = 0;

  override get size(): number {
    return this.#size;
  }

  override has(id: number): boolean {
    return this.#streams[id] !== undefined;
  }

  override get(id: number): Http2Stream | undefined {
    return this.#streams[id];
  }

  override set(id: number, stream: Http2Stream): this {
    if (!this.has(id)) this.#size += 1;
    this.#streams[id] = stream;
    return this;
  }

  override delete(id: number): boolean {
    if (!this.has(id)) return false;
    this.#size -= 1;
    return delete this.#streams[id];
  }

  override clear(): void {
    this.#size = 0;
    this.#streams = {};
  }

  override forEach(each: (stream: Http2Stream, id: number, map: Map<number, Http2Stream>) => void): void {
    for (const [id, stream] of this) each(stream, id, this);
  }

  override *entries(): MapIterator<[number, Http2Stream]> {
    for (const [id, stream] of Object.entries(this.#streams)) yield [Number(id), stream];
  }

  override *keys(): MapIterator<number> {
    for (const [id] of this) yield id;
  }

  override *values(): MapIterator<Http2Stream> {
    for (const [, stream] of this) yield stream;
  }

  override [Symbol.iterator](): MapIterator<[number, Http2Stream]> {
    return this.entries();
  }
}

/** The streams of a server that have no number yet: each has one before anybody could look. */
class NoStreams extends Set<Http2Stream> {
  override add(): this {
    return this;
  }
}

/** What Node keeps of a session. */
interface Kept {
  streams: Map<number, Http2Stream>;
  pendingStreams: Set<Http2Stream>;
}

/**
 * Has Node keep a session's streams in what lets go of them. The table of a map or a set that is full leads to the one that
 * takes its place, and keeps what it held: one that has grown old holds all that come after it, with all their streams, until
 * the heap is cleared as a whole. A Node that keeps them elsewhere goes on as it does.
 */
export const letStreamsGo = (session: ServerHttp2Session): void => {
  const place = Object.getOwnPropertySymbols(session).find(({ description }) => description === 'state');
  const kept = place && (session as unknown as Record<symbol, Partial<Kept> | undefined>)[place];
  if (kept?.streams?.size !== 0 || kept.pendingStreams?.size !== 0) return;
  kept.streams = new OpenStreams();
  kept.pendingStreams = new NoStreams();
};
