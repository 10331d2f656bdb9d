import { randomUUID } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { Health, HealthCheckResponse_ServingStatus as Status } from '../../src/gen/grpc/health/v1/health_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { PolicyReadService } from '../../src/gen/hoc/cus/policies/v1/policy_read_pb.ts';
import { ProposalsReadService } from '../../src/gen/hoc/cus/policies/v1/proposals_read_pb.ts';
import { Outcome, TransactionService, TransactionState } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { type CallError, refusal } from '../support/client.ts';
import { type Locked, whileLocked } from '../support/locked.ts';
import { startTestSidecar } from '../support/sidecar.ts';
import { useClient, useSidecar } from '../support/use.ts';
import { violation } from '../support/violation.ts';
import { WAITING_FOR_LOCK } from '../support/waiting.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

const sidecar = useSidecar();
/** A person at the database, whose session keeps its own settings. */
const person = useClient(() => sidecar.url);
let ceilingId: string;
beforeAll(async () => {
  const { rows } = await person.query('select id from policy.risk_ceilings limit 1');
  ceilingId = rows[0].id;
});

/** Runs SQL with %I standing for the database. */
const alter = (text: string) =>
  person.query(`do $do$ begin execute format($sql$${text}$sql$, current_database()); end $do$`);

/** Ends the backends of a lane, so that the next ones begin with the settings of by then. */
const reconnect = async (lane = '%') => {
  const { rows } = await person.query(
    `select pg_terminate_backend(pid, 5000) from pg_stat_activity
     where datname = current_database() and application_name like 'policy-sidecar ' || $1`,
    [lane],
  );
  return rows.length;
};

const locked = (work: Locked): Promise<void> =>
  whileLocked(person, 'lock table policy.risk_ceilings in access exclusive mode', work);

const waitingForLock = async (): Promise<number[]> => {
  const rows = await sidecar.sql<{ pid: number }>(WAITING_FOR_LOCK);
  return rows.map(({ pid }) => pid);
};

const read = (init = {}) => sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, init);
const reset = (transaction: string, on = sidecar) =>
  on.grpc.unary(rpc.resetRiskCeiling, { ceilingId }, { transaction });
const begin = async (request: object = {}, on = sidecar) => (await on.grpc.unary(tx.begin, request)).transaction!.id!;
const rollBack = (transactionId: string, on = sidecar) => on.grpc.unary(tx.rollback, { transactionId });
const stateOf = async (transactionId: string) =>
  (await sidecar.grpc.unary(tx.get, { transactionId })).transaction!.state;

/** What is left when a statement inside an open transaction has been refused: the transaction, to be rolled back. */
const inTransaction = async (work: (id: string) => Promise<unknown>): Promise<CallError> => {
  const id = await begin();
  const error = await refusal(work(id));
  expect(await stateOf(id)).toBe(TransactionState.FAILED);
  expect((await rollBack(id)).state).toBe(TransactionState.ROLLED_BACK);
  return error;
};

const calls: readonly [name: string, call: () => Promise<CallError>][] = [
  ['a lone read', () => refusal(read())],
  ['a single-use write', () => refusal(reset('single-use'))],
  ['a write inside an open transaction', () => inTransaction(reset)],
  ['a read inside an open transaction', () => inTransaction((transaction) => read({ transaction }))],
];

const works = async (): Promise<void> => {
  expect((await read()).riskCeilings.length).toBeGreaterThan(0);
  expect((await reset('single-use')).rowsAffected).toBe(1n);
  const id = await begin();
  expect((await reset(id)).rowsAffected).toBe(1n);
  await rollBack(id);
};

// Story: the server's own statement_timeout came back as CANCELLED, as if the caller had left.
describe("the server's own statement_timeout", () => {
  beforeAll(async () => {
    await alter(`alter role current_user in database %I set statement_timeout = '400ms'`);
    await reconnect();
  });
  afterAll(async () => {
    await alter('alter role current_user in database %I reset statement_timeout');
    await reconnect();
    await works();
  });

  test.each(calls)('is a timeout for %s', async (_name, call) => {
    await locked(async () => {
      expect(await call()).toMatchObject({
        code: 'DEADLINE_EXCEEDED',
        reason: 'STATEMENT_TIMEOUT',
        metadata: { sqlstate: '57014' },
      });
    });
    await works();
  });
});

