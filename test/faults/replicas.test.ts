import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, inject, test, vi } from 'vitest';
import { Lane } from '../../src/database/lane.ts';
import { readMark } from '../../src/database/mark.ts';
import { migrateTenants } from '../../src/database/migrate/tenant-policies.ts';
import { CallNotes } from '../../src/database/notes.ts';
import { Replica, ReplicaSession } from '../../src/database/replica.ts';
import { ServerState } from '../../src/database/server-state.ts';
import { statement } from '../../src/database/statement.ts';
import { readTarget } from '../../src/database/target.ts';
import { Health } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type Caller, type CallInit, collect, refusal } from '../support/client.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { startCommand } from '../support/command.ts';
import { type Network, startNetwork } from '../support/network.ts';
import { startTestSidecar, type TestSidecar } from '../support/sidecar.ts';
import { tokenLine } from '../support/token-line.ts';
import { violation } from '../support/violation.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const SERVING = 1;
const patient = { timeout: 20_000, interval: 20 };
const single = { transaction: 'single-use' };

let primary: Cluster;
/** What the standbys follow it by. */
let between: Network;
let standbys: readonly Cluster[];
let sidecar: TestSidecar;
/** A ceiling of this file's own. */
let ceilingId: string;
const endings: (() => Promise<unknown>)[] = [];

/** A statement of the test's own may be in the way of the replay, too: then it is run again. */
const ask = async (cluster: Cluster, text: string): Promise<Record<string, unknown>[]> => {
  const client = new pg.Client({ connectionString: cluster.adminUrl });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } catch (error) {
    if ((error as pg.DatabaseError).code !== '40001') throw error;
  } finally {
    await client.end().catch(() => {});
  }
  return ask(cluster, text);
};

const pause = async (cluster: Cluster): Promise<void> => {
  await ask(cluster, 'select pg_wal_replay_pause()');
  await vi.waitFor(async () => {
    expect(await ask(cluster, 'select pg_get_wal_replay_pause_state() as state')).toEqual([{ state: 'paused' }]);
  }, patient);
};
const resume = (cluster: Cluster) => ask(cluster, 'select pg_wal_replay_resume()');

const anything = statement('replicas_test.anything', 'select 1');

/** What the log says of replicas. */
const said = ({ log }: TestSidecar, msg: string) => log().filter((line) => line['msg'] === msg);
const LEFT_OUT = 'a replica is left out';
const IS_READ = 'a replica is read from now on';

const portOf = ({ url }: Cluster): string => new URL(url).port;

/** Whether a replica was left out or read last, and how often it was left out. */
const newsOf = (of: TestSidecar, replica: Cluster) => {
  const lines = of.log().filter((line) => String(line['replica']).includes(portOf(replica)));
  const leftOut = lines.filter(({ msg }) => msg === LEFT_OUT).length;
  return { last: lines.findLast(({ msg }) => msg === LEFT_OUT || msg === IS_READ)?.['msg'], leftOut };
};

/** Waits until both are read, so many times in all. */
const bothRead = (of: TestSidecar, times = 2) =>
  vi.waitFor(() => expect(said(of, IS_READ).length).toBeGreaterThanOrEqual(times), patient);

const startReading = async (config: Parameters<typeof startTestSidecar>[0] = {}): Promise<TestSidecar> => {
  const replicaUrls = standbys.map(({ url }) => url);
  const started = await startTestSidecar({ replicaUrls, replicaMaxLagMs: 60_000, ...config }, primary.url);
  endings.push(started.stop);
  await bothRead(started);
  return started;
};

const change = (value: number, id = ceilingId) => ({
  ceilingId: id,
  updates: { currentValue: value },
  updateMask: { paths: ['current_value'] },
});

/** The ways to commit a write. */
const WAYS = ['single-use', 'once', 'execute', 'commit'] as const;

