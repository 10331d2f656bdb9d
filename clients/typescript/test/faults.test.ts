import { execFile } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createConnectTransport } from '@connectrpc/connect-node';
import { connect as overConnect } from '@policy-sidecar/client/connect';
import {
  CancelledError,
  type Client,
  ConflictError,
  ConstraintError,
  connect,
  DeadlineError,
  InvalidRequestError,
  LimitError,
  SidecarError,
  type Transaction,
  UnauthenticatedError,
  UnavailableError,
} from '@policy-sidecar/client/grpc';
import { Outcome } from '@policy-sidecar/client/messages';
import { type Ephemeral, ephemeral } from '@policy-sidecar/client/testing';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { startProxy } from './support/proxy.ts';
import { isThere, violation } from './support/rows.ts';
import { ask, freePort, startSecond } from './support/sidecar.ts';

const PATIENCE = { timeout: 30_000 };
/** A sidecar listens before its database is ready, and a transaction that does not begin then is not tried again. */
const serves = (far: Client) => vi.waitFor(() => far.policyEngine.fetchRiskCeilings({}), PATIENCE);

let sidecar: Ephemeral;
let client: Client;
beforeAll(async () => {
  sidecar = await ephemeral();
  client = connect(sidecar.grpc);
});
afterAll(async () => {
  client.close();
  await sidecar.stop();
});

const WAYS = ['gRPC', 'Connect'] as const;
type Way = (typeof WAYS)[number];

const target = (way: Way): string => (way === 'gRPC' ? sidecar.grpc : sidecar.http);

const over = (way: Way, address: string): Client =>
  way === 'gRPC'
    ? connect(address)
    : overConnect(createConnectTransport({ baseUrl: `http://${address}`, httpVersion: '1.1' }));

describe.each(WAYS)('over %s', (way) => {
  test('a commit whose answer is lost counts when it was done', async () => {
    await using proxy = await startProxy(target(way));
    using far = over(way, proxy.address);
    const row = violation();
    const work = far.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      proxy.lose('answers');
    });
    await vi.waitFor(async () => expect(await isThere(client, row.violationId)).toBe(true), PATIENCE);
    proxy.cut();
    await work;
  });

  test('a commit that never arrived is a conflict, which `run` tries again', async () => {
    await using proxy = await startProxy(target(way));
    using far = over(way, proxy.address);
    const lose = (): void => {
      proxy.lose('requests');
      setTimeout(() => proxy.cut(), 100);
    };
    const lost = far.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(violation());
      lose();
    });
    await expect(lost).rejects.toThrow(ConflictError);

    const row = violation();
    let attempts = 0;
    await far.run(async (tx) => {
      attempts += 1;
      await tx.policyEngine.insertViolation(row);
      if (attempts === 1) lose();
    });
    expect(attempts).toBe(2);
    expect(await isThere(client, row.violationId)).toBe(true);
  });

  test('a single-use write whose answer is lost is asked for again, and takes effect once', async () => {
    await using proxy = await startProxy(target(way));
    using far = over(way, proxy.address);
    await far.policyEngine.fetchPolicyVersions({});
    const row = violation();
    proxy.lose('answers');
    const work = far.singleUse.policyEngine.insertViolation(row);
    await vi.waitFor(async () => expect(await isThere(client, row.violationId)).toBe(true), PATIENCE);
    proxy.cut();
    // A second insertion of it would be refused.
    expect(await work).toMatchObject({ rowsAffected: 1n });
  });

  test('a single-use write that is never answered names the key by which to ask for it, and to repeat it', async () => {
    await using proxy = await startProxy(target(way));
    using far = over(way, proxy.address);
    await far.policyEngine.fetchPolicyVersions({});
    const row = violation();
    const leaving = new AbortController();
    proxy.lose('answers');
    const work = far.singleUse.policyEngine.insertViolation(row, { signal: leaving.signal });
    const left = work.catch((reason: unknown) => reason);
    await vi.waitFor(async () => expect(await isThere(client, row.violationId)).toBe(true), PATIENCE);
    leaving.abort();
    const { idempotencyKey = '' } = (await left) as SidecarError;
    expect(await client.outcome({ case: 'idempotencyKey', value: idempotencyKey })).toBe(Outcome.COMMITTED);
    // A second insertion of it would be refused.
    const again = await client.singleUse.policyEngine.insertViolation(row, { idempotencyKey });
    expect(again).toMatchObject({ rowsAffected: 1n });
  });

  test('a part that cannot be undone takes all with it, which a block that ends well does not hide', async () => {
    using near = over(way, target(way));
    const row = violation();
    const work = near.transaction(async (tx) => {
      await tx.policyEngine.insertViolation(row);
      const optional = tx.savepoint(async () => {
        await tx.policyEngine.insertViolation(violation());
        // As by a release whose answer is lost.
        await ask(sidecar, 'TransactionService/ReleaseSavepoint', { transactionId: tx.id, name: 'sp_1' });
        throw new RangeError('not so');
      });
      await expect(optional).rejects.toThrow(RangeError);
    });
    await expect(work).rejects.toMatchObject({ reason: 'SAVEPOINT_UNKNOWN' });
    expect(await isThere(client, row.violationId)).toBe(false);
  });

  test('a transaction whose preparation is not answered is rolled back, prepared as it is', async () => {
    await using proxy = await startProxy(target(way));
    using far = over(way, proxy.address);
    let lost = '';
    const work = far.transaction(async (tx) => {
      lost = tx.id;
      await tx.policyEngine.insertViolation(violation());
      proxy.lose('answers');
      await tx.prepare();
    });
    const ids = async () => (await client.listPrepared()).map(({ id }) => id);
    await vi.waitFor(async () => expect(await ids()).toContain(lost), PATIENCE);
    proxy.cut();
    await expect(work).rejects.toThrow(UnavailableError);
    expect(await ids()).not.toContain(lost);
  });
});

