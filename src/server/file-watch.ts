import { createHash } from 'node:crypto';
import { type FSWatcher, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Longest time until a change is noticed that the system has not told, milliseconds. */
const POLL_MS = 1_000;
/** Files that belong together are replaced one after the other: the first piece of news waits for the others, milliseconds. */
const SETTLE_MS = 50;

/** What the files hold; a file that cannot be read is its error. */
const stateOf = async (paths: readonly string[]): Promise<string> => {
  const digest = async (path: string): Promise<string> =>
    readFile(path).then(
      (bytes) => createHash('sha256').update(bytes).digest('base64'),
      (error: NodeJS.ErrnoException) => String(error.code),
    );
  return (await Promise.all(paths.map(digest))).join();
};

/**
 * Tells when files hold something else than before, however they were replaced: written, renamed, or, as Kubernetes does
 * with a mounted secret, through another target of a link to their folder.
 *
 * @returns what ends it.
 */
export const watchFiles = (paths: readonly string[], onChange: () => void): (() => void) => {
  let state: string | undefined;
  let looking = false;
  let closed = false;
  const look = async (): Promise<void> => {
    if (looking) return;
    looking = true;
    const found = await stateOf(paths);
    looking = false;
    const changed = state !== undefined && found !== state;
    state = found;
    if (changed && !closed) onChange();
  };
  void look();
  const poll = setInterval(look, POLL_MS).unref();
  let settling: NodeJS.Timeout | undefined;
  const watchers = [...new Set(paths.map((path) => dirname(path)))].flatMap((folder): FSWatcher[] => {
    try {
      const watcher = watch(folder, { persistent: false }, () => {
        clearTimeout(settling);
        settling = setTimeout(look, SETTLE_MS).unref();
      });
      // A folder that is gone, or a system that is out of watches: what is left is to look now and then.
      watcher.on('error', () => watcher.close());
      return [watcher];
    } catch {
      return [];
    }
  });
  return () => {
    closed = true;
    clearInterval(poll);
    clearTimeout(settling);
    for (const watcher of watchers) watcher.close();
  };
};