// Story: somebody at the database cancelled a statement, and its caller was told that it had left itself.
test.each(calls)(
  'a cancel by somebody at the database says so, and that %s may be tried again',
  async (_name, call) => {
    await locked(async () => {
      const answer = call();
      const pids = await vi.waitFor(async () => {
        const waiting = await waitingForLock();
        expect(waiting).toHaveLength(1);
        return waiting;
      });
      await person.query('select pg_cancel_backend($1)', pids);
      const error = await answer;
      expect(error).toMatchObject({ code: 'ABORTED', reason: 'STATEMENT_CANCELLED' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
    });
    await works();
  },
);

// Story: writes that waited for one row waited for as long as its lock lasted, and everybody behind them.
test('a wait for a lock is bounded, and its end is a conflict', async () => {
  const own = await startTestSidecar({ lockTimeoutMs: 200 }, sidecar.url);
  try {
    await locked(async () => {
      for (const transaction of ['single-use', await begin({}, own)]) {
        const error = await refusal(reset(transaction, own));
        expect(error).toMatchObject({ code: 'ABORTED', reason: 'LOCK_NOT_AVAILABLE' });
        expect(error.retryAfterMs).toBeGreaterThan(0);
      }
      expect(await refusal(own.grpc.unary(rpc.fetchRiskCeilings, {}))).toMatchObject({ reason: 'LOCK_NOT_AVAILABLE' });
    });
    expect((await reset('single-use', own)).rowsAffected).toBe(1n);
  } finally {
    await own.stop();
  }
});

// Story: a provider ends idle transactions by itself; the caller must hear that its transaction is gone.
test("the server's idle_in_transaction_session_timeout loses a transaction, and says so", async () => {
  await alter(`alter database %I set idle_in_transaction_session_timeout = '2s'`);
  await reconnect('transaction');
  try {
    const id = await begin();
    await reset(id);
    await vi.waitFor(async () => expect((await sidecar.grpc.unary(tx.list, {})).transactions).toEqual([]));
    for (const call of [() => reset(id), () => sidecar.grpc.unary(tx.commit, { transactionId: id })]) {
      expect(await refusal(call())).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TRANSACTION_LOST' });
    }
    expect((await rollBack(id)).state).toBe(TransactionState.LOST);
    const { outcome } = await sidecar.grpc.unary(tx.getOutcome, { subject: { case: 'transactionId', value: id } });
    expect(outcome).toBe(Outcome.ABORTED);
  } finally {
    await alter('alter database %I reset idle_in_transaction_session_timeout');
    await reconnect('transaction');
  }
  await works();
});

// Story: providers make a database read-only when its disk is full; our BEGIN said READ WRITE and wrote on.
test('a database that is made read-only takes no writes, says so to readiness, and heals', async () => {
  const health = async (service: string) => (await sidecar.grpc.unary(Health.method.check, { service })).status;
  const readers = [PolicyReadService.typeName, ProposalsReadService.typeName];
  const writers = ['', PolicyEngineService.typeName, TransactionService.typeName];
  // Several connections a lane: each of them must heal.
  const fill = async () => {
    const ids = await Promise.all(Array.from({ length: 4 }, () => begin({ readOnly: true })));
    await Promise.all([...Array.from({ length: 8 }, () => read()), ...ids.map((transaction) => read({ transaction }))]);
    await Promise.all(ids.map((id) => rollBack(id)));
  };
  await fill();
  await alter('alter database %I set default_transaction_read_only = on');
  try {
    expect(await reconnect()).toBeGreaterThan(3);
    for (const call of [() => reset('single-use'), () => begin(), () => sidecar.grpc.unary(tx.execute, execution())]) {
      const error = await refusal(call());
      expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'READ_ONLY_DATABASE' });
      expect(error.retryAfterMs).toBeGreaterThan(0);
    }
    await vi.waitFor(
      async () => {
        for (const service of writers) expect(await health(service)).toBe(Status.NOT_SERVING);
      },
      { timeout: 6_000, interval: 50 },
    );
    for (const service of readers) expect(await health(service)).toBe(Status.SERVING);
    expect((await read()).riskCeilings.length).toBeGreaterThan(0);
    const id = await begin({ readOnly: true });
    expect((await read({ transaction: id })).riskCeilings.length).toBeGreaterThan(0);
    expect(await refusal(reset(id))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'READ_ONLY_TRANSACTION' });
    await rollBack(id);
    await fill();
  } finally {
    await alter('alter database %I reset default_transaction_read_only');
  }
  await vi.waitFor(
    async () => {
      for (const service of [...writers, ...readers]) expect(await health(service)).toBe(Status.SERVING);
    },
    { timeout: 6_000, interval: 50 },
  );
  // Whoever believes readiness must not meet what is left of the time before.
  await Promise.all(
    Array.from({ length: 12 }, () =>
      sidecar.grpc.unary(rpc.insertViolation, violation(), { transaction: 'single-use' }),
    ),
  );
  const ids = await Promise.all(Array.from({ length: 4 }, () => begin()));
  await Promise.all(ids.map((id) => rollBack(id)));
});

