import { readdirSync } from 'node:fs';
import { basename } from 'node:path';
import type { CanonicalMigration } from './canonical.ts';

const files = readdirSync(import.meta.dirname).filter((file) => /^Migration\d+_\w+\.ts$/.test(file));

const load = async (file: string): Promise<readonly [name: string, migration: new () => CanonicalMigration]> => {
  const name = basename(file, '.ts');
  return [name, (await import(new URL(file, import.meta.url).href))[name]];
};

/** The migrations of this program, oldest first: those of this folder. A build names them one by one instead. */
export const migrations: Readonly<Record<string, new () => CanonicalMigration>> = Object.fromEntries(
  await Promise.all(files.sort().map(load)),
);
