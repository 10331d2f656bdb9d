import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { inject } from 'vitest';
import type { TestProject } from 'vitest/node';
import { migrateUp } from '../../src/database/migrate/migrate.ts';
import { startEmbedded } from '../../src/embedded/embedded.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** The program as it ships, of what is in `src/` now. */
    program: string;
    /** A data folder that a sidecar has left behind: initialised, migrated, stopped. */
    dataFolder: string;
  }
}

const ROOT = join(import.meta.dirname, '..', '..');
/** Below the packages, or the program would not find that of PostgreSQL. */
const CACHE = join(ROOT, 'node_modules', '.cache');

/**
 * Makes once for the whole run what its commands and servers would each make anew: the compiled program, which starts in
 * half the time, and a data folder.
 */
export default async (project: TestProject): Promise<() => Promise<void>> => {
  await mkdir(CACHE, { recursive: true });
  const compiled = await mkdtemp(join(CACHE, 'program-'));
  const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-data-'));
  await chmod(folder, 0o755);
  const tearDown = async (): Promise<void> => {
    for (const path of [compiled, folder]) await rm(path, { recursive: true, force: true });
  };
  try {
    await promisify(execFile)(process.execPath, [join(ROOT, 'build.ts'), compiled]);
    const embedded = await startEmbedded({ dataDir: folder, settings: { fsync: 'off' } });
    await migrateUp(embedded.url);
    await embedded.stop();
    project.provide('dataFolder', embedded.dataDir);
  } catch (error) {
    await tearDown();
    throw error;
  }
  project.provide('program', join(compiled, 'start.js'));
  return tearDown;
};

/** Puts a copy of the data folder there, owners and modes included. */
export const copyDataFolder = async (to: string): Promise<void> => {
  await promisify(execFile)('cp', ['-a', `${inject('dataFolder')}/.`, to]);
};
