import { createHash, randomBytes } from 'node:crypto';
import { constants, readdirSync, readFileSync } from 'node:fs';
import { chmod, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** An embedded PostgreSQL that cannot be had; the message is one line for the user. */
export class EmbeddedError extends Error {}

export interface Account {
  readonly uid: number;
  readonly gid: number;
}

/** True when something is where the data goes, whatever it is. */
export const hasData = (base: string): boolean => {
  try {
    return readdirSync(join(base, 'data')).length > 0;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
};

/** PostgreSQL refuses to run as root, so root lends it the account that owns the data already, else one of its own. */
export const unprivilegedAccount = async (bases: readonly string[]): Promise<Account | undefined> => {
  if (process.getuid?.() !== 0) return undefined;
  for (const base of bases.filter(hasData)) {
    const { uid, gid } = await stat(join(base, 'data'));
    if (uid !== 0) return { uid, gid };
  }
  const accounts = readFileSync('/etc/passwd', 'utf8').split('\n');
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = accounts.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (uid && gid && uid !== '0') return { uid: Number(uid), gid: Number(gid) };
  }
  throw new EmbeddedError('PostgreSQL cannot run as root and there is no account postgres or nobody: set DATABASE_URL');
};

/** True when the account may pass through every folder above and into this one. */
export const isReachable = async (folder: string, account: Account): Promise<boolean> => {
  for (let at = folder; ; at = dirname(at)) {
    const facts = await stat(at).catch(() => undefined);
    if (facts) {
      const bit = facts.uid === account.uid ? constants.S_IXUSR : constants.S_IXOTH;
      if ((facts.mode & bit) === 0) return false;
    }
    if (dirname(at) === at) return true;
  }
};

/** Makes a folder that every account may pass through, whatever the umask. */
export const makeOpenFolder = async (folder: string): Promise<void> => {
  await mkdir(folder, { recursive: true });
  await chmod(folder, 0o755);
};

/** Where data goes that the account of root's PostgreSQL cannot reach: always the same place for the same folder. */
export const elsewhereFor = (wanted: string): string =>
  join('/var/lib/policy-sidecar', createHash('sha256').update(wanted).digest('hex').slice(0, 16));

/**
 * The folder for the data: as wanted, or elsewhere when the account cannot reach it (a checkout below a private home).
 * Data that is there already decides, so that a changed permission never looks like an empty database.
 */
export const chooseBase = async (wanted: string, elsewhere: string, account: Account): Promise<string> => {
  const isOpen = await isReachable(wanted, account);
  if (hasData(wanted) && !isOpen) {
    throw new EmbeddedError(`user ${account.uid} may not pass through to ${join(wanted, 'data')}, which it owns`);
  }
  if (hasData(wanted) || (isOpen && !hasData(elsewhere))) return wanted;
  await makeOpenFolder(dirname(elsewhere));
  await makeOpenFolder(elsewhere);
  return elsewhere;
};

/** The password of the data that is there, else a new one. */
export const passwordFor = async (base: string): Promise<string> => {
  const path = join(base, 'password');
  const data = join(base, 'data');
  if (!hasData(base)) {
    const password = randomBytes(24).toString('base64url');
    // Before the data: a start that is cut short never leaves data behind a password that nobody knows.
    await writeFile(path, password, { mode: 0o600 });
    return password;
  }
  const version = await readFile(join(data, 'PG_VERSION'), 'utf8').catch(() => '');
  if (!/^\d+\s*$/.test(version)) {
    throw new EmbeddedError(
      `${join(data, 'PG_VERSION')} is missing or empty, and ${data} is not: restore that file, or move the folder away to begin with an empty database`,
    );
  }
  const password = await readFile(path, 'utf8').catch(() => '');
  if (password === '') {
    throw new EmbeddedError(
      `${path} is missing or empty, and ${data} is not: restore that file, or move both away to begin with an empty database`,
    );
  }
  return password;
};
