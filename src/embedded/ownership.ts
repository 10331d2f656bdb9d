import { createHash } from 'node:crypto';
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

/** What a claim says, or nothing where it is gone. */
const read = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });

/** Whether who made a claim is still there. */
const isHeld = (text: string): boolean => {
  const [pid = '', birth = ''] = text.split(' ');
  return Number(pid) > 0 && isAlive(Number(pid)) && birthOf(Number(pid)) === birth;
};

/** Where the heir of a dead owner's claim puts his own. */
const heirOf = (path: string, text: string): string =>
  `${path}.${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;

/** Takes the data folder for this process; a folder whose owner is alive is refused. */
export const takeOwnership = async (base: string): Promise<() => Promise<void>> => {
  const own = join(base, 'sidecar.pid');
  const draft = `${own}.${process.pid}`;
  const mine = `${process.pid} ${birthOf(process.pid)}`;
  // Linked into place whole: nobody ever reads a claim that is only half written.
  const claim = async (path: string): Promise<boolean> => {
    try {
      await link(draft, path);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    }
  };
  /** Of those who see a dead owner's claim one becomes his heir, who alone may put his own in its place. */
  const take = async (path: string): Promise<void> => {
    while (!(await claim(path))) {
      const text = await read(path);
      if (text === undefined) continue;
      if (text === mine || isHeld(text)) {
        throw new EmbeddedError(`the data folder ${base} is in use by process ${text.split(' ')[0]}`);
      }
      const heir = heirOf(path, text);
      await take(heir);
      if ((await read(path)) === text) {
        await rename(heir, path);
        return;
      }
      // Another was his heir before, and has moved in.
      await rm(heir);
    }
  };
  // One that a killed process of this number has left may be the very file of a claim.
  await rm(draft, { force: true });
  await writeFile(draft, mine);
  try {
    await take(own);
  } finally {
    await rm(draft, { force: true });
  }
  return () => rm(own, { force: true });
};