/** Writes, and returns the token. */
const write = async (
  caller: Caller,
  value: number,
  id = ceilingId,
  way: (typeof WAYS)[number] = 'single-use',
): Promise<string> => {
  let token: string | undefined;
  const onTrailer: CallInit['onTrailer'] = (trailer) => {
    token = trailer('consistency-token');
  };
  const request = change(value, id);
  if (way === 'commit') {
    const { transaction } = await caller.unary(tx.begin, {});
    await caller.unary(rpc.updateRiskCeiling, request, { transaction: transaction!.id! });
    await caller.unary(tx.commit, { transactionId: transaction!.id! }, { onTrailer });
  } else if (way === 'execute') {
    const operations = [{ request: { case: 'updateRiskCeiling' as const, value: request } }];
    await caller.unary(tx.execute, { operations }, { onTrailer });
  } else {
    const headers: Record<string, string> = way === 'once' ? { 'idempotency-key': randomUUID() } : {};
    await caller.unary(rpc.updateRiskCeiling, request, { ...single, headers, onTrailer });
  }
  // A trailer may be told after the answer.
  await vi.waitFor(() => expect(token).toBeDefined(), patient);
  return token!;
};

const read = async (caller: Caller, consistency?: string, id = ceilingId): Promise<number> => {
  const headers = consistency === undefined ? {} : { consistency };
  const { riskCeilings } = await caller.unary(rpc.fetchRiskCeilings, {}, { headers });
  return riskCeilings.find((ceiling) => ceiling.id === id)!.currentValue!;
};

/** Waits until reads see that value several times in a row: a replica that was late for a moment is left out for that. */
const settlesAt = (caller: Caller, value: number, consistency: string) =>
  vi.waitFor(async () => {
    for (let turn = 0; turn < 6; turn += 1) expect(await read(caller, consistency)).toBe(value);
  }, patient);

/** The value that a server has. */
const ceilingAt = async (cluster: Cluster): Promise<number> => {
  const [row] = await ask(cluster, `select current_value from policy.risk_ceilings where id = '${ceilingId}'`);
  return Number(row!['current_value']);
};

/** Where a call ran: what a backend of the sidecar's did there last. */
const readsAt = async (cluster: Cluster): Promise<number> => {
  const [row] = await ask(
    cluster,
    `select count(*)::int as n from pg_stat_activity where application_name ~ '^policy-sidecar replica \\d+$'`,
  );
  return row!['n'] as number;
};

beforeAll(async () => {
  primary = await startCluster({
    fsync: 'off',
    max_standby_streaming_delay: '0',
    wal_retrieve_retry_interval: '100ms',
  });
  endings.push(primary.stop);
  between = await startNetwork(primary.url);
  endings.push(between.close);
  standbys = [await primary.standby(between.port), await primary.standby(between.port)];
  endings.push(...standbys.map(({ stop }) => stop));
  sidecar = await startReading();
  const { riskCeilings } = await sidecar.grpc.unary(rpc.fetchRiskCeilings, {});
  ceilingId = riskCeilings[0]!.id!;
}, 60_000);

afterAll(async () => {
  for (const end of endings.splice(0).reverse()) await end();
}, 60_000);

