/**
 * Measures the sidecar beside its peers in one run on one machine; a whole run writes RESULTS.md and results.json.
 *
 * npm run bench -- [--quick] [--only=point,list,…] [--soak=<minutes>] [--large]
 *
 * `--quick` takes about two minutes and builds no peer; `--large` lets the table of the growth have ten million rows.
 *
 * Servers are processes of their own on one PostgreSQL: an embedded one, or a database of its own on the server of
 * DATABASE_URL. A peer whose toolchain the machine lacks is left out, and the report says so.
 */
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Bench, Case } from './bench.ts';
import { listOfHundred, pointRead, singleUseWrite } from './cases/calls.ts';
import { growth } from './cases/growth.ts';
import { guarded } from './cases/guarded.ts';
import { latency } from './cases/latency.ts';
import { memory } from './cases/memory.ts';
import { soak } from './cases/soak.ts';
import { start } from './cases/start.ts';
import { longStream } from './cases/stream.ts';
import { telemetry } from './cases/telemetry.ts';
import { transactions } from './cases/transactions.ts';
import { openDatabase } from './database.ts';
import { checkHonesty } from './honest.ts';
import { buildPeers, pgbench, sidecar } from './peers.ts';
import { machine, Report } from './report.ts';
import { type Served, serve } from './server.ts';

/** In this order: the soak is asked for by its flag, and the growth changes the tables. */
const CASES: readonly Case[] = [
  pointRead,
  listOfHundred,
  singleUseWrite,
  transactions,
  latency,
  start,
  memory,
  longStream,
  telemetry,
  guarded,
  soak,
  growth,
];

const { values: flags } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    soak: { type: 'string', default: '0' },
    large: { type: 'boolean', default: false },
  },
});
const minutes = Number(flags.soak);
const only = flags.only?.split(',') ?? CASES.map(({ name }) => name).filter((name) => name !== 'soak' || minutes > 0);
const unknown = only.filter((name) => !CASES.some((each) => each.name === name));
if (unknown.length > 0) {
  console.error(`no such case: ${unknown.join(', ')}; there are ${CASES.map(({ name }) => name).join(', ')}`);
  process.exit(2);
}

const report = new Report();
const compileCache = await mkdtemp(join(tmpdir(), 'policy-sidecar-compiled-'));
// What is measured is what is shipped.
execFileSync('npm', ['run', '--silent', 'build'], { cwd: join(import.meta.dirname, '..'), stdio: 'inherit' });
const database = await openDatabase(process.env['DATABASE_URL']);
const servers: Served[] = [];
try {
  const { commands, versions, skipped } = await buildPeers(database.url, flags.quick);
  report.about('when', new Date().toISOString().slice(0, 16));
  report.about('machine', machine());
  report.about(
    'versions',
    Object.entries({ node: process.version, postgresql: database.version, ...versions })
      .map((each) => each.join(' '))
      .join(', '),
  );
  for (const [peer, why] of Object.entries(skipped)) report.about(`${peer} left out`, why);
  if (!pgbench) report.about('pgbench left out', 'there is no pgbench');

  const { rows } = await database.client.query<{ id: string }>('select id from policy.violations limit 1');
  const ours = sidecar(database.url, compileCache);
  const bench: Bench = {
    database,
    report,
    sidecar: ours,
    peers: commands,
    fleet: async () => {
      if (servers.length === 0) {
        for (const command of [ours, ...commands]) servers.push(await serve(command));
        await checkHonesty(servers[0]!, servers.slice(1), database, bench.id);
      }
      return servers;
    },
    id: rows[0]!.id,
    rounds: flags.quick ? 3 : 5,
    // Compilers that learn from what runs have learned most of it after ten seconds.
    warmMs: flags.quick ? 1_000 : 10_000,
    roundMs: flags.quick ? 700 : 2_000,
    quick: flags.quick,
    largest: flags.quick ? 100_000 : flags.large ? 10_000_000 : 1_000_000,
    soak: minutes,
  };
  for (const { name, run } of CASES) if (only.includes(name)) await run(bench);
  if (!flags.quick && !flags.only) await report.write(import.meta.dirname);
} finally {
  await Promise.all(servers.map(({ stop }) => stop()));
  await database.stop();
  await rm(compileCache, { recursive: true, force: true });
}
