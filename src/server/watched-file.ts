import { readFileSync } from 'node:fs';
import type { Logger } from 'pino';
import { ConfigError } from '../setting-forms.ts';
import { watchFiles } from './file-watch.ts';

/** What is read from a file whose content may change while this process runs. */
export interface Watched<T> {
  /** As last read from a file that was good. */
  readonly current: T;
  close(): void;
}

/** How a file is read. */
export interface Reading<T> {
  readonly path: string;
  /** What it is called in messages: `tokens file`. */
  readonly name: string;
  /** Throws an Error that says what is wrong, and where. */
  readonly parse: (text: string) => T;
}

/** @throws ConfigError with one line that names the file, and what is wrong in it. */
export const readOnce = <T>({ path, name, parse }: Reading<T>): T => {
  try {
    return parse(readFileSync(path, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // The reader of JSON quotes what it met, with its line ends.
    const problem = code ? `cannot be read (${code})` : `is no good: ${message.replace(/\s+/g, ' ')}`;
    throw new ConfigError(`the ${name} ${path} ${problem}`);
  }
};

/**
 * Reads a file, and reads it again within a second of every change. A bad new file, or none, is told in the log and
 * changes nothing.
 *
 * @param onChange told what was in force before and what is now.
 * @throws ConfigError when it is no good at the start.
 */
export const watched = <T>(
  reading: Reading<T>,
  log: Logger,
  onChange: (before: T, now: T) => void = () => {},
): Watched<T> => {
  const { path, name } = reading;
  let current = readOnce(reading);
  const listener = (): void => {
    const before = current;
    try {
      current = readOnce(reading);
    } catch (error) {
      log.warn({ problem: (error as Error).message }, `${name} not usable, what was read before stays in force`);
      return;
    }
    log.info(`${name} read again`);
    onChange(before, current);
  };
  const close = watchFiles([path], listener);
  return {
    get current() {
      return current;
    },
    close,
  };
};