test('every commit brings a token, by either port, and what commits nothing brings none', async () => {
  for (const caller of sidecar.callers) {
    const tokens: (string | undefined)[] = [];
    const init = {
      onTrailer: (trailer: (name: string) => string | undefined) => tokens.push(trailer('consistency-token')),
    };
    const told = (times: number) => vi.waitFor(() => expect(tokens).toHaveLength(times), patient);
    await caller.unary(rpc.insertViolation, violation(), { ...single, ...init });
    await told(1);
    const once = { headers: { 'idempotency-key': randomUUID() } };
    await caller.unary(rpc.updateRiskCeiling, change(1), { ...single, ...init, ...once });
    await told(2);
    const operations = [{ request: { case: 'insertViolation' as const, value: violation() } }];
    await caller.unary(tx.execute, { operations }, init);
    await told(3);
    const { transaction } = await caller.unary(tx.begin, {});
    const inside = { transaction: transaction!.id! };
    const silent: (string | undefined)[] = [];
    const noted = {
      onTrailer: (trailer: (name: string) => string | undefined) => silent.push(trailer('consistency-token')),
    };
    await caller.unary(rpc.updateRiskCeiling, change(2), { ...inside, ...noted });
    await vi.waitFor(() => expect(silent).toEqual([undefined]), patient);
    await caller.unary(tx.commit, { transactionId: transaction!.id! }, init);
    await told(4);
    expect(tokens.every((token) => /^\d+-[\dA-F]{8}-[\dA-F]+\/[\dA-F]+$/.test(token!))).toBe(true);
  }
});

test('the doctor says whether replicas follow the database', async () => {
  const look = async (replicas: readonly string[]) => {
    const env = { DATABASE_URL: primary.url, SIDECAR_REPLICA_URLS: replicas.join() };
    const { ended, out } = startCommand(['doctor'], env);
    return {
      code: await ended,
      said: out()
        .split('\n')
        .filter((line) => line.includes('replica')),
    };
  };
  const urls = standbys.map(({ url }) => url);
  const names = urls.map((url) => url.replace(/:[^:@]*@/, '@'));
  expect(await look(urls)).toEqual({ code: 0, said: names.map((name) => `ok    the replica ${name} follows it`) });
  const other = inject('postgresUrl');
  const { code, said } = await look([primary.url, other, 'postgresql://u:secret@127.0.0.1:1/d']);
  expect(code).toBe(1);
  expect(said).toHaveLength(3);
  expect(said[0]).toMatch(/^lack {2}the replica \S+ is no standby; /);
  expect(said[1]).toMatch(/^lack {2}the replica \S+ is of another database cluster; /);
  expect(said[2]).toMatch(/^lack {2}the replica postgresql:\/\/u@127\.0\.0\.1:1\/d cannot be used: .*; check address/);
});

test('a read says how recent it has to be, and nonsense is refused by name', async () => {
  const marks = await Promise.all(
    ['nonsense', 'Strong', '1-00000001-0', '1-00000001-0/0/0', 'strong, eventual', '99-1-0/0'].map((consistency) =>
      refusal(sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { headers: { consistency } })),
    ),
  );
  for (const refused of marks) {
    expect(refused).toMatchObject({
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_REQUEST',
      fields: ['header consistency'],
    });
  }
  const plain = await startTestSidecar({}, primary.url);
  endings.push(plain.stop);
  const token = await write(sidecar.grpc, 3);
  expect(await read(plain.grpc, token)).toBe(3);
  expect(await read(plain.grpc, 'eventual')).toBe(3);
  let trailer: string | undefined = 'none yet';
  await plain.grpc.unary(rpc.updateRiskCeiling, change(4), {
    ...single,
    onTrailer: (of) => {
      trailer = of('consistency-token');
    },
  });
  await vi.waitFor(() => expect(trailer).toBeUndefined(), patient);
});

// Both wait for the same standbys: with one and the same wait the first would be answered before the second.
test('SIDECAR_REPLICA_WAIT: a read waits for a standby that long, and no longer', async () => {
  const patiently = await startReading({ replicaWaitMs: 600_000 });
  const hasty = await startReading({ replicaWaitMs: 1 });
  await Promise.all(standbys.map(pause));
  try {
    const token = await write(sidecar.grpc, 5);
    let isAnswered = false;
    const late = read(patiently.grpc, token).then((value) => {
      isAnswered = true;
      return value;
    });
    for (let turn = 0; turn < 20; turn += 1) expect(await read(hasty.grpc, token)).toBe(5);
    expect(isAnswered).toBe(false);
    await Promise.all(standbys.map(resume));
    expect(await late).toBe(5);
  } finally {
    await Promise.all(standbys.map(resume));
  }
});