test('a sidecar that is killed amid a transaction is told, and serves again when it is back', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const first = startSecond(sidecar.database, address);
  using far = connect(address);
  const row = violation();
  await serves(far);
  const open = await far.transaction();
  await open.policyEngine.insertViolation(row);
  await first.kill();
  await expect(open.policyEngine.insertViolation(violation())).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await expect(open.commit()).rejects.toBeInstanceOf(SidecarError);

  await using _second = startSecond(sidecar.database, address);
  await serves(far);
  await far.transaction((tx) => tx.policyEngine.insertViolation(row));
  expect(await isThere(client, row.violationId)).toBe(true);
});

test('`run` survives a sidecar that is killed in its midst', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const first = startSecond(sidecar.database, address);
  using far = connect(address);
  const row = violation();
  const seconds: AsyncDisposable[] = [];
  await far.run(async (tx) => {
    await tx.policyEngine.insertViolation(row);
    if (seconds.length === 0) {
      await first.kill();
      seconds.push(startSecond(sidecar.database, address));
    }
  });
  expect(await isThere(client, row.violationId)).toBe(true);
  await seconds[0]![Symbol.asyncDispose]();
});

/** A block that does without its second row, before which something happens. */
const recording = (row: ReturnType<typeof violation>, happening: () => Promise<void>) => async (tx: Transaction) => {
  await tx.policyEngine.insertViolation(row);
  const optional = tx.savepoint(async () => {
    await happening();
    await tx.policyEngine.insertViolation(violation());
  });
  await optional.catch(() => {});
};

test('a sidecar that is killed in a part which a block does without takes all with it, and the caller is told', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const first = startSecond(sidecar.database, address);
  using far = connect(address);
  const row = violation();
  await serves(far);
  await expect(far.transaction(recording(row, () => first.kill()))).rejects.toThrow(UnavailableError);
  expect(await isThere(client, row.violationId)).toBe(false);
});

