import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';

const ROOT = join(import.meta.dirname, '..', '..');
/** What no checkout brings. */
const MADE = new Set(['node_modules', '.git', '.sidecar', 'dist', join('src', 'gen'), join('src', 'docs')]);

/** A PATH that does not lead to this checkout's own programs, as that of `npm test` does. */
export const OUTSIDE = process.env['PATH']!.split(':')
  .filter((folder) => !folder.includes('node_modules'))
  .join(':');

/** A checkout of its own. */
export interface Checkout {
  readonly path: string;
  /** A folder beside it. */
  readonly scratch: string;
  run(program: string, args: readonly string[]): Promise<{ stdout: string; stderr: string }>;
  remove(): Promise<void>;
}

/**
 * Copies this checkout, with what is installed here, and compiles it.
 *
 * @param bare neither installed nor compiled.
 */
export const buildCheckout = async ({ bare = false } = {}): Promise<Checkout> => {
  const scratch = await mkdtemp(join(tmpdir(), 'policy-sidecar-package-'));
  await chmod(scratch, 0o755);
  const path = join(scratch, 'checkout');
  await mkdir(path);
  await cp(ROOT, path, { recursive: true, filter: (from) => !MADE.has(relative(ROOT, from)) });
  const tools = bare ? '' : `${join(path, 'node_modules', '.bin')}:`;
  const run: Checkout['run'] = (program, args) =>
    promisify(execFile)(program, [...args], { cwd: path, env: { ...process.env, PATH: `${tools}${OUTSIDE}` } });
  if (!bare) {
    await symlink(join(ROOT, 'node_modules'), join(path, 'node_modules'));
    await run('npm', ['run', '--silent', 'generate']);
    await run('npm', ['run', '--silent', 'build']);
  }
  return { path, scratch, run, remove: () => rm(scratch, { recursive: true, force: true }) };
};