test('an eventual read runs at a standby, a strong one and what writes do not', async () => {
  await sidecar.grpc.unary(rpc.updateRiskCeiling, change(10), single);
  await settlesAt(sidecar.grpc, 10, 'eventual');
  await Promise.all(standbys.map(pause));
  await sidecar.grpc.unary(rpc.updateRiskCeiling, change(11), single);
  for (const caller of sidecar.callers) {
    await settlesAt(caller, 10, 'eventual');
    for (let turn = 0; turn < 4; turn += 1) {
      expect(await read(caller)).toBe(11);
      expect(await read(caller, 'strong')).toBe(11);
    }
    const { transaction } = await caller.unary(tx.begin, { readOnly: true });
    const inside = { transaction: transaction!.id!, headers: { consistency: 'eventual' } };
    const { riskCeilings } = await caller.unary(rpc.fetchRiskCeilings, {}, inside);
    expect(riskCeilings.find(({ id }) => id === ceilingId)!.currentValue).toBe(11);
    await caller.unary(tx.rollback, { transactionId: transaction!.id! });
    const streamed = await collect(caller.stream(rpc.streamRiskCeilings, {}, { headers: { consistency: 'eventual' } }));
    expect(streamed.find(({ riskCeiling }) => riskCeiling!.id === ceilingId)!.riskCeiling!.currentValue).toBe(11);
  }
  for (const standby of standbys) expect(await readsAt(standby)).toBeGreaterThan(0);
  await Promise.all(standbys.map(resume));
});

// Story: what a standby had to refuse for its size was taken for a failure of the standby, and read at the primary to be
// refused again.
test('an answer that is too large is not asked for a second time', async () => {
  const small = await startReading({ maxResponseBytes: 10 });
  const atPrimary = async (): Promise<unknown> =>
    (await ask(primary, `select count(*) from pg_stat_activity where application_name = 'policy-sidecar call'`))[0];
  const before = await atPrimary();
  const eventual = { headers: { consistency: 'eventual' } };
  expect(await refusal(small.grpc.unary(rpc.fetchRiskCeilings, {}, eventual))).toMatchObject({
    reason: 'RESPONSE_TOO_LARGE',
  });
  expect(await atPrimary()).toEqual(before);
});

test('a read with a token goes where it has been replayed, and to the primary in bounded time where that is nowhere', async () => {
  await pause(standbys[0]!);
  for (let value = 20; value < 30; value += 1) {
    for (const caller of sidecar.callers) expect(await read(caller, await write(caller, value))).toBe(value);
  }
  // Nobody but the second has it, and the primary has something newer.
  const token = await write(sidecar.grpc, 30);
  await vi.waitFor(async () => expect(await ceilingAt(standbys[1]!)).toBe(30), patient);
  await pause(standbys[1]!);
  await write(sidecar.grpc, 31);
  await settlesAt(sidecar.grpc, 30, token);

  const late = await write(sidecar.grpc, 32);
  const began = performance.now();
  expect(await read(sidecar.grpc, late)).toBe(32);
  expect(performance.now() - began).toBeGreaterThan(90);
  await Promise.all(standbys.map(resume));
});

test('a token of another cluster, or of a timeline to come, is answered by the primary at once', async () => {
  const token = await write(sidecar.grpc, 40);
  await Promise.all(standbys.map(pause));
  await sidecar.grpc.unary(rpc.updateRiskCeiling, change(41), single);
  const [system, timeline, position] = token.split('-');
  expect(await read(sidecar.grpc, `1${system!.slice(1)}-${timeline}-0/1`)).toBe(41);
  expect(await read(sidecar.grpc, `${system}-0000000F-${position}`)).toBe(41);
  await Promise.all(standbys.map(resume));
});

