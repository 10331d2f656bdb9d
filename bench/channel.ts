/**
 * A gRPC client that costs next to nothing, so that the cores the bench shares with the server are the server's: one
 * HTTP/2 connection on a bare socket, headers encoded once, answers counted and not read unless asked for.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { HeaderTable } from './headers.ts';

/** What came back of a call. */
export interface Answer {
  /** Bytes of messages, without their gRPC prefixes where there was one message. */
  readonly bytes: number;
  /** The message of a unary call that asked for it. */
  readonly message: Buffer | undefined;
}

/** A call to be made many times. */
export interface Call {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The request: a gRPC message with its prefix. */
  readonly frame: Buffer;
}

interface Stream {
  readonly done: (error: Error | undefined, answer: Answer) => void;
  readonly onData: ((payload: Buffer) => void) | undefined;
  readonly kept: Buffer[] | undefined;
  readonly rest: Buffer;
  sent: number;
  window: number;
  bytes: number;
  consumed: number;
}

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
const MAX_WINDOW = 2 ** 31 - 1;
const FRAME_BYTES = 16_384;
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const PADDED = 8;
const HEAD_BYTES = 9;
/** What is read at once, at most. */
const READ_BYTES = 256 * 1_024;

const head = (length: number, type: number, flags: number, stream: number): Buffer => {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES);
  bytes.writeUIntBE(length, 0, 3);
  bytes[3] = type;
  bytes[4] = flags;
  bytes.writeUInt32BE(stream, 5);
  return bytes;
};

const windowUpdate = (stream: number, by: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(by);
  return Buffer.concat([head(4, WINDOW_UPDATE, 0, stream), bytes]);
};

/** A gRPC message with its prefix. */
export const framed = (message: Uint8Array): Buffer => {
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
};

export class Channel {
  readonly #socket: Socket;
  readonly #authority: string;
  readonly #window: number;
  readonly #table = new HeaderTable();
  readonly #blocks = new WeakMap<Call, { version: number; block: Buffer }>();
  readonly #streams = new Map<number, Stream>();
  readonly #blocked = new Set<number>();
  #next = 1;
  #rest: Buffer | undefined;
  /** Of the frame of data that has begun: whose, whether it is the last of its stream, and how much is to come. */
  #body: { readonly id: number; readonly isLast: boolean; left: number } | undefined;
  #out: Buffer[] = [];
  #reading = false;
  #sendWindow = 65_535;
  #streamWindow = 65_535;
  #consumed = 0;
  #closed: Error | undefined;

  private constructor(socket: Socket, authority: string, window: number) {
    this.#socket = socket;
    this.#authority = authority;
    this.#window = window;
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(2, 0); // No pushes.
    settings.writeUInt16BE(4, 6);
    settings.writeUInt32BE(window, 8);
    this.#send(PREFACE, head(12, SETTINGS, 0, 0), settings);
    if (window > 65_535) this.#send(windowUpdate(0, window - 65_535));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the server closed the connection')));
  }

  /** Connects to `host:port`; `window` is what a stream, and all together, may send before they are read, in bytes. */
  static async open(address: string, window = MAX_WINDOW): Promise<Channel> {
    const [, host, port] = /^(.*):(\d+)$/.exec(address)!;
    // One buffer for all that is read: a new one each time would cost the bench more than what is in it.
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
    let channel: Channel | undefined;
    const callback = (length: number): boolean => {
      if (channel) channel.#read(buffer.subarray(0, length));
      return true;
    };
    const socket = connect({ host: host!, port: Number(port), noDelay: true, onread: { buffer, callback } });
    await once(socket, 'connect');
    channel = new Channel(socket, address, window);
    return channel;
  }

  close(): void {
    this.#closed = new Error('closed');
    this.#socket.destroy();
  }