const execution = () => ({
  operations: [{ request: { case: 'resetRiskCeiling' as const, value: { ceilingId } } }],
});

test('a write in a transaction begun as read-only is the fault of its caller', async () => {
  const id = await begin({ readOnly: true });
  expect(await refusal(reset(id))).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'READ_ONLY_TRANSACTION' });
  await rollBack(id);
  await works();
});

// Story: a sum of what was stored did not fit, and the caller was told that its value cannot be stored. No statement is
// known any more that what is stored can break: here a view in the place of a table does.
test('a read that cannot work with what is stored does not blame its request', async () => {
  const { rows } = await person.query<{ name: string }>(
    `select attname as name from pg_attribute where attrelid = 'policy.risk_ceilings'::regclass and attnum > 0 order by attnum`,
  );
  const columns = rows.map(({ name }) =>
    name === 'created_at' ? `now() + 1 / (length(id::text) * 0) * interval '1 s' as created_at` : `"${name}"`,
  );
  await person.query('alter table policy.risk_ceilings rename to real_risk_ceilings');
  await person.query(`create view policy.risk_ceilings as select ${columns.join(', ')} from policy.real_risk_ceilings`);
  await person.query('grant select on policy.risk_ceilings to public');
  try {
    const read = (init = {}) => sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, init);
    const error = await refusal(read());
    expect(error).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason: 'UNUSABLE_VALUE',
      metadata: { sqlstate: '22012' },
    });
    expect(error.message).not.toContain('cannot be stored');
    expect(await inTransaction((transaction) => read({ transaction }))).toMatchObject({ reason: 'UNUSABLE_VALUE' });
  } finally {
    await person.query('drop view policy.risk_ceilings');
    await person.query('alter table policy.real_risk_ceilings rename to risk_ceilings');
  }
});

/** What a database may say of any statement, and what its caller is told. */
const REFUSALS = [
  ['23502', 'INVALID_ARGUMENT', 'NOT_NULL_VIOLATION'],
  ['23503', 'FAILED_PRECONDITION', 'FOREIGN_KEY_VIOLATION'],
  // Of a key that restricts, from PostgreSQL 18 on.
  ['23001', 'FAILED_PRECONDITION', 'FOREIGN_KEY_VIOLATION'],
  ['23505', 'ALREADY_EXISTS', 'UNIQUE_VIOLATION'],
  ['23P01', 'ALREADY_EXISTS', 'UNIQUE_VIOLATION'],
  ['23514', 'INVALID_ARGUMENT', 'CHECK_VIOLATION'],
  ['22003', 'INVALID_ARGUMENT', 'INVALID_VALUE'],
  ['42501', 'PERMISSION_DENIED', 'DATABASE_PERMISSION_DENIED'],
  ['42P01', 'FAILED_PRECONDITION', 'SCHEMA_OUTDATED'],
  ['42703', 'FAILED_PRECONDITION', 'SCHEMA_OUTDATED'],
  ['42883', 'FAILED_PRECONDITION', 'SCHEMA_OUTDATED'],
  ['54000', 'INVALID_ARGUMENT', 'LIMIT_EXCEEDED'],
  ['54001', 'INVALID_ARGUMENT', 'LIMIT_EXCEEDED'],
  ['53100', 'RESOURCE_EXHAUSTED', 'DATABASE_RESOURCES'],
  ['53200', 'RESOURCE_EXHAUSTED', 'DATABASE_RESOURCES'],
  ['40001', 'ABORTED', 'SERIALIZATION_FAILURE'],
  ['40P01', 'ABORTED', 'DEADLOCK_DETECTED'],
  ['55P03', 'ABORTED', 'LOCK_NOT_AVAILABLE'],
  ['25P03', 'UNAVAILABLE', 'DATABASE_SESSION_TIMEOUT'],
  // A trigger of the platform that raises was INTERNAL.
  ['P0001', 'FAILED_PRECONDITION', 'DATABASE_REFUSED'],
  ['0A000', 'FAILED_PRECONDITION', 'DATABASE_REFUSED'],
  ['XX000', 'INTERNAL', 'INTERNAL'],
] as const;