test('a caller who is bound to tenants is bound at a standby, too', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'replicas-'));
  endings.push(() => rm(folder, { recursive: true }));
  const [tokensFile, authorizationFile] = [join(folder, 'tokens'), join(folder, 'authorization.json')];
  await writeFile(tokensFile, tokenLine('bound'));
  const identities = { bound: { read: ['*'], write: ['*'], tenants: ['ours'] } };
  await writeFile(authorizationFile, JSON.stringify({ identities }));
  await migrateTenants(primary.adminUrl);
  await ask(primary, 'grant policy_sidecar_tenants to policy_sidecar');
  const bound = await startReading({ tokensFile, authorizationFile });
  await sidecar.sql(
    `insert into policy.risk_ceilings (id, name, metric, window_seconds, max_value, current_value, tenant_id)
     values (gen_random_uuid(), 'of ours', 'm', 60, 9, 1, 'ours'), (gen_random_uuid(), 'of theirs', 'm', 60, 9, 1, 'theirs')`,
  );
  const token = await write(sidecar.grpc, 42);
  const of = async (consistency: string) => {
    const headers = { consistency, authorization: 'Bearer bound' };
    const { riskCeilings } = await bound.grpc.unary(rpc.fetchRiskCeilings, {}, { headers });
    const owned = riskCeilings.filter(({ name }) => name!.startsWith('of '));
    return owned.map(({ name, currentValue }) => [name, currentValue]);
  };
  await vi.waitFor(async () => {
    for (const standby of standbys) {
      expect(await ask(standby, `select from policy.risk_ceilings where current_value = 42`)).toHaveLength(1);
    }
  }, patient);
  await Promise.all(standbys.map(pause));
  await sidecar.sql(`update policy.risk_ceilings set current_value = 2 where tenant_id = 'ours'`);
  await vi.waitFor(async () => {
    for (const consistency of [token, 'eventual', token]) expect(await of(consistency)).toEqual([['of ours', 1]]);
  }, patient);
  expect(await of('strong')).toEqual([['of ours', 2]]);
  await Promise.all(standbys.map(resume));
});

test('writers who read with their tokens never see less than they have written', async () => {
  const rows = await sidecar.sql<{ id: string }>(
    `insert into policy.risk_ceilings (id, name, metric, window_seconds, max_value, current_value, is_active, created_at)
     select gen_random_uuid(), 'replicas ' || n, 'm', 60, 1000000, 0, true, now() from generate_series(1, 6) n returning id`,
  );
  let meddling = true;
  const meddle = (async () => {
    for (let turn = 0; meddling; turn += 1) {
      const standby = standbys[turn % 2]!;
      await pause(standby);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await resume(standby);
    }
  })();
  await Promise.all(
    rows.map(async ({ id }, index) => {
      const caller = sidecar.callers[index % 2]!;
      for (let value = 1; value <= 15; value += 1) {
        const token = await write(caller, value, id, WAYS[(value + index) % WAYS.length]);
        const seen = await Promise.all([read(caller, token, id), read(sidecar.grpc, token, id)]);
        expect(seen).toEqual([value, value]);
      }
    }),
  );
  meddling = false;
  await meddle;
}, 60_000);

test('a read that is in the way of the replay is run again at the primary', async () => {
  const rules = (await sidecar.grpc.unary(rpc.fetchSafetyRules, {})).safetyRules;
  await sidecar.sql('alter table policy.safety_rules rename to rules_before');
  await sidecar.sql(
    `create view policy.safety_rules as
     select r.* from policy.rules_before r, lateral (select pg_sleep(case when pg_is_in_recovery() then 600 else 0 end)) s`,
  );
  await vi.waitFor(async () => {
    for (const standby of standbys) await ask(standby, 'select from policy.safety_rules limit 0');
  }, patient);
  const reading = sidecar.grpc.unary(rpc.fetchSafetyRules, {}, { headers: { consistency: 'eventual' } });
  await vi.waitFor(async () => {
    const sleeping = await Promise.all(
      standbys.map((standby) => ask(standby, `select from pg_stat_activity where wait_event = 'PgSleep'`)),
    );
    expect(sleeping.flat().length).toBeGreaterThan(0);
  }, patient);
  // It would go on for ten minutes there.
  await sidecar.sql('delete from policy.violations');
  await sidecar.sql('vacuum policy.violations');
  expect((await reading).safetyRules).toEqual(rules);
  expect(rules.length).toBeGreaterThan(0);
  await sidecar.sql('drop view policy.safety_rules');
  await sidecar.sql('alter table policy.rules_before rename to safety_rules');
}, 30_000);

