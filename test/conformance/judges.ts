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
  grpcurl: 'github.com/fullstorydev/grpcurl/cmd/grpcurl',
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

/** Those that link all of xDS for one kind of address, which takes longer to compile than everything else together. */
const WITH_XDS = {
  ghz: {
    module: 'github.com/bojand/ghz',
    parts: ['go.mod', 'cmd', 'runner', 'printer', 'protodesc', 'load'],
    linking: 'runner/requester.go',
  },
  grpcurl: {
    module: 'github.com/fullstorydev/grpcurl',
    parts: ['go.mod', 'cmd', 'desc_source.go', 'format.go', 'grpcurl.go', 'invoke.go'],
    linking: 'cmd/grpcurl/grpcurl.go',
  },
} as const;

/** Has a judge compiled from a copy of its module that does without. */
const withoutXds = async (folder: string, judge: keyof typeof WITH_XDS): Promise<void> => {
  const { module, parts, linking } = WITH_XDS[judge];
  const original = (await run(folder, 'go', ['list', '-m', '-f', '{{.Dir}}', module])).trim();
  const copy = join(folder, judge);
  for (const part of parts) await cp(join(original, part), join(copy, part), { recursive: true });
  // Go keeps modules from being written to.
  await run(folder, 'chmod', ['-R', 'u+w', copy]);
  const file = join(copy, linking);
  await writeFile(file, (await readFile(file, 'utf8')).replace('_ "google.golang.org/grpc/xds"', ''));
  const mod = join(folder, 'go.mod');
  await writeFile(mod, `${await readFile(mod, 'utf8')}\nreplace ${module} => ./${judge}\n`);
};

/** Compiles judges. */
export const buildJudges = async (...judges: readonly Judge[]): Promise<Judges> => {
  const folder = await mkdtemp(join(tmpdir(), 'judges-'));
  for (const part of ['go.mod', 'go.sum', 'interop']) {
    await cp(join(import.meta.dirname, part), join(folder, part), { recursive: true });
  }
  const missing = await whyNoGo(folder);
  if (missing === undefined) {
    for (const judge of ['ghz', 'grpcurl'] as const) if (judges.includes(judge)) await withoutXds(folder, judge);
    await goBuild(folder, '-ldflags=-s -w', '-o', `${folder}/bin/`, ...judges.map((judge) => PACKAGES[judge]));
  }
  return {
    missing,
    folder,
    path: (judge) => join(folder, 'bin', judge),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
};
