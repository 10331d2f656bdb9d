import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { goBuild, run, whyNoGo } from '../support/go.ts';

/** Judges, by the packages that they are compiled from. */
const PACKAGES = {
  connectconformance: 'connectrpc.com/conformance/cmd/connectconformance',
  interop: './interop',
  'grpc-health-probe': 'github.com/grpc-ecosystem/grpc-health-probe',
  ghz: 'github.com/bojand/ghz/cmd/ghz',
} as const;

type Judge = keyof typeof PACKAGES;

/** Programs of others, compiled for a test. */
export interface Judges {
  /** Why there are none; undefined where there are. */
  readonly missing: string | undefined;
  /** A folder of the test's own. */
  readonly folder: string;
  /** Where a program is. */
  path(judge: Judge): string;
  remove(): Promise<void>;
}

/** `ghz` links all of xDS for one kind of address, and compiling that takes longer than everything else together. */
const withoutXds = async (folder: string): Promise<void> => {
  const original = (await run(folder, 'go', ['list', '-m', '-f', '{{.Dir}}', 'github.com/bojand/ghz'])).trim();
  const copy = join(folder, 'ghz');
  for (const part of ['go.mod', 'cmd', 'runner', 'printer', 'protodesc', 'load']) {
    await cp(join(original, part), join(copy, part), { recursive: true });
  }
  const file = join(copy, 'runner', 'requester.go');
  const source = await readFile(file, 'utf8');
  await rm(file, { force: true });
  await writeFile(file, source.replace('_ "google.golang.org/grpc/xds"', ''));
  const module = await readFile(join(folder, 'go.mod'), 'utf8');
  await writeFile(join(folder, 'go.mod'), `${module}\nreplace github.com/bojand/ghz => ./ghz\n`);
};

/** Compiles judges. */
export const buildJudges = async (...judges: readonly Judge[]): Promise<Judges> => {
  const folder = await mkdtemp(join(tmpdir(), 'judges-'));
  for (const part of ['go.mod', 'go.sum', 'interop']) {
    await cp(join(import.meta.dirname, part), join(folder, part), { recursive: true });
  }
  const missing = await whyNoGo(folder);
  if (missing === undefined) {
    if (judges.includes('ghz')) await withoutXds(folder);
    await goBuild(folder, '-ldflags=-s -w', '-o', `${folder}/bin/`, ...judges.map((judge) => PACKAGES[judge]));
  }
  return {
    missing,
    folder,
    path: (judge) => join(folder, 'bin', judge),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
};