test('`run` survives a sidecar that is killed in a part which its block does without', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  const first = startSecond(sidecar.database, address);
  using far = connect(address);
  const row = violation();
  const seconds: AsyncDisposable[] = [];
  const kill = async (): Promise<void> => {
    if (seconds.length > 0) return;
    await first.kill();
    seconds.push(startSecond(sidecar.database, address));
  };
  await far.run(recording(row, kill));
  expect(await isThere(client, row.violationId)).toBe(true);
  await seconds[0]![Symbol.asyncDispose]();
});

test('a part that is refused for the limit of calls is undone, and the rest is committed', async () => {
  const address = `127.0.0.1:${await freePort()}`;
  // Whether it serves, beginning, first row and savepoint.
  await using _second = startSecond(sidecar.database, address, { SIDECAR_CALLS_PER_SECOND: '4' });
  using far = connect(address);
  const row = violation();
  await serves(far);
  await far.transaction(async (tx) => {
    await tx.policyEngine.insertViolation(row);
    const many = Array.from({ length: 20 }, () => violation());
    const optional = tx.savepoint(() => Promise.all(many.map((each) => tx.policyEngine.insertViolation(each))));
    await expect(optional).rejects.toThrow(LimitError);
  });
  expect(await isThere(client, row.violationId)).toBe(true);
});

test('errors are of the class of their reason and bring what a program asks for', async () => {
  const error = await client.singleUse.policyEngine
    .insertViolation({ ...violation('no-uuid'), severity: Number.NaN })
    .catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(InvalidRequestError);
  expect(error).toMatchObject({
    name: 'InvalidRequestError',
    code: 'INVALID_ARGUMENT',
    reason: 'INVALID_REQUEST',
    retriable: false,
    idempotencyKey: undefined,
  });
  expect((error as SidecarError).violations.map(({ field }) => field).sort()).toEqual(['severity', 'violation_id']);

  const row = violation();
  await client.singleUse.policyEngine.insertViolation(row);
  const twice = await client.singleUse.policyEngine.insertViolation(row).catch((reason: unknown) => reason);
  expect(twice).toBeInstanceOf(ConstraintError);
  expect((twice as ConstraintError).constraint).toMatch(/pkey/);

  const operation = { expectedRows: 2n, request: { case: 'insertViolation', value: violation() } } as const;
  await expect(client.execute([operation])).rejects.toMatchObject({
    reason: 'UNEXPECTED_ROW_COUNT',
    metadata: { expected: '2', found: '1' },
    preconditions: [expect.objectContaining({ description: expect.any(String) })],
  });
});

test('a stream that is left early is cancelled', async () => {
  const description = 'd'.repeat(3_000);
  const rows = Array.from({ length: 1_000 }, () => ({ ...violation(), description }));
  await client.execute(rows.map((value) => ({ request: { case: 'insertViolation', value } })));
  const streams = async (): Promise<number> => {
    const text = JSON.stringify(await ask(sidecar, 'TransactionService/List'));
    return text.split('StreamViolations').length - 1;
  };
  let seen = 0;
  for await (const { violation: found } of client.policyEngine.streamViolations({})) {
    expect(found?.id).toBeDefined();
    seen += 1;
    expect(await streams()).toBeGreaterThan(0);
    break;
  }
  expect(seen).toBe(1);
  await vi.waitFor(async () => expect(await streams()).toBe(0), PATIENCE);
});

test('a deadline and a signal end a call that waits for a lock', async () => {
  const row = violation();
  await client.singleUse.policyEngine.insertViolation(row);
  await using tx = await client.transaction();
  await tx.policyEngine.updateViolationAcknowledged({ violationId: row.violationId });
  const wait = (options: object) =>
    client.singleUse.policyEngine.updateViolationAcknowledged({ violationId: row.violationId }, options);
  const idempotencyKey = randomUUID();
  const late = await wait({ timeoutMs: 200, idempotencyKey }).catch((reason: unknown) => reason);
  expect(late).toBeInstanceOf(DeadlineError);
  expect(late).toMatchObject({ idempotencyKey });
  const outcome = () => client.outcome({ case: 'idempotencyKey', value: idempotencyKey });
  await vi.waitFor(async () => expect(await outcome()).toBe(Outcome.ABORTED), PATIENCE);
  const stopped = await wait({ signal: AbortSignal.timeout(200) }).catch((reason: unknown) => reason);
  expect(stopped).toBeInstanceOf(CancelledError);
  expect((stopped as CancelledError).cause).toMatchObject({ name: 'TimeoutError' });
});

