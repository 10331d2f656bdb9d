import { chmod, copyFile, stat, truncate } from 'node:fs/promises';

/** Bytes of a log that are kept at least, and half of what is kept at most. */
export const LOG_BYTES = 16 * 1024 * 1024;

/**
 * Keeps a log within bounds that another process appends to: what has become too long moves aside, to `<path>.1`, and what
 * was there before is gone. A line that is written at that very moment may be in neither.
 */
export const trimLog = async (path: string, most = LOG_BYTES): Promise<void> => {
  const found = await stat(path).catch(() => undefined);
  if (!found || found.size <= most) return;
  const aside = `${path}.1`;
  await copyFile(path, aside);
  await chmod(aside, 0o600);
  await truncate(path);
};
