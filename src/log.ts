import { constants, fstatSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DestinationStream, type Logger, pino } from 'pino';
import { VERSION } from './version.ts';

/** What this process is called where its numbers, traces and lines arrive. */
export const SERVICE = process.env['OTEL_SERVICE_NAME'] || 'policy-sidecar';

/** Log levels, from loudest to quietest. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;

/** Characters that may wait for a reader. */
const WAITING_MAX = 1_048_576;
/** How long lines are gathered that then go out in one piece, milliseconds: a call is answered before its line costs anything. */
const GATHER_MS = 10;
/** How long a reader that takes nothing is left alone, at least and at most. */
const RETRY_MS = { least: 1, most: 64 };
const NEWLINE = 0x0a;
const NOTHING = Buffer.alloc(0);

/**
 * Lines to a descriptor whose reader may be slow, stuck or gone: a write never waits and never fails. What does not fit into
 * a bounded buffer is dropped and counted, and a line says how many as soon as lines are taken again.
 */
export class Lines implements DestinationStream {
  readonly #fd: number;
  readonly #loss: (count: number) => string;
  /** What is on its way, and of how many dropped lines it tells. */
  #head: Buffer = NOTHING;
  #tells = 0;
  #queue: string[] = [];
  #waiting = 0;
  #dropped = 0;
  #retryMs = RETRY_MS.least;
  #scheduled: NodeJS.Timeout | undefined;
  /** Told when a reader has gone, and with it what it was to be told. */
  onLost = (): void => {};

  /**
   * @param fd a descriptor that does not block.
   * @param loss the line, with its end, that tells of so many dropped ones.
   */
  constructor(fd: number, loss: (count: number) => string) {
    this.#fd = fd;
    this.#loss = loss;
  }

  /** Takes one line, with its end. */
  write(line: string): void {
    if (this.#dropped > this.#tells || this.#waiting + line.length > WAITING_MAX) this.#dropped += 1;
    else {
      this.#queue.push(line);
      this.#waiting += line.length;
    }
    this.#scheduled ??= setTimeout(() => this.flushSync(), GATHER_MS);
  }

  /** Hands over what the reader takes now. */
  flushSync(): void {
    clearTimeout(this.#scheduled);
    this.#scheduled = undefined;
    try {
      while (this.#next()) {
        this.#head = this.#head.subarray(writeSync(this.#fd, this.#head));
        this.#retryMs = RETRY_MS.least;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') {
        this.#scheduled = setTimeout(() => this.flushSync(), this.#retryMs).unref();
        this.#retryMs = Math.min(2 * this.#retryMs, RETRY_MS.most);
      } else this.#lose();
    }
  }

  /** Waits until everything is handed over, that many milliseconds at most. */
  async settle(ms: number): Promise<void> {
    this.flushSync();
    for (const end = Date.now() + ms; this.#head.length > 0 && Date.now() < end; this.flushSync()) await sleep(5);
  }

  #next(): boolean {
    if (this.#head.length > 0) return true;
    this.#dropped -= this.#tells;
    this.#tells = 0;
    if (this.#queue.length > 0) {
      this.#head = Buffer.from(this.#queue.join(''));
      this.#queue = [];
      this.#waiting = 0;
    } else if (this.#dropped > 0) {
      this.#tells = this.#dropped;
      this.#head = Buffer.from(this.#loss(this.#tells));
    }
    return this.#head.length > 0;
  }

  /** The reader has gone. One of a named pipe may come back, so the next line tries again. */
  #lose(): void {
    if (this.#tells === 0) for (const byte of this.#head) if (byte === NEWLINE) this.#dropped += 1;
    this.#dropped += this.#queue.length;
    this.#tells = 0;
    this.#head = NOTHING;
    this.#queue = [];
    this.#waiting = 0;
    this.onLost();
  }
}

/** A descriptor that does not block, for one of this process. */
const unblocked = (stream: typeof process.stdout | typeof process.stderr, fd: number): number => {
  try {
    // A file never makes a writer wait for a reader, and opened twice it would be overwritten.
    if (fstatSync(fd).isFile()) return fd;
    // Opened anew, since the flag would be shared with every other process that writes there.
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    // A socket cannot be opened anew. Node's own stream makes it non-blocking when it is first touched.
    stream.on('error', () => {});
    return fd;
  }
};

/** The second that the last line was of, and its text. */
let second = Number.NaN;
let secondText = '';

const now = (): string => {
  const ms = Date.now();
  const of = Math.floor(ms / 1_000);
  if (of !== second) {
    second = of;
    secondText = new Date(of * 1_000).toISOString().slice(0, -4);
  }
  return `"time":"${secondText}${String(ms - of * 1_000).padStart(3, '0')}Z"`;
};

/** Standard output, for people. */
export const standardOutput = (): Lines =>
  new Lines(unblocked(process.stdout, 1), (count) => `(${count} line(s) that nobody read were dropped)\n`);

/** Standard error, for the log; there is one for the whole process. */
export const standardError = (): Lines =>
  new Lines(
    unblocked(process.stderr, 2),
    (count) => `{"level":"warn",${now()},"dropped":${count},"msg":"log lines that nobody read were dropped"}\n`,
  );

/** JSON lines, one a call and one for what happens between calls. */
export const createLog = (level: string, to: DestinationStream): Logger =>
  pino(
    {
      level,
      base: { service: SERVICE, version: VERSION },
      formatters: { level: (word) => ({ level: word }) },
      timestamp: () => `,${now()}`,
    },
    to,
  );

export type { Logger };