  /** Starts a call. `done` has the count of bytes, and the message if `keep`; `onData` is lent every piece of the body. */
  start(call: Call, done: Stream['done'], keep = false, onData?: (payload: Buffer) => void): void {
    if (this.#closed) {
      done(this.#closed, { bytes: 0, message: undefined });
      return;
    }
    const id = this.#next;
    this.#next += 2;
    const stream: Stream = {
      done,
      onData,
      kept: keep ? [] : undefined,
      rest: call.frame,
      sent: 0,
      window: this.#streamWindow,
      bytes: 0,
      consumed: 0,
    };
    this.#streams.set(id, stream);
    const block = this.#block(call);
    this.#send(head(block.length, HEADERS, END_HEADERS, id), block);
    this.#pump(id, stream);
  }

  /** The message a unary call is answered with; an error when there is none. */
  unary(call: Call): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.start(call, (error, { message }) => (error ? reject(error) : resolve(message!)), true);
    });
  }

  #block(call: Call): Buffer {
    const cached = this.#blocks.get(call);
    if (cached?.version === this.#table.version) return cached.block;
    const headers = {
      ':method': 'POST',
      ':scheme': 'http',
      ':path': call.path,
      ':authority': this.#authority,
      te: 'trailers',
      'content-type': 'application/grpc',
      'user-agent': 'bench',
      ...call.headers,
    };
    const before = this.#table.version;
    const block = this.#table.block(headers);
    if (this.#table.version === before) this.#blocks.set(call, { version: before, block });
    return block;
  }

  #pump(id: number, stream: Stream): void {
    while (stream.sent < stream.rest.length) {
      const size = Math.min(FRAME_BYTES, stream.rest.length - stream.sent, stream.window, this.#sendWindow);
      if (size <= 0) {
        this.#blocked.add(id);
        return;
      }
      const last = stream.sent + size === stream.rest.length;
      this.#send(head(size, DATA, last ? END_STREAM : 0, id), stream.rest.subarray(stream.sent, stream.sent + size));
      stream.sent += size;
      stream.window -= size;
      this.#sendWindow -= size;
    }
    this.#blocked.delete(id);
  }

  #send(...parts: Buffer[]): void {
    if (this.#out.length === 0 && !this.#reading) queueMicrotask(() => this.#flush());
    this.#out.push(...parts);
  }

  #flush(): void {
    if (this.#out.length === 0 || this.#socket.destroyed) return;
    this.#socket.write(this.#out.length === 1 ? this.#out[0]! : Buffer.concat(this.#out));
    this.#out = [];
  }

  #read(chunk: Buffer): void {
    const bytes = this.#rest ? Buffer.concat([this.#rest, chunk]) : chunk;
    this.#reading = true;
    const rest = bytes.subarray(this.#frames(bytes));
    this.#reading = false;
    // What was read is only lent; of a frame that has not come as a whole there is little.
    this.#rest = rest.length > 0 ? Buffer.from(rest) : undefined;
    this.#flush();
  }

  /** Takes the frames that are there, and returns where they end. */
  #frames(bytes: Buffer): number {
    for (let at = 0; ; ) {
      if (this.#body) {
        const here = Math.min(this.#body.left, bytes.length - at);
        this.#data(this.#body.id, bytes, at, here);
        at += here;
        this.#body.left -= here;
        if (this.#body.left > 0) return at;
        const { id, isLast } = this.#body;
        this.#body = undefined;
        if (isLast) this.#end(id);
      }
      if (bytes.length - at < HEAD_BYTES) return at;
      const length = bytes.readUIntBE(at, 3);
      const flags = bytes[at + 4]!;
      if (bytes[at + 3] === DATA) {
        if (flags & PADDED) this.#fail(new Error('a padded frame, which no server here sends'));
        const id = bytes.readUInt32BE(at + 5) & MAX_WINDOW;
        this.#body = { id, isLast: (flags & END_STREAM) !== 0, left: length };
        at += HEAD_BYTES;
      } else {
        if (bytes.length - at - HEAD_BYTES < length) return at;
        this.#frame(bytes, at, length);
        at += HEAD_BYTES + length;
      }
    }
  }

  #frame(bytes: Buffer, at: number, length: number): void {
    const type = bytes[at + 3]!;
    const flags = bytes[at + 4]!;
    const id = bytes.readUInt32BE(at + 5) & MAX_WINDOW;
    const payload = at + HEAD_BYTES;
    if (type === HEADERS) {
      if (flags & END_STREAM) this.#end(id);
    } else if (type === RST_STREAM) {
      this.#finish(id, new Error(`the stream was reset: ${bytes.readUInt32BE(payload)}`));
    } else if (type === SETTINGS && !(flags & ACK)) {
      this.#settings(bytes.subarray(payload, payload + length));
    } else if (type === PING && !(flags & ACK)) {
      this.#send(head(8, PING, ACK, 0), Buffer.from(bytes.subarray(payload, payload + 8)));
    } else if (type === WINDOW_UPDATE) {
      const by = bytes.readUInt32BE(payload);
      const stream = this.#streams.get(id);
      if (id === 0) this.#sendWindow += by;
      else if (stream) stream.window += by;
      this.#unblock();
    } else if (type === GOAWAY) {
      this.#fail(new Error('the server goes away'));
    }
  }

  #settings(settings: Buffer): void {
    for (let at = 0; at < settings.length; at += 6) {
      const value = settings.readUInt32BE(at + 2);
      if (settings.readUInt16BE(at) === 1 && value < 4_096) this.#fail(new Error('the server has no header table'));
      if (settings.readUInt16BE(at) !== 4) continue;
      for (const stream of this.#streams.values()) stream.window += value - this.#streamWindow;
      this.#streamWindow = value;
    }
    this.#send(head(0, SETTINGS, ACK, 0));
    this.#unblock();
  }

  #unblock(): void {
    for (const id of this.#blocked) {
      const stream = this.#streams.get(id);
      if (stream) this.#pump(id, stream);
      else this.#blocked.delete(id);
    }
  }

  #data(id: number, bytes: Buffer, from: number, length: number): void {
    this.#consumed += length;
    if (this.#consumed > this.#window / 2) {
      this.#send(windowUpdate(0, this.#consumed));
      this.#consumed = 0;
    }
    const stream = this.#streams.get(id);
    if (!stream) return;
    stream.bytes += length;
    stream.kept?.push(Buffer.from(bytes.subarray(from, from + length)));
    stream.onData?.(bytes.subarray(from, from + length));
    stream.consumed += length;
    if (stream.consumed > this.#window / 2) {
      this.#send(windowUpdate(id, stream.consumed));
      stream.consumed = 0;
    }
  }

  /** A refused call has headers only; an answer has a message, of no bytes at the least, with its prefix. */
  #end(id: number): void {
    const refused = this.#streams.get(id)?.bytes === 0;
    this.#finish(id, refused ? new Error('the call was refused') : undefined);
  }

  #finish(id: number, error?: Error): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    this.#streams.delete(id);
    const whole = stream.kept && Buffer.concat(stream.kept);
    stream.done(error, { bytes: stream.bytes, message: whole?.subarray(5) });
  }

  #fail(error: Error): void {
    this.#closed ??= error;
    for (const id of [...this.#streams.keys()]) this.#finish(id, this.#closed);
    this.#socket.destroy();
  }
}
