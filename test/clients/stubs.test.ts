/**
 * The commands of the README that make stubs, as a user runs them, and a client of each language that is linked with the
 * ecosystem's own packages of health and error details and calls a sidecar.
 */
import { execFile } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';

const ROOT = join(import.meta.dirname, '..', '..');
/** What Python has fetched; Go and Maven keep theirs themselves. */
const VENV = join(ROOT, 'node_modules', '.cache', 'stubs-python');
/** Where Go puts itself, whatever the path says. */
const GO = '/usr/local/go/bin';
/** The longest that a command may take, for it may have to fetch what it needs. */
const FETCH_MS = 240_000;

let sidecar: TestSidecar;
const folders: string[] = [];

beforeAll(async () => {
  sidecar = await startTestSidecar();
});
afterAll(async () => {
  await sidecar.stop();
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** A folder with what a user has of a checkout, and the client of a language. */
const workplace = (language: string): string => {
  const folder = mkdtempSync(join(tmpdir(), `stubs-${language}-`));
  folders.push(folder);
  for (const name of ['proto', 'buf.yaml', 'package.json'])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  cpSync(join(import.meta.dirname, language), folder, { recursive: true });
  return folder;
};

/** Runs a line of a shell; its standard output. */
const shell = async (
  cwd: string,
  path: readonly string[],
  line: string,
  env: Readonly<Record<string, string>> = {},
): Promise<string> => {
  const PATH = [...path, process.env['PATH'], GO].join(delimiter);
  const options = { cwd, env: { ...process.env, ...env, PATH }, timeout: FETCH_MS };
  return (await promisify(execFile)('bash', ['-euc', line], options)).stdout;
};

/** The commands that the README has for a language. */
const readme = (language: string): string => {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const block = new RegExp(`^${language}\\b.*:\\n\\n\`\`\`console\\n([^]*?)^\`\`\``, 'm').exec(text)![1]!;
  return block.replace(/^\$ /gm, '');
};

/**
 * Makes ready what stubs need of others.
 *
 * @returns why it cannot be had here; undefined where it can.
 */
const missing = async (toolchain: string, registry: string, fetchAll: () => Promise<unknown>) => {
  try {
    await shell(ROOT, [], `command -v ${toolchain}`);
  } catch {
    return `there is no ${toolchain}`;
  }
  try {
    await fetchAll();
  } catch (error) {
    const answers = await fetch(registry, { signal: AbortSignal.timeout(10_000) }).catch(() => undefined);
    if (answers?.ok) throw error;
    return `${registry} cannot be reached`;
  }
  return undefined;
};

/** What a client prints that has asked for health, read a list, and tried to write without a transaction. */
const SAID = 'SERVING\n0\nTRANSACTION_REQUIRED\n';

test('the stubs for Go that the README makes work beside the packages of grpc-go', { timeout: 300_000 }, async ({
  skip,
}) => {
  const folder = workplace('go');
  const bin = join(folder, 'bin');
  const why = await missing('go', 'https://proxy.golang.org/google.golang.org/grpc/@latest', () =>
    shell(folder, [], 'go install tool', { GOBIN: bin }),
  );
  if (why) {
    console.log(`skipped: the stubs for Go, for ${why}`);
    return skip();
  }
  await shell(folder, [bin], readme('Go'));
  expect(await shell(folder, [], `go run -trimpath . ${sidecar.server.grpcAddress}`)).toBe(SAID);
});

test('the stubs for Python that the README makes work beside the packages of grpcio', { timeout: 300_000 }, async ({
  skip,
}) => {
  const folder = workplace('python');
  const bin = join(VENV, 'bin');
  const why = await missing('python3', 'https://pypi.org/simple/grpcio/', async () => {
    if (!existsSync(bin)) await shell(folder, [], `python3 -m venv ${VENV}`);
    await shell(folder, [bin], 'pip install -q -r requirements.txt');
  });
  if (why) {
    console.log(`skipped: the stubs for Python, for ${why}`);
    return skip();
  }
  await shell(folder, [bin], readme('Python'));
  expect(await shell(folder, [bin], `python client.py ${sidecar.server.grpcAddress}`, { PYTHONPATH: 'gen' })).toBe(
    SAID,
  );
});

/** This machine in the words of Maven's classifiers. */
const PLATFORM = `${process.platform === 'darwin' ? 'osx' : process.platform}-${process.arch === 'arm64' ? 'aarch_64' : 'x86_64'}`;

test('the stubs for Java that the README makes work beside the packages of grpc-java', { timeout: 300_000 }, async ({
  skip,
}) => {
  const folder = workplace('java');
  const why = await missing('mvn', 'https://repo.maven.apache.org/maven2/io/grpc/grpc-api/maven-metadata.xml', () =>
    shell(
      folder,
      [],
      `mvn -q -B dependency:copy-dependencies -Dplatform=${PLATFORM} -Dmdep.stripVersion=true -DoutputDirectory=lib`,
    ),
  );
  if (why) {
    console.log(`skipped: the stubs for Java, for ${why}`);
    return skip();
  }
  const bin = join(folder, 'bin');
  const include = join(folder, 'include');
  mkdirSync(bin);
  for (const program of ['protoc', 'protoc-gen-grpc-java']) {
    const file = join(folder, 'lib', `${program}-${PLATFORM}.exe`);
    chmodSync(file, 0o755);
    symlinkSync(file, join(bin, program));
  }
  mkdirSync(include);
  await shell(include, [], 'jar xf ../lib/protobuf-java.jar google/protobuf');
  await shell(folder, [bin], readme('Java'), { INCLUDE: include });
  // What the client uses is compiled, not all of the contract: that takes a minute.
  await shell(
    folder,
    [],
    "mkdir classes && javac -proc:none -nowarn -d classes -cp 'lib/*' -sourcepath gen Client.java",
  );
  expect(await shell(folder, [], `java -cp 'classes:lib/*' Client ${sidecar.server.grpcAddress}`)).toBe(SAID);
});
