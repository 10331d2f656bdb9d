import { randomUUID } from 'node:crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import pg from 'pg';
import { describe, expect, test } from 'vitest';
import { jsonToValue } from '../../src/database/values.ts';
import type { OperationSchema } from '../../src/gen/hoc/cus/policies/v1/operation_pb.ts';
import { PolicyEngineService } from '../../src/gen/hoc/cus/policies/v1/policy_engine_pb.ts';
import { IsolationLevel, Outcome, TransactionService } from '../../src/gen/hoc/cus/policies/v1/transaction_pb.ts';
import { CallError } from '../support/client.ts';
import type { TestSidecar } from '../support/sidecar.ts';
import { useSidecar } from '../support/use.ts';

const rpc = PolicyEngineService.method;
const tx = TransactionService.method;

/** Set MODEL_SEED to repeat a run. */
const seed = Number(process.env['MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** mulberry32: small, seedable, good enough to choose the next step. */
const generator = (start: number) => {
  let state = start;
  return (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
};

const sidecar = useSidecar({ transactionsMax: 12, poolWaitMs: 10_000, poolQueue: 1000 });

/** Ends a transaction may be found to have come to behind its client's back. */
const ENDED = ['TRANSACTION_EXPIRED', 'TRANSACTION_LOST', 'TRANSACTION_OUTCOME_UNKNOWN'];

interface Savepoint {
  readonly name: string;
  readonly rows: readonly string[];
}

/** One client with one transaction at a time, and what its rows should be. */
class ModelClient {
  readonly #random: () => number;
  readonly #caller;
  readonly #name: string;
  readonly committed = new Set<string>();
  #id: string | undefined;
  #rows: string[] = [];
  #savepoints: Savepoint[] = [];
  #failed = false;
  steps = 0;
  ends = { committed: 0, rolledBack: 0, behind: 0 };

  constructor(caller: TestSidecar['grpc'], name: string, random: () => number) {
    this.#caller = caller;
    this.#name = name;
    this.#random = random;
  }

  async run(steps: number): Promise<void> {
    while (this.steps < steps) {
      this.steps += 1;
      await this.#step();
    }
    if (this.#id) await this.#finish();
  }

  async #step(): Promise<void> {
    if (!this.#id) return this.#begin();
    const dice = this.#random();
    if (this.#failed && dice < 0.6) return this.#backTo();
    if (dice < 0.45) return this.#insert();
    if (dice < 0.55) return this.#read();
    if (dice < 0.63) return this.#savepoint();
    if (dice < 0.71) return this.#backTo();
    if (dice < 0.75) return this.#collide();
    if (dice < 0.78) return this.#kill();
    if (dice < 0.82) return this.#dawdle();
    return this.#finish();
  }

  /** Runs a step; a transaction that ended behind our back is settled by asking how it ended. */
  async #attempt(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      if (error.reason === 'TRANSACTION_ABORTED') {
        expect(this.#failed).toBe(true);
      } else if (ENDED.includes(error.reason ?? '') || error.code === 'UNAVAILABLE') {
        await this.#settle();
      } else {
        throw error;
      }
    }
  }

  async #settle(): Promise<void> {
    const asked = this.#id!;
    let outcome: Outcome = Outcome.IN_PROGRESS;
    while (outcome === Outcome.IN_PROGRESS) {
      ({ outcome } = await this.#caller.unary(tx.getOutcome, { subject: { case: 'transactionId', value: asked } }));
    }
    this.ends.behind += 1;
    this.#end(outcome === Outcome.COMMITTED);
  }

  #end(committed: boolean): void {
    if (committed) for (const row of this.#rows) this.committed.add(row);
    this.#id = undefined;
    this.#rows = [];
    this.#savepoints = [];
    this.#failed = false;
  }

  async #begin(): Promise<void> {
    const dice = this.#random();
    const { transaction } = await this.#caller.unary(tx.begin, {
      label: this.#name,
      isolationLevel: dice < 0.5 ? IsolationLevel.READ_COMMITTED : IsolationLevel.REPEATABLE_READ,
      ...(dice < 0.2 ? { idleLease: durationFromMs(15) } : {}),
    });
    this.#id = transaction!.id!;
  }

  #insert(violationId: string = randomUUID()): Promise<void> {
    const row = `${this.#name}:${violationId}`;
    return this.#attempt(async () => {
      await this.#caller.unary(
        rpc.insertViolation,
        {
          violationId,
          violationType: 'model',
          severity: 0,
          description: row,
          evidence: jsonToValue({}),
          agentId: this.#name,
          routedToGovernor: false,
          detectedAt: { seconds: 1n, nanos: 0 },
        },
        { transaction: this.#id! },
      );
      expect(this.#failed).toBe(false);
      this.#rows.push(row);
    });
  }

  /** A row that is there already: PostgreSQL aborts the transaction. */
  #collide(): Promise<void> {
    const taken = this.#rows[0]?.split(':')[1];
    if (!taken) return this.#insert();
    return this.#attempt(async () => {
      try {
        await this.#insert(taken);
      } catch (error) {
        if (!(error instanceof CallError) || error.code !== 'ALREADY_EXISTS') throw error;
        this.#failed = true;
      }
    });
  }

  #read(): Promise<void> {
    return this.#attempt(async () => {
      const { violations } = await this.#caller.unary(
        rpc.fetchViolations,
        { agentId: this.#name, limit: 100_000 },
        { transaction: this.#id! },
      );
      const seen = violations.map(({ description }) => description).sort();
      expect(seen).toEqual([...this.committed, ...this.#rows].sort());
    });
  }

  #savepoint(): Promise<void> {
    const name = `s${Math.floor(this.#random() * 3)}`;
    return this.#attempt(async () => {
      await this.#caller.unary(tx.savepoint, { transactionId: this.#id!, name });
      this.#savepoints.push({ name, rows: [...this.#rows] });
    });
  }

  #backTo(): Promise<void> {
    const savepoint = this.#savepoints.at(-1);
    if (!savepoint) return this.#failed ? this.#finish() : this.#insert();
    return this.#attempt(async () => {
      await this.#caller.unary(tx.rollbackToSavepoint, { transactionId: this.#id!, name: savepoint.name });
      this.#rows = [...savepoint.rows];
      this.#failed = false;
    });
  }

  /** Somebody ends our backend: the transaction is gone, whatever it did. */
  async #kill(): Promise<void> {
    await sidecar.sql(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
       and application_name = 'policy-sidecar transaction' and state like 'idle in transaction%' order by random() limit 1`,
    );
  }

  async #dawdle(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 20 * this.#random()));
  }

  #finish(): Promise<void> {
    const commit = this.#random() < 0.7;
    return this.#attempt(async () => {
      if (!commit) {
        await this.#caller.unary(tx.rollback, { transactionId: this.#id! });
        this.ends.rolledBack += 1;
        this.#end(false);
        return;
      }
      try {
        await this.#caller.unary(tx.commit, { transactionId: this.#id! });
        expect(this.#failed).toBe(false);
        this.ends.committed += 1;
        this.#end(true);
      } catch (error) {
        if (!(error instanceof CallError) || error.reason !== 'TRANSACTION_ABORTED') throw error;
        expect(this.#failed).toBe(true);
        this.#end(false);
      }
    });
  }
}

test('a model of many clients: what is committed is what they were told', async () => {
  const clients = Array.from(
    { length: 10 },
    (_, index) =>
      new ModelClient(index % 2 === 0 ? sidecar.grpc : sidecar.connect, `client-${index}`, generator(seed + index)),
  );
  try {
    await Promise.all(clients.map((client) => client.run(500)));
    const rows = await sidecar.sql<{ description: string }>(
      `select description from policy.violations where violation_type = 'model' order by description collate "C"`,
    );
    const expected = clients.flatMap(({ committed }) => [...committed]).sort();
    expect(rows.map(({ description }) => description)).toEqual(expected);
    const sum = (key: 'committed' | 'rolledBack' | 'behind') =>
      clients.reduce((total, { ends }) => total + ends[key], 0);
    const steps = clients.reduce((total, client) => total + client.steps, 0);
    console.log(
      `model: seed ${seed}, ${steps} steps, ${sum('committed')} commits, ${sum('rolledBack')} rollbacks, ` +
        `${sum('behind')} ended behind their client's back, ${expected.length} rows`,
    );
    expect(sum('behind')).toBeGreaterThan(0);
  } catch (error) {
    console.log(`model: failed with MODEL_SEED=${seed}`);
    throw error;
  }
}, 120_000);