test('a standby that stands still or dies costs no error, and is read again when it is back', async () => {
  let going = true;
  let reads = 0;
  const stream = Promise.all(
    Array.from({ length: 4 }, async () => {
      while (going) {
        const token = await write(sidecar.grpc, 50);
        expect(await read(sidecar.grpc, token)).toBe(50);
        expect(await read(sidecar.grpc, 'eventual')).toBe(50);
        reads += 2;
      }
    }),
  );
  await write(sidecar.grpc, 50);
  const [still, dead] = standbys as [Cluster, Cluster];
  const isLeftOut = (replica: Cluster) => {
    const { leftOut } = newsOf(sidecar, replica);
    return () => vi.waitFor(() => expect(newsOf(sidecar, replica).leftOut).toBeGreaterThan(leftOut), patient);
  };
  const isReadAgain = (replica: Cluster) =>
    vi.waitFor(() => expect(newsOf(sidecar, replica).last).toBe(IS_READ), patient);
  const stood = isLeftOut(still);
  still.freeze();
  await stood();
  still.thaw();
  await isReadAgain(still);
  const died = isLeftOut(dead);
  dead.crash();
  await died();
  await Promise.all(standbys.map(isReadAgain));
  going = false;
  await stream;
  expect(reads).toBeGreaterThan(0);
  expect((await sidecar.grpc.unary(Health.method.check, { service: '' })).status).toBe(SERVING);
}, 60_000);

test('while the primary stands still, what need not be its latest is still read', async () => {
  await settlesAt(sidecar.grpc, 50, 'eventual');
  primary.freeze();
  for (let turn = 0; turn < 6; turn += 1) expect(await read(sidecar.grpc, 'eventual')).toBe(50);
  primary.thaw();
  await vi.waitFor(() => sidecar.grpc.unary(rpc.updateRiskCeiling, change(51), single), patient);
});

test('a standby that lags too much is left out until it has caught up', async () => {
  const strict = await startReading({ replicaMaxLagMs: 1_000 });
  await Promise.all(standbys.map(pause));
  await strict.grpc.unary(rpc.updateRiskCeiling, change(60), single);
  await vi.waitFor(() => {
    const problems = said(strict, LEFT_OUT).map((line) => line['problem']);
    expect(problems.filter((problem) => /lags/.test(String(problem)))).toHaveLength(2);
  }, patient);
  expect(await read(strict.grpc, 'eventual')).toBe(60);
  await Promise.all(standbys.map(resume));
  await bothRead(strict, 4);
});

test('a standby that is promoted is left out, and nobody is told anything old by it', async () => {
  const promoted = standbys[1]!;
  await ask(promoted, 'select pg_promote()');
  await ask(promoted, `update policy.risk_ceilings set current_value = -1 where id = '${ceilingId}'`);
  for (let value = 70; value < 80; value += 1) {
    const token = await write(sidecar.grpc, value);
    expect(await read(sidecar.grpc, token)).toBe(value);
  }
  await vi.waitFor(() => {
    const line = said(sidecar, LEFT_OUT).at(-1);
    expect(line).toMatchObject({ problem: 'it is no standby', level: 'warn' });
    expect(line?.['replica']).toContain(portOf(promoted));
  }, patient);
  await settlesAt(sidecar.grpc, 79, 'eventual');
  expect((await sidecar.grpc.unary(Health.method.check, { service: '' })).status).toBe(SERVING);
});

