import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { migrateTenants } from '../../src/database/migrate/tenant-policies.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { alone, type Case } from '../bench.ts';
import { callOf, write } from '../calls.ts';
import { Rounds, type Side } from '../rounds.ts';
import { type Served, serve } from '../server.ts';
import { answerBytes, loaded } from '../sides.ts';

const CALLERS = 16;
const TENANT = 'tenant-00';
const FREE = 'a caller who sees all rows';
const BOUND = 'a caller bound to a tenant';
const PLAIN = 'without replicas';
const MARKED = 'with replicas, so with consistency tokens';

const tokenLine = (name: string): string => `${name}: ${createHash('sha256').update(name).digest('hex')}\n`;

/** What it costs to keep callers to the rows of their tenants, and to tell writers where the log of the database stood. */
export const guarded: Case = {
  name: 'guarded',
  run: async ({ database, sidecar, report, roundMs: ms, ...pace }) => {
    await migrateTenants(database.adminUrl);
    const admin = new pg.Client({ connectionString: database.adminUrl });
    await admin.connect();
    await admin.query(`grant policy_sidecar_tenants to "${new URL(database.url).username}"`);
    await admin.end();
    const { rows } = await database.client.query<{ id: string }>(
      'select id from policy.violations where tenant_id = $1 limit 1',
      [TENANT],
    );
    const folder = await mkdtemp(join(tmpdir(), 'policy-sidecar-bench-'));
    const [tokens, authorization] = [join(folder, 'tokens'), join(folder, 'authorization.json')];
    const all = { read: ['*'], write: ['*'] };
    const identities = { free: { ...all, tenants: 'all' }, bound: { ...all, tenants: [TENANT] } };
    await writeFile(tokens, ['free', 'bound'].map(tokenLine).join(''));
    await writeFile(authorization, JSON.stringify({ identities }));
    const env = { ...sidecar.env, SIDECAR_TOKENS_FILE: tokens, SIDECAR_AUTHORIZATION: authorization };
    try {
      await alone({ ...sidecar, env }, async (served) => {
        const as = (token: string) =>
          callOf(
            PolicyEngineService.method.fetchViolationById,
            { violationId: rows[0]!.id },
            {
              authorization: `Bearer ${token}`,
            },
          );
        const sides = new Map<string, Side>();
        for (const [name, token] of [
          [FREE, 'free'],
          [BOUND, 'bound'],
        ] as const) {
          const call = as(token);
          sides.set(
            name,
            loaded(served, { calls: [call], bytes: await answerBytes(served, call), callers: CALLERS, ms }),
          );
        }
        const found = await Rounds.of(sides, pace);
        report.rates(`Point read by id, by tenant, ${CALLERS} callers`, found);
        report.target(
          'point read of a caller bound to a tenant, of one who is not',
          found.ratio(BOUND, FREE),
          '>=',
          0.7,
        );
      });
    } finally {
      await rm(folder, { recursive: true });
    }
    const servers: Served[] = [];
    try {
      const sides = new Map<string, Side>();
      for (const [name, more] of [
        [PLAIN, {}],
        // It is no standby, and never read; what commits are asked for is the same.
        [MARKED, { SIDECAR_REPLICA_URLS: database.url }],
      ] as const) {
        const served = await serve({ ...sidecar, name, env: { ...sidecar.env, ...more } });
        servers.push(served);
        sides.set(
          name,
          loaded(served, { calls: [write], bytes: await answerBytes(served, write), callers: CALLERS, ms }),
        );
      }
      const found = await Rounds.of(sides, pace);
      report.rates(`Single-use write, with consistency tokens, ${CALLERS} callers`, found);
      report.target('single-use write with a consistency token, of one without', found.ratio(MARKED, PLAIN), '>=', 0.8);
    } finally {
      await Promise.all(servers.map(({ stop }) => stop()));
    }
  },
};