describe('a bank under SERIALIZABLE', () => {
  const ACCOUNTS = 5;
  const START = 1_000;
  const TRANSFERS = 200;

  test('money is neither made nor lost by transfers that collide', async () => {
    const names = Array.from({ length: ACCOUNTS }, (_, index) => `account-${index}`);
    const setup = new pg.Client({ connectionString: sidecar.url });
    await setup.connect();
    const ids = new Map<string, string>();
    for (const name of names) {
      const { rows } = await setup.query(
        `insert into policy.risk_ceilings (name, metric, max_value, current_value) values ($1, 'money', 0, $2) returning id`,
        [name, START],
      );
      ids.set(name, rows[0].id);
    }
    await setup.end();
    const random = generator(seed);
    let conflicts = 0;
    let done = 0;
    const transfer = async (from: string, to: string, amount: number): Promise<void> => {
      for (;;) {
        const begun = await sidecar.grpc.unary(tx.begin, { isolationLevel: IsolationLevel.SERIALIZABLE });
        const transaction = begun.transaction!.id!;
        try {
          const { riskCeilings } = await sidecar.grpc.unary(rpc.fetchRiskCeilings, {}, { transaction });
          const balance = (name: string) => riskCeilings.find((each) => each.name === name)!.currentValue;
          const set = (name: string, currentValue: number) =>
            sidecar.grpc.unary(
              rpc.updateRiskCeiling,
              { ceilingId: ids.get(name)!, updates: { currentValue }, updateMask: { paths: ['current_value'] } },
              { transaction },
            );
          // In one order, or PostgreSQL would spend its time waiting out deadlocks.
          const changes = [[from, -amount] as const, [to, amount] as const].sort(([a], [b]) => (a < b ? -1 : 1));
          for (const [name, change] of changes) await set(name, balance(name) + change);
          await sidecar.grpc.unary(tx.commit, { transactionId: transaction });
          done += 1;
          return;
        } catch (error) {
          if (!(error instanceof CallError) || error.code !== 'ABORTED') throw error;
          expect(error.retryAfterMs).toBeGreaterThan(0);
          conflicts += 1;
          await sidecar.grpc.unary(tx.rollback, { transactionId: transaction });
        }
      }
    };
    const worker = async (): Promise<void> => {
      while (done < TRANSFERS) {
        const from = names[Math.floor(random() * ACCOUNTS)]!;
        const to = names[Math.floor(random() * ACCOUNTS)]!;
        if (from !== to) await transfer(from, to, Math.ceil(random() * 10));
      }
    };
    await Promise.all(Array.from({ length: 6 }, worker));
    const [{ sum }] = (await sidecar.sql<{ sum: number }>(
      `select sum(current_value) from policy.risk_ceilings where metric = 'money'`,
    )) as [{ sum: number }];
    console.log(`bank: seed ${seed}, ${done} transfers, ${conflicts} conflicts`);
    expect(sum).toBe(ACCOUNTS * START);
    expect(conflicts).toBeGreaterThan(0);
  }, 120_000);

  test('Execute tries again by itself, a bounded number of times', async () => {
    const [row] = await sidecar.sql<{ id: string }>(`select id from policy.risk_ceilings where name = 'account-0'`);
    const operations: MessageInitShape<typeof OperationSchema>[] = [
      { request: { case: 'fetchRiskCeilings' as const, value: {} } },
      {
        request: {
          case: 'updateRiskCeiling' as const,
          value: { ceilingId: row!.id, updates: { currentValue: 1 }, updateMask: { paths: ['current_value'] } },
        },
      },
    ];
    const results = await Promise.allSettled(
      Array.from({ length: 40 }, () =>
        sidecar.grpc.unary(tx.execute, { operations, isolationLevel: IsolationLevel.SERIALIZABLE, maxAttempts: 10 }),
      ),
    );
    let retried = 0;
    for (const result of results) {
      if (result.status === 'fulfilled') {
        expect(result.value.attempts).toBeLessThanOrEqual(10);
        if (result.value.attempts > 1) retried += 1;
      } else {
        expect(result.reason).toMatchObject({ code: 'ABORTED' });
      }
    }
    expect(retried).toBeGreaterThan(0);
  });
});
