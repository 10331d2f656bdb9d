import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EmbeddedError } from './data-folder.ts';

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** When a process began, in the kernel's words: a pid alone may belong to another process by now. */
const birthOf = (pid: number): string => {
  try {
    return readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[19] ?? '';
  } catch {
    return '';
  }
};

/** Takes the data folder for this process; a folder whose owner is alive is refused. */
export const takeOwnership = async (base: string): Promise<() => Promise<void>> => {
  const path = join(base, 'sidecar.pid');
  const draft = `${path}.${process.pid}`;
  const mine = `${process.pid} ${birthOf(process.pid)}`;
  const inUse = (by: string): EmbeddedError => new EmbeddedError(`the data folder ${base} is in use by process ${by}`);
  // Linked into place whole: nobody ever reads a claim that is only half written.
  const claim = async (): Promise<boolean> => {
    await writeFile(draft, mine);
    try {
      await link(draft, path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    } finally {
      await rm(draft, { force: true });
    }
  };
  if (!(await claim())) {
    const text = await readFile(path, 'utf8').catch(() => '');
    const [pid = '', birth = ''] = text.split(' ');
    if (text === mine || (Number(pid) > 0 && isAlive(Number(pid)) && birthOf(Number(pid)) === birth)) throw inUse(pid);
    await rename(path, draft).catch(() => {});
    const removed = await readFile(draft, 'utf8').catch(() => text);
    // Another start was faster, and what went away just now is its fresh claim.
    if (removed !== text) await link(draft, path).catch(() => {});
    if (removed !== text || !(await claim())) {
      await rm(draft, { force: true });
      throw inUse(removed.split(' ')[0] ?? '');
    }
  }
  return () => rm(path, { force: true });
};
