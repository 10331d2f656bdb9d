import { readFileSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EmbeddedError } from './data-folder.ts';

/** What the kernel tells of a process, from its state on; nothing where it tells nothing. */
const factsOf = (pid: number): string[] => {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name before may have any characters.
    return text.slice(text.lastIndexOf(')') + 2).split(' ');
  } catch {
    return [];
  }
};

const ENDED = 'Z';

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  // One that has ended keeps its number until its parent has asked how.
  return factsOf(pid)[0] !== ENDED;
};

/** When a process began, in the kernel's words: a pid alone may belong to another process by now. */
const birthOf = (pid: number): string => factsOf(pid)[19] ?? '';

/** Tells whether the process that has this number now is still there. */
export const watchProcess = (pid: number): (() => boolean) => {
  const birth = birthOf(pid);
  return () => isAlive(pid) && birthOf(pid) === birth;
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