test('after a failover a token of the new primary is honoured by who follows it, and by nobody else', async () => {
  const next = await primary.standby(between.port);
  endings.push(next.stop);
  const network = await startNetwork(primary.url);
  endings.push(network.close);
  const [left] = standbys as [Cluster, Cluster];
  const moved = await startTestSidecar({ replicaUrls: [left.url, next.url] }, network.url);
  endings.push(moved.stop);
  await bothRead(moved);
  const before = await write(moved.grpc, 90);
  primary.freeze();
  await ask(next, 'select pg_promote()');
  for (const way of [between, network]) {
    way.redirect(next.url);
    way.cut();
  }
  let token = '';
  await vi.waitFor(async () => {
    token = await write(moved.grpc, 91);
  }, patient);
  const timeline = (of: string): string => of.split('-')[1]!;
  expect(timeline(token) > timeline(before)).toBe(true);
  for (const consistency of [token, 'strong']) expect(await read(moved.grpc, consistency)).toBe(91);
  expect([90, 91]).toContain(await read(moved.grpc, before));

  // Which timeline a standby is on is in its control file from its next restart point.
  await ask(next, 'checkpoint');
  await vi.waitFor(async () => {
    await ask(left, 'checkpoint');
    const [row] = await ask(left, 'select timeline_id from pg_control_checkpoint()');
    expect(row!['timeline_id']).toBe(Number.parseInt(timeline(token), 16));
  }, patient);
  await vi.waitFor(() => expect(said(moved, LEFT_OUT).at(-1)?.['problem']).toBe('it is no standby'), patient);
  // One that has followed sooner than the sidecar is read again as soon as it is seen to be recent.
  let value = 91;
  await vi.waitFor(async () => {
    await resume(left);
    value += 1;
    const at = await write(moved.grpc, value);
    await vi.waitFor(async () => expect(await ceilingAt(left)).toBe(value), patient);
    await pause(left);
    await write(moved.grpc, value + 1);
    for (let turn = 0; turn < 6; turn += 1) expect(await read(moved.grpc, at)).toBe(value);
  }, patient);
  expect(await read(moved.grpc)).toBe(value + 1);

  // The primary of before does not know that it is none any more: what it goes on to write is nowhere else.
  primary.thaw();
  await vi.waitFor(() => write(sidecar.grpc, 93), patient);
  await vi.waitFor(() => {
    const problems = said(sidecar, LEFT_OUT).map((line) => line['problem']);
    expect(problems.at(-1)).toBe('it follows another primary than DATABASE_URL');
  }, patient);
  expect(await read(sidecar.grpc, await write(sidecar.grpc, 94))).toBe(94);
  await resume(left);

  // Until that is noticed each read finds it out by itself.
  const target = readTarget(left.url);
  const lane = { max: 1, queue: 1, waitMs: 10_000 };
  const clocks = { statementMs: 60_000, lockMs: 5_000, pooler: 'auto' } as const;
  const server = new ServerState(clocks);
  const lanes = [0, 1].map(() => new Lane('test', { target, ...clocks }, server, lane)) as [Lane, Lane];
  const replica = new Replica('left', server, lanes, () => {});
  const answersOf = async (primaryAt: string): Promise<unknown> => {
    const needed = { mark: { ...readMark(before)!, position: 1n }, timeline: readMark(primaryAt)!.timeline };
    const session = new ReplicaSession(replica, needed, { signal: undefined, notes: new CallNotes() });
    return session.rows(anything, []).catch(() => session.behind);
  };
  expect(await answersOf(token)).toEqual([['1']]);
  expect(await answersOf(before)).toBe(true);
  await replica.end();
  replica.destroy(new Error('the test is over'));
}, 60_000);
