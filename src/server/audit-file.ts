import { access, constants, open } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { ConfigError } from '../setting-forms.ts';
import { lookWritable } from '../writable-file.ts';

/** Characters that may wait for a file that takes none. */
const WAITING_MAX = 4_194_304;
const RETRY_MS = 1_000;
const NEWLINE = 0x0a;
/** Who may read who wrote what. */
const MODE = 0o600;

const writable = async (path: string, attempt: () => Promise<void>): Promise<void> => {
  try {
    await attempt();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(`the audit file ${path} cannot be written (${code})`, { cause: error });
  }
};

/** Appends bytes to a file; tells of each piece how many there are in it by then. */
const append = async (path: string, bytes: Buffer, tell: (written: number) => void): Promise<void> => {
  const file = await open(path, 'a', MODE);
  try {
    for (let written = 0; written < bytes.length; tell(written)) {
      written += (await file.write(bytes, written)).bytesWritten;
    }
  } finally {
    await file.close();
  }
};

/**
 * Lines appended to a file, in order, by its name each time: one that was moved away is made anew. While it cannot be
 * written up to 4 MiB wait; what does not fit is dropped, and a line of the file says later how many were.
 */
export class AuditFile {
  readonly #path: string;
  readonly #log: Logger;
  #queue: string[] = [];
  /** Lines that have not been written, and their characters. */
  #lines = 0;
  #waiting = 0;
  #dropped = 0;
  #failing = false;
  /** A write that failed may have left half a line. */
  #torn = false;
  #writing: Promise<void> | undefined;
  readonly #closing = new AbortController();

  private constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** @throws ConfigError when the file cannot be written now. */
  static async open(path: string, log: Logger): Promise<AuditFile> {
    await writable(path, async () => {
      await (await open(path, 'a', MODE)).close();
      await access(path, constants.W_OK);
    });
    return new AuditFile(path, log);
  }

  /**
   * Looks whether {@link open} would have the file, without making one.
   *
   * @throws ConfigError when it would not.
   */
  static async look(path: string): Promise<void> {
    await writable(path, () => lookWritable(path));
  }

  /** Takes a line without its end; never waits and never fails. */
  write(line: string): void {
    if (this.#waiting + line.length > WAITING_MAX) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(`${line}\n`);
    this.#lines += 1;
    this.#waiting += line.length;
    this.#writing ??= this.#drain();
  }

  /** Tries once more what waits, and waits for that so many milliseconds at most; the log says what is lost. */
  async close(timeoutMs: number): Promise<void> {
    const done = this.#writing;
    this.#closing.abort();
    if (done) await Promise.race([done, sleep(timeoutMs)]);
    const lost = this.#lines + this.#dropped;
    if (lost > 0) this.#log.error({ lost }, 'the audit file could not be written, lines are lost');
  }

  /** These lines wait no more. */
  #forget(lines: readonly string[]): void {
    this.#lines -= lines.length;
    this.#waiting -= lines.reduce((sum, line) => sum + line.length - 1, 0);
  }

  async #drain(): Promise<void> {
    // Lines of one turn go together.
    await sleep(0);
    while (this.#queue.length > 0 || this.#dropped > 0) {
      const lines = this.#queue;
      const dropped = this.#dropped;
      this.#queue = [];
      this.#dropped = 0;
      const start = this.#torn ? '\n' : '';
      const end = dropped === 0 ? '' : `${JSON.stringify({ time: new Date(), audit: 'dropped', lines: dropped })}\n`;
      const bytes = Buffer.from(start + lines.join('') + end);
      let written = 0;
      try {
        await append(this.#path, bytes, (sofar) => {
          written = sofar;
        });
        this.#forget(lines);
        if (this.#failing) this.#log.warn({ dropped }, 'the audit file is written again');
        this.#failing = false;
        this.#torn = false;
      } catch (error) {
        const { code, message, syscall } = error as NodeJS.ErrnoException;
        if (syscall === 'write' && written > 0) {
          // What is there already must not be there twice.
          const ends = bytes.subarray(0, written).filter((byte) => byte === NEWLINE).length;
          this.#forget(lines.splice(0, ends - start.length));
          this.#torn = bytes[written - 1] !== NEWLINE;
        }
        this.#queue = [...lines, ...this.#queue];
        this.#dropped += dropped;
        if (!this.#failing) {
          this.#log.error({ problem: code ?? message }, 'the audit file cannot be written, lines wait');
        }
        this.#failing = true;
        const { signal } = this.#closing;
        if (signal.aborted) break;
        await sleep(RETRY_MS, undefined, { ref: false, signal }).catch(() => {});
      }
    }
    this.#writing = undefined;
  }
}