describe('what the database refuses has a meaning', () => {
  beforeAll(() =>
    person.query(`create function refuses() returns trigger language plpgsql as
      $$ begin raise exception 'no' using errcode = tg_argv[0], constraint = 'a_constraint', column = 'a_column'; end $$`),
  );
  afterAll(() => person.query('drop function refuses'));

  test.each(REFUSALS)('%s is %s %s, alone and inside an open transaction', async (sqlstate, code, reason) => {
    await person.query(`create trigger refuses before update on policy.risk_ceilings
      for each row execute function refuses('${sqlstate}')`);
    try {
      for (const error of [await refusal(reset('single-use')), await inTransaction(reset)]) {
        expect(error).toMatchObject({ code, reason });
        expect(error.retryAfterMs !== undefined).toBe(['ABORTED', 'RESOURCE_EXHAUSTED', 'UNAVAILABLE'].includes(code));
        if (reason === 'INTERNAL') continue;
        expect(error.metadata).toMatchObject({ sqlstate, constraint: 'a_constraint', column: 'a_column' });
      }
    } finally {
      await person.query('drop trigger refuses on policy.risk_ceilings');
    }
    await works();
  });
});

/** A relay to PostgreSQL through which somebody else can speak on idle connections, unheard by their owner. */
const relayTo = async (url: string) => {
  const { hostname, port } = new URL(url);
  const servers = new Map<Socket, ((chunk: Buffer) => void) | undefined>();
  const listener = createServer((client) => {
    const server = connect(Number(port), hostname);
    client.once('data', (hello: Buffer) => {
      // Health asks when it likes, on connections of its own: an answer to it must not be taken for one to somebody else.
      if (!hello.includes('policy-sidecar reserve')) servers.set(server, undefined);
    });
    client.on('data', (chunk) => server.write(chunk));
    server.on('data', (chunk: Buffer) => (servers.get(server) ?? ((own: Buffer) => client.write(own)))(chunk));
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on('error', () => {});
      one.on('close', () => {
        servers.delete(server);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const relayed = new URL(url);
  relayed.port = String((listener.address() as AddressInfo).port);
  return {
    url: relayed.href,
    /** Runs SQL on every connection; returns how many there are. */
    say: async (text: string) => {
      const query = Buffer.from(`Q\0\0\0\0${text}\0`);
      query.writeUInt32BE(query.length - 1, 1);
      const each = [...servers.keys()].map(
        (server) =>
          new Promise<void>((resolve) => {
            let heard = Buffer.alloc(0);
            servers.set(server, (chunk) => {
              heard = Buffer.concat([heard, chunk]);
              if (heard.subarray(-6).toString('latin1') !== 'Z\0\0\0\x05I') return;
              servers.set(server, undefined);
              resolve();
            });
            server.once('close', resolve);
            server.write(query);
          }),
      );
      await Promise.all(each);
      return each.length;
    },
    close: () => {
      for (const server of servers.keys()) server.destroy();
      listener.close();
    },
  };
};

// Story: somebody tidied up sessions (`discard all`), and leased transactions failed for as long as the backend lived.
// What a session forgets with its statements are its settings: doubles would have lost their digits after that.
test.each(['deallocate all', 'discard all'])(
  '%s behind our back costs one refusal at most, and no digits',
  async (text) => {
    const relay = await relayTo(sidecar.url);
    const own = await startTestSidecar({}, relay.url);
    const severity = 0.1 + 0.2;
    const written = { ...violation(), severity, description: randomUUID() };
    const refused: CallError[] = [];
    const tried = async <T>(call: Promise<T>): Promise<T | undefined> => {
      try {
        return await call;
      } catch (error) {
        refused.push(error as CallError);
        return undefined;
      }
    };
    const readBack = async (init = {}) => {
      const { violations } = await own.grpc.unary(rpc.fetchViolations, {}, init);
      expect(violations.find(({ description }) => description === written.description)?.severity).toBe(severity);
    };
    const leased = async () => {
      const id = await begin({}, own);
      await tried(readBack({ transaction: id }));
      await rollBack(id, own);
    };
    try {
      await own.grpc.unary(rpc.insertViolation, written, { transaction: 'single-use' });
      for (let turn = 0; turn < 3; turn += 1) {
        await Promise.all([readBack(), readBack(), readBack(), leased(), leased(), leased()]);
        await reset('single-use', own);
        expect(refused).toHaveLength(0);
        expect(await relay.say(text)).toBeGreaterThan(3);
        await leased();
        await Promise.all([readBack(), readBack(), readBack(), leased(), leased(), leased()]);
        await tried(reset('single-use', own));
        for (const error of refused.splice(0, 1)) {
          expect(error).toMatchObject({ code: 'ABORTED', reason: 'SCHEMA_CHANGED' });
          expect(error.retryAfterMs).toBeGreaterThan(0);
        }
        expect(refused).toHaveLength(0);
      }
      // A statement that is prepared again shows that nothing was given up for good.
      await readBack();
      expect(await relay.say('select 1')).toBeGreaterThan(0);
    } finally {
      await own.stop();
      relay.close();
    }
  },
);