test('the signal of a transaction ends it and its calls', async () => {
  const controller = new AbortController();
  const row = violation();
  const tx = await client.transaction({ signal: controller.signal });
  await tx.policyEngine.insertViolation(row);
  controller.abort();
  await expect(tx.policyEngine.insertViolation(violation())).rejects.toThrow(CancelledError);
  await expect(tx.commit()).rejects.toThrow(CancelledError);
  expect(await isThere(client, row.violationId)).toBe(false);
});

test('a client that is closed leaves no transaction open', async () => {
  const closed = connect(sidecar.grpc);
  const tx = await closed.transaction({ label: 'of a closed client' });
  await tx.policyEngine.insertViolation(violation());
  closed.close();
  await expect(tx.commit()).rejects.toThrow(CancelledError);
  await expect(closed.policyEngine.fetchViolations({})).rejects.toThrow(CancelledError);
  const open = async (): Promise<string> => JSON.stringify(await ask(sidecar, 'TransactionService/List'));
  await vi.waitFor(async () => expect(await open()).not.toContain('of a closed client'), PATIENCE);
});

test('a token is sent, over a socket file, too', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-client-'));
  const token = randomUUID();
  const tokens = join(folder, 'tokens');
  await writeFile(tokens, `engine: ${createHash('sha256').update(token).digest('hex')}\n`);
  const address = `unix:${join(folder, 'sidecar.sock')}`;
  {
    await using _second = startSecond(sidecar.database, address, { SIDECAR_TOKENS_FILE: tokens });
    using stranger = connect(address);
    using known = connect(address, { token });
    await serves(known);
    await expect(stranger.policyEngine.fetchPolicyVersions({})).rejects.toThrow(UnauthenticatedError);
    await known.transaction((tx) => tx.policyEngine.insertViolation(violation()));
  }
  await rm(folder, { recursive: true });
});

const hasOpenssl = await promisify(execFile)('openssl', ['version']).then(
  () => true,
  () => false,
);

test.runIf(hasOpenssl)('TLS is spoken with the authority and the name that are given', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'policy-client-'));
  const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key, '-out', cert];
  const name = ['-subj', '/CN=sidecar', '-addext', 'subjectAltName=DNS:sidecar'];
  await promisify(execFile)('openssl', ['req', '-x509', ...kind, ...name]);
  const address = `127.0.0.1:${await freePort()}`;
  {
    await using _second = startSecond(sidecar.database, address, { SIDECAR_TLS_CERT: cert, SIDECAR_TLS_KEY: key });
    using trusting = connect(address, { tls: { ca: await readFile(cert), serverName: 'sidecar' } });
    using doubting = connect(address, { tls: true, timeoutMs: 2_000 });
    await serves(trusting);
    await trusting.transaction((tx) => tx.policyEngine.insertViolation(violation()));
    await expect(doubting.policyEngine.fetchViolations({})).rejects.toBeInstanceOf(SidecarError);
  }
  await rm(folder, { recursive: true });
});

test('the example engine evaluates and records', async () => {
  const env = { ...process.env, POLICY_SIDECAR: sidecar.grpc };
  const { stdout } = await promisify(execFile)(process.execPath, [join(import.meta.dirname, '../examples/engine.ts')], {
    env,
  });
  const { decision, evaluationId, violationId } = JSON.parse(stdout);
  expect(decision).toBe('block');
  const { evaluation } = await client.policyEngine.fetchEvaluationById({ evaluationId });
  expect(evaluation).toMatchObject({ decision: 'block' });
  expect(await isThere(client, violationId)).toBe(true);
});
